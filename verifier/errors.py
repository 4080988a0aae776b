"""The errors that users see, each in one line, and the exit status of each."""

from __future__ import annotations

import enum
import re

# Control characters but newline and tab, lone surrogates, and the marks that reorder, break or hide text on a screen.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Write out what a terminal or a browser might obey in a text: an escape becomes `\\x1b`."""
    return _HARMFUL.sub(lambda match: match[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


class ExitStatus(enum.IntEnum):
    """How a command ended, as the number that its process gives."""

    CONFORMS = 0
    DIFFERS = 1
    USAGE = 2
    BROKEN = 3
    INCONCLUSIVE = 4
    INTERRUPTED = 130


class VerifierError(Exception):
    """An error whose message is one line for a person: what is wrong, where, and what would be right.

    Whoever shows the message, Python's own traceback too, shows it as text: names and values in it come from outside.

    Attributes:
        status: what a command ends with because of it.
        detail: the traceback of another process in which the error was raised; None if there is none.
    """

    status = ExitStatus.BROKEN
    detail: str | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message))


class UsageError(VerifierError):
    """The command line, a name on it, or a file that it names is wrong."""

    status = ExitStatus.USAGE


class Unrunnable(UsageError):
    """No adapter can be tried on a case: its checkpoint cannot be loaded, or Hugging Face lacks what it asks for."""


class ImportFailed(VerifierError):
    """Code from outside (an adapter, a family, a check) raised while it was imported or made."""

    status = ExitStatus.BROKEN


class HarnessError(VerifierError):
    """The harness itself is at fault; `detail` is the traceback of the process in which it failed."""

    def __init__(self, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail


class OutdatedAdapter(ImportFailed):
    """An adapter is written for an older protocol, so that nothing of it can be checked."""


class Inconclusive(VerifierError):
    """Nothing ran, so that there is no verdict."""

    status = ExitStatus.INCONCLUSIVE


def as_import_error(error: VerifierError) -> VerifierError:
    """Make the same error as a `UsageError` or `ImportFailed`: its own class may be one that other processes lack."""
    return (UsageError if error.status is ExitStatus.USAGE else ImportFailed)(str(error))


def one_line(error: BaseException, *, limit: int = 300) -> str:
    """Spell an exception as `Type: message` in one line of at most `limit` characters.

    Args:
        error: the exception.
        limit: how many characters the line may have; a longer line is cut and ends in `…`.
    """
    try:
        text = " ".join(str(error).split())
    except Exception:  # code from outside may even fail to say what is wrong
        text = "(its text cannot be had)"
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= limit else line[: limit - 1] + "…"
