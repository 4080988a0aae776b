"""Whose code raised: the innermost frame that is neither ours, nor torch's, nor Hugging Face's, nor Python's."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path, PurePath
from types import TracebackType

_OURS = f"{Path(__file__).parent}{os.sep}"
_STDLIB = sysconfig.get_paths()["stdlib"]
_NOT_ADAPTERS = (
    "torch",
    "transformers",
    "accelerate",
    "huggingface_hub",
    "einops",
    "jaxtyping",
    "beartype",
    "typeguard",
)
# Of a traceback, whose innermost frame is the last, and with no comma of a stack that the interpreter wrote as it died,
# whose innermost frame is the first.
_FRAME = re.compile(
    r'^[ |]*File "(?P<file>.*)", line (?P<line>\d{1,9})(?P<innermost_last>,?) in (?P<function>.*)$', re.MULTILINE
)
_PARTS_SHOWN = 3  # enough of a path inside a package to find the file by
_INSTALLED = ("site-packages", "dist-packages")


def site_of(error: BaseException) -> str | None:
    """`package/module.py:function` of the innermost frame in the adapter's code, or None where there is none."""
    frames = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_frame.f_code.co_name))
        trace = trace.tb_next
    return site_among(reversed(frames))


def site_among(frames: Iterable[tuple[str, str]]) -> str | None:
    """The same, of a stack as (file, function), the innermost frame first."""
    for filename, function in frames:
        if _is_adapters(filename):
            return _spelt(filename, function)
    return None


def frame_of(site: str, detail: str) -> tuple[str, int] | None:
    """File and line of the innermost frame that a site names, in the traceback or the stack that it was read from.

    Whose frame it is was decided where it was raised, and is not decided again: paths are another machine's.
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


def _spelt(filename: str, function: str) -> str:
    """The end of the path, from the outermost package on: where that lies is another place on another machine, and a
    failure has the same fingerprint on all of them."""
    parts = PurePath(filename).parts
    roots = [place + 1 for place, part in enumerate(parts[:-1]) if part in _INSTALLED]
    start = roots[-1] if roots else len(parts) - 1
    while not roots and start > 0 and Path(*parts[:start], "__init__.py").is_file():
        start -= 1
    return f"{PurePath(*parts[start:][-_PARTS_SHOWN:])}:{function}"


def _is_adapters(filename: str) -> bool:
    if filename.startswith(("<", _OURS)):
        return False
    for marker in _INSTALLED:
        _, found, inside = filename.partition(f"{marker}/")
        if found:
            return inside.split("/")[0] not in _NOT_ADAPTERS
    return not filename.startswith(_STDLIB)


def through_hugging_face(error: BaseException) -> bool:
    """Whether it came out of Hugging Face's code, and not only out of a family's or ours."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if any(f"/{name}/" in PurePath(trace.tb_frame.f_code.co_filename).as_posix() for name in _HUGGING_FACE):
            return True
        trace = trace.tb_next
    return False


_HUGGING_FACE = ("transformers", "huggingface_hub")
_MOST_LINES = 60


def in_full(error: BaseException) -> str:
    """The traceback, its last lines where it is long."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-_MOST_LINES:])
