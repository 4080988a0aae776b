"""Read what a dead process left behind: the end of its output, and the Python stack in which it died."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from verifier.checks.blame import find_site_among

# The signal on which a worker writes down where it is. It is answered below Python, so that a call into C that never
# comes back, or holds the interpreter's lock, is seen too.
ASK = signal.SIGUSR1

_TAIL_BYTES = 12_000
_LINES = 20  # of output before the stack
_FATAL = "Fatal Python error: "
_ASKED = "Stack (most recent call first):"
_CURRENT = re.compile(r"^Current thread .*\(most recent call first\):$", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


def stack_file(log: Path) -> Path:
    """Name the file for the stack of a process: not its log, where output could bury the stack."""
    return log.with_suffix(".stack")


def words_file(log: Path) -> Path:
    """Name the file for the last words of a process that cannot send them: a message that says how a case broke it."""
    return log.with_suffix(".words")


def read(log: Path) -> str | None:
    """Read the end of the output, and the stack of the thread that was running; None if there is neither."""
    output = "\n".join(_tail(log).strip().splitlines()[-_LINES:])
    return "\n".join(part for part in (output, _condensed(_tail(stack_file(log)).strip())) if part) or None


def has_stack(log: Path) -> bool:
    """Whether the process has written the whole stack that it was asked for."""
    _, found, stack = _tail(stack_file(log)).rpartition(_ASKED)
    return bool(found) and stack.count("\n") > 1 and stack.endswith("\n")


def innermost_frame(detail: str | None) -> str | None:
    """Name the innermost frame in a text from `read`: `line 7 in wrap of mine.py`; None if it has no stack."""
    frame = next(_FRAME.finditer(detail or ""), None)
    return None if frame is None else f"line {frame[2]} in {frame[3]} of {Path(frame[1]).name}"


def adapter_site(detail: str | None) -> str | None:
    """Name the adapter's innermost frame in a text from `read`: `package/module.py:function`; None if there is none."""
    return find_site_among((frame[1], frame[3]) for frame in _FRAME.finditer(detail or ""))


def _tail(log: Path) -> str:
    """Read the end of a file; a file that does not exist is empty."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _condensed(text: str) -> str:
    """Shorten what faulthandler wrote to the fatal error and the stack of the thread that met it.

    Faulthandler also writes the stacks of all other threads and a list of extension modules. A stack that a worker was
    asked for is of one thread only, and is kept whole.
    """
    _, fatal, rest = text.rpartition(_FATAL)
    if not fatal:
        return text[text.rfind(_ASKED) :] if _ASKED in text else text
    met = list(_CURRENT.finditer(rest))
    stack = rest[met[-1].start() :].partition("\n\n")[0] if met else ""
    return "\n".join(part for part in (_FATAL + rest.splitlines()[0], stack.rstrip()) if part)
