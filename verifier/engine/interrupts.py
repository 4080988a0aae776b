"""Turn Ctrl-C and SIGTERM into something that a loop can wait for, so that no step is torn."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handlers = dict[signal.Signals, Any]


class Interrupts:
    """Inside it the first signal is noted, and `reader` becomes readable; a second one raises KeyboardInterrupt.

    While `immediate` is set the first one raises too: for steps that block and have nothing to lose. Outside the
    main thread, where Python allows no handlers, it does nothing.
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
    """Signals are the caller's between the steps of a generator that is inside `Interrupts`.

    Each step is taken inside this. Where the generator pauses, its handlers are put aside with it, so that a Ctrl-C
    while something else runs is not noted by a run that nobody asks anything.
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
    """Set these, and give back those of all signals as they were; nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in handlers.items():
        if handler is not None:  # one that was not set by Python cannot be set again
            signal.signal(number, handler)
    return before
