"""Turn Ctrl-C, SIGTERM and a closed terminal into what a loop can wait for, so that no step is broken off halfway."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from verifier.errors import UserInterrupt

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Note the first signal inside the block, and raise `UserInterrupt`, a KeyboardInterrupt, at the second one.

    At the first signal `noted` becomes true and `reader`, a file descriptor, becomes readable. While `immediate` is
    set, the first signal raises too: for steps that block and have nothing to lose. Outside the main thread, where
    Python allows no handlers, signals are left as they are.
    """

    def __init__(self, *, immediate: bool = False) -> None:
        self.noted = False
        self.immediate = immediate
        self.reader, self._writer = os.pipe()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # A hangup that is ignored stays so: `nohup` wants the run to go on.
            heard = [one for one in _SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._on_signal) for number in heard}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.reader)
        os.close(self._writer)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.noted = self.noted, True
        if again or self.immediate:
            raise UserInterrupt
        os.write(self._writer, b"!")
