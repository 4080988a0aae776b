"""The errors that users see, each in one line, and the exit status of each."""

from __future__ import annotations

import enum
import re
import sys
from types import TracebackType
from typing import Any

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


class UserInterrupt(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, as the harness's own handler raises it; a plain KeyboardInterrupt comes from code outside."""


# Held here, and the class alone is asked for: an adapter may have patched `isinstance`, or have an error lie to it.
_exc_info, _EVERYTHING = sys.exc_info, (BaseException,)


def all_but_interrupts() -> tuple[type[BaseException], ...]:
    """Give what an `except` clause catches where code from outside runs: whatever it raises, but no `UserInterrupt`.

    An adapter may raise SystemExit, KeyboardInterrupt, a cancellation or a class of its own, none of which is an
    `Exception`. The clause asks while the exception is on its way: `except all_but_interrupts() as error`.
    """
    return () if _exc_info()[0] is UserInterrupt else _EVERYTHING


# Attributes of an exception are read past its class, which comes from outside and may raise where it is asked.
_CLASS_NAME: Any = vars(type)["__name__"]
_TRACEBACK: Any = vars(BaseException)["__traceback__"]
NO_TEXT = "(its text cannot be had)"


def type_name(value: object) -> str:
    """The name of a value's class, also where the class does not want to say it."""
    return str.__str__(_CLASS_NAME.__get__(type(value)))


def traceback_of(error: BaseException) -> TracebackType | None:
    """The traceback of an exception, whose class may hide it."""
    found: TracebackType | None = _TRACEBACK.__get__(error)
    return found


def text_of(value: object) -> str:
    """Spell a value as text; one that fails to spell itself gets words that say so."""
    try:
        return str.__str__(str(value))  # which may be of a class derived from `str`, with methods of its own
    except all_but_interrupts():
        return NO_TEXT


def one_line(error: BaseException, *, limit: int = 300) -> str:
    """Spell an exception as `Type: message` in one line of at most `limit` characters.

    Args:
        error: the exception.
        limit: how many characters the line may have; a longer line is cut and ends in `…`.
    """
    text, name = " ".join(text_of(error).split()), type_name(error)
    line = f"{name}: {text}" if text else name
    return line if len(line) <= limit else line[: limit - 1] + "…"
