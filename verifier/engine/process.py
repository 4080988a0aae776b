"""What belongs to a process as a whole: its working directory, the threads of torch, and its output."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def preserve_cwd(folder: Path | None = None) -> Iterator[None]:
    """Change to a folder, or stay, and return to the earlier directory at the end, unless it is gone.

    Adapters and tests change the directory, and relative paths start where the command was given.
    """
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


@contextlib.contextmanager
def preserve_threads() -> Iterator[None]:
    """Give torch one thread inside the block, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def redirect_output(file: str) -> None:
    """Append whatever this process prints to a file."""
    sink = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(sink, stream)
    os.close(sink)
