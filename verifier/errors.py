"""What can go wrong for a user, in one line each, and the exit status that it has."""

from __future__ import annotations

import enum


class ExitStatus(enum.IntEnum):
    """How a command ended; the only place where a number stands."""

    CONFORMS = 0
    DIFFERS = 1
    USAGE = 2
    BROKEN = 3
    INCONCLUSIVE = 4
    INTERRUPTED = 130


class VerifierError(Exception):
    """One line for a person: what is wrong, where, and what would be right.

    Attributes:
        status: what a command ends with because of it.
        detail: the traceback of another process in which the error was raised; None if there is none.
    """

    status = ExitStatus.BROKEN
    detail: str | None = None


class UsageError(VerifierError):
    """The command line, a name on it, or a file that it names is wrong."""

    status = ExitStatus.USAGE


class Unrunnable(UsageError):
    """No adapter could be tried on a case as it is here: its checkpoint cannot be loaded, or it asks for what Hugging
    Face's model does not have."""


class ImportFailed(VerifierError):
    """Code from outside (an adapter, a family, a check) raised while it was imported or made."""

    status = ExitStatus.BROKEN


class HarnessError(VerifierError):
    """The harness itself is at fault; `detail` is the traceback of the process in which it failed."""

    def __init__(self, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail


class OutdatedAdapter(ImportFailed):
    """An adapter is written for the protocol as it was: nothing of it can be looked at."""


class Inconclusive(VerifierError):
    """There is nothing that a verdict could rest on."""

    status = ExitStatus.INCONCLUSIVE


def as_import_error(error: VerifierError) -> VerifierError:
    """Make the same error as a `UsageError` or `ImportFailed`: its own class may be one that other processes lack."""
    return (UsageError if error.status is ExitStatus.USAGE else ImportFailed)(str(error))


def one_line(error: BaseException, *, limit: int = 300) -> str:
    """The exception as `Type: message` in one line of at most `limit` characters."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # code from outside may even fail to say what is wrong
        text = "(its text cannot be had)"
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= limit else line[: limit - 1] + "…"
