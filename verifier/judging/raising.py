"""Tell an exception of the harness's own from one of the same class that code from outside raises."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable
from pathlib import Path

from verifier.errors import traceback_of

HARNESS = f"{Path(__file__).parent.parent}{os.sep}"  # all of the package `verifier`


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
