"""Keep the working directory: adapters and tests change it, and relative paths are meant from where we began."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def preserve_cwd(folder: Path | None = None) -> Iterator[None]:
    """Change to a folder, or stay, and return to the directory of before at the end, unless that is gone."""
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
