"""Turn Ctrl-C and SIGTERM into something that a loop can wait for, so that no step is broken off halfway."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handlers = dict[signal.Signals, Any]


class Interrupts:
    """Note the first signal inside the block, and raise KeyboardInterrupt at the second one.

    At the first signal `noted` becomes true and `reader`, a file descriptor, becomes readable. While `immediate` is
    set, the first signal raises too: for steps that block and have nothing to lose. Outside the main thread, where
    Python allows no handlers, signals are left as they are.
    """

    def __init__(self) -> None:
        self.noted = False
        self.immediate = False
        self.reader, self._writer = os.pipe()
        self._before: _Handlers = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.reader)
        os.close(self._writer)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.noted = self.noted, True
        if again or self.immediate:
            raise KeyboardInterrupt
        os.write(self._writer, b"!")


class Paused:
    """Give signals back to the caller between the steps of a generator that is inside `Interrupts`.

    Each step of the generator is taken inside this block. While the generator pauses, its handlers are put aside, so
    that a paused run does not swallow a Ctrl-C that is meant for something else.
    """

    def __init__(self) -> None:
        self._inside: _Handlers = {}
        self._outside: _Handlers = {}

    def __enter__(self) -> None:
        self._outside = _exchanged(self._inside)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside = _exchanged(self._outside)


def _exchanged(handlers: _Handlers) -> _Handlers:
    """Set signal handlers, and return the earlier ones of all signals; outside the main thread do nothing."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in handlers.items():
        if handler is not None:  # one that was not set by Python cannot be set again
            signal.signal(number, handler)
    return before
