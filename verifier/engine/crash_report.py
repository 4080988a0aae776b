"""Read what a dead process left behind: the last of its output, and the Python stack that it died in."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

from verifier.checks.blame import site_among

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
    """The file that takes the stack of a process: not its log, where output could bury it."""
    return log.with_suffix(".stack")


def read(log: Path) -> str | None:
    """Read the last of the output, and the stack of the thread that was running, if there is one."""
    output = "\n".join(_tail(log).strip().splitlines()[-_LINES:])
    return "\n".join(part for part in (output, _condensed(_tail(stack_file(log)).strip())) if part) or None


def is_there(log: Path) -> bool:
    """Whether a stack that was asked for has been written, to its end."""
    _, found, stack = _tail(stack_file(log)).rpartition(_ASKED)
    return bool(found) and stack.count("\n") > 1 and stack.endswith("\n")


def innermost(detail: str | None) -> str | None:
    """The frame in which the stack in a `read` text ends: `line 7 in wrap of mine.py`; None where there is none."""
    frame = next(_FRAME.finditer(detail or ""), None)
    return None if frame is None else f"line {frame[2]} in {frame[3]} of {Path(frame[1]).name}"


def site(detail: str | None) -> str | None:
    """`package/module.py:function` of the innermost frame of that stack in the adapter's code; None without one."""

    def frames() -> Iterator[tuple[str, str]]:
        for frame in _FRAME.finditer(detail or ""):
            yield frame[1], frame[3]

    return site_among(frames())


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
    """Faulthandler tells of a fatal signal, of every other thread, of the one that it met, and of every extension
    module; of that the first and the third are of use. A stack that was asked for is of that thread alone."""
    _, fatal, rest = text.rpartition(_FATAL)
    if not fatal:
        return text[text.rfind(_ASKED) :] if _ASKED in text else text
    met = list(_CURRENT.finditer(rest))
    stack = rest[met[-1].start() :].partition("\n\n")[0] if met else ""
    return "\n".join(part for part in (_FATAL + rest.splitlines()[0], stack.rstrip()) if part)
