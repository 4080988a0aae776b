"""Find whose code raised: the innermost frame outside the harness, torch, Hugging Face and Python."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from pathlib import Path, PurePath

from verifier.errors import OutdatedAdapter, all_but_interrupts, one_line, traceback_of
from verifier.judging import raising

# A frame of a traceback, whose innermost frame is the last; or, without the comma after the line, of a stack that a
# dying interpreter writes, whose innermost frame is the first.
_FRAME = re.compile(
    r'^[ |]*File "(?P<file>.*)", line (?P<line>\d{1,9})(?P<innermost_last>,?) in (?P<function>.*)$', re.MULTILINE
)
_PARTS_SHOWN = 3  # enough of a path inside a package to find the file by


def find_site(error: BaseException) -> str | None:
    """Find the innermost frame in the adapter's code: `package/module.py:function`; None where there is none."""
    return find_site_among(reversed(raising.frames(error)))


def find_site_among(frames: Iterable[tuple[str, str]]) -> str | None:
    """Find the adapter's innermost frame, as `find_site` does, in a stack of (file, function), the innermost first."""
    for filename, function in frames:
        if raising.is_adapter_code(filename):
            return _shorten(filename, function)
    return None


def find_frame(site: str, detail: str) -> tuple[str, int] | None:
    """Find the file and the line of the innermost frame that a site names, in the text of its traceback or stack.

    The site already says whose frame it is. It is not decided again, because the paths may be another machine's.

    Args:
        site: `path:function`, of which the path may be the end of a longer one.
        detail: the text of a traceback or of a stack.

    Returns:
        The file and the line; None where no frame in the text is of that site.
    """
    found: tuple[str, int] | None = None
    path, _, function = site.rpartition(":")
    end = PurePath(path).parts
    for frame in _FRAME.finditer(detail):
        if frame["function"] == function and PurePath(frame["file"]).parts[-len(end) :] == end:
            found = frame["file"], int(frame["line"])
            if not frame["innermost_last"]:
                return found
    return found


def _shorten(filename: str, function: str) -> str:
    """Word a site with the end of its path, from the outermost package on, so that it is the same on every machine."""
    parts = PurePath(filename).parts
    roots = [place + 1 for place, part in enumerate(parts[:-1]) if part in raising.INSTALLED]
    start = roots[-1] if roots else len(parts) - 1
    while not roots and start > 0 and Path(*parts[:start], "__init__.py").is_file():
        start -= 1
    return f"{PurePath(*parts[start:][-_PARTS_SHOWN:])}:{function}"


def is_outdated(error: BaseException) -> bool:
    """Whether the harness says that an adapter implements an older protocol; an adapter may raise the same class."""
    return issubclass(type(error), OutdatedAdapter) and raising.is_raised_by_harness(error)


_MOST_LINES = 60


def format_traceback(error: BaseException) -> str:
    """The traceback of an exception; its last lines where it is long."""
    try:
        text = "".join(traceback.format_exception(error))
    except all_but_interrupts():  # its class comes from outside, and hides its notes, its causes or its name
        text = "".join([*traceback.format_tb(traceback_of(error)), one_line(error)])
    lines = text.splitlines()
    return "\n".join(lines[-_MOST_LINES:])
