"""Whose code raised: the innermost frame that is neither ours, nor torch's, nor Hugging Face's, nor Python's."""

from __future__ import annotations

import os
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
_PARTS_SHOWN = 3  # enough of a path to find the file by, and the same on every machine


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
            return f"{PurePath(*PurePath(filename).parts[-_PARTS_SHOWN:])}:{function}"
    return None


def _is_adapters(filename: str) -> bool:
    if filename.startswith(("<", _OURS)):
        return False
    for marker in ("site-packages", "dist-packages"):
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
