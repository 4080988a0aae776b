"""Ctrl-C and SIGTERM as something that a loop can wait for, so that no half-done step is torn."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Inside it the first signal is noted, and `reader` becomes readable; a second one raises KeyboardInterrupt.

    While `immediate` is set the first one raises too: for steps that block and have nothing to lose. Outside the
    main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.noted = False
        self.immediate = False
        self.reader, self._writer = os.pipe()
        self._before: dict[signal.Signals, Any] = {}

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
