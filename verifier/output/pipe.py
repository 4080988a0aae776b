"""What becomes of the output once whoever read it has gone."""

from __future__ import annotations

import os
from typing import TextIO


def discard(stream: TextIO) -> None:
    """Send what the stream still holds, and all that comes, nowhere, of which the interpreter would else complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
