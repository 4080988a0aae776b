"""What becomes of the output once its reader has gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def until_closed(stream: TextIO) -> Iterator[None]:
    """Print inside the block until the stream's reader has gone: the reader has then seen enough, and nothing fails."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """Send what the stream still holds, and all that comes, nowhere, of which the interpreter would else complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
