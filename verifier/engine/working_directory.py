"""Keep the working directory: adapters and tests change it, and relative paths start where the command was given."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def preserve_cwd(folder: Path | None = None) -> Iterator[None]:
    """Change to a folder, or stay, and return to the earlier directory at the end, unless it is gone."""
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
