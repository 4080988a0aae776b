"""Tell whose code raised an exception: the harness's own, Hugging Face's, or code from outside."""

from __future__ import annotations

import inspect
import os
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path, PurePath

from verifier.errors import traceback_of

HARNESS = f"{Path(__file__).parent.parent}{os.sep}"  # all of the package `verifier`
INSTALLED = ("site-packages", "dist-packages")
"""The folders in which Python has its packages."""

_STDLIB = sysconfig.get_paths()["stdlib"]
_HUGGING_FACE = ("transformers", "huggingface_hub")
_NOT_ADAPTERS = (
    "torch",
    *_HUGGING_FACE,
    "accelerate",
    "einops",
    "jaxtyping",
    "beartype",
    "typeguard",
)


def frames(error: BaseException) -> list[tuple[str, str]]:
    """List the traceback of an exception as (file, function), the innermost frame last."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(traceback_of(error))]
    return [(code.co_filename, code.co_name) for code in codes]


def is_raised_by_harness(error: BaseException, *, but: Callable[..., object] | None = None) -> bool:
    """Whether the code that raised an exception is the harness's.

    Args:
        error: the exception.
        but: a function from outside whose folder counts as the harness's: a third party's check.
    """
    found = frames(error)
    if not found:
        return True
    code = getattr(inspect.unwrap(but), "__code__", None) if but is not None else None
    theirs = () if code is None else (f"{Path(code.co_filename).parent}{os.sep}",)
    return found[-1][0].startswith((HARNESS, *theirs))


def is_adapter_code(filename: str) -> bool:
    """Whether a file is an adapter's: neither the harness's, nor torch's, Hugging Face's or Python's."""
    if filename.startswith(("<", HARNESS)):
        return False
    for marker in INSTALLED:
        _, found, inside = filename.partition(f"{marker}/")
        if found:
            return inside.split("/")[0] not in _NOT_ADAPTERS
    return not filename.startswith(_STDLIB)


def passed_hugging_face(error: BaseException) -> bool:
    """Whether Hugging Face's code raised an exception, or passed it on: not what an adapter has put into its place."""
    files = [filename for filename, _ in frames(error)]
    paths = [PurePath(filename).as_posix() for filename in files]
    first = next((at for at, path in enumerate(paths) if any(f"/{name}/" in path for name in _HUGGING_FACE)), None)
    return first is not None and not any(is_adapter_code(filename) for filename in files[first:])
