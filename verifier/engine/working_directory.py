"""Where the process stands: adapters and tests go to other folders, and paths that were given lead from the first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def standing(folder: Path | None = None) -> Iterator[None]:
    """Inside, the process begins in that folder, or where it is; afterwards it is where it was before, unless that
    folder is gone."""
    try:
        before = os.getcwd()
    except FileNotFoundError:
        before = None
    if folder is not None:
        os.chdir(folder)
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(FileNotFoundError):
                os.chdir(before)
