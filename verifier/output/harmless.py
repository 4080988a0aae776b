"""Standard streams through which nothing that comes from outside reaches a terminal as more than text."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from verifier.output.text import visible


class OwnStream:
    """A stream that takes what is written as it is: our own colours, beside text that was escaped before.

    A terminal that was closed is a reader that has gone, as a closed pipe is.

    Args:
        stream: what is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            BrokenPipeError: the reader, or the terminal, has gone.
        """
        with _hangup_as_broken_pipe():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is kept until there is more of it.

        Raises:
            BrokenPipeError: the reader, or the terminal, has gone.
        """
        with _hangup_as_broken_pipe():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class HarmlessStream(OwnStream):
    """A stream that writes out what a terminal might obey: an escape becomes `\\x1b`.

    Args:
        stream: what is written to.
    """

    def write(self, text: str) -> int:
        """Write a text, in which nothing is left that a terminal might obey."""
        super().write(visible(text))
        return len(text)


@contextlib.contextmanager
def harmless_streams() -> Iterator[None]:
    """Make standard output and error harmless inside the block; one that a shell has closed leads nowhere."""
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        for name in ("stdout", "stderr"):
            stream: Any = getattr(sys, name) or opened.enter_context(open(os.devnull, "w"))
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # it holds every character
            setattr(sys, name, HarmlessStream(stream))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def own_stream(stream: TextIO) -> TextIO:
    """Find the stream below a harmless one, for a console that escapes for itself; another stream is that itself."""
    return cast(TextIO, OwnStream(stream._stream)) if isinstance(stream, HarmlessStream) else stream


@contextlib.contextmanager
def _hangup_as_broken_pipe() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:  # what Linux says of a terminal that is not there any more
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        raise
