"""What is dear to make is made once for all of a session's processes, and never kept for the next session."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeOnce:
    """Folders and values that the first test that needs one makes, and that tests in other processes wait for.

    `place` is in the session's temporary folder. Nobody may change what is shared: who wants to, copies it first.
    """

    place: Path

    def folder(self, name: str, fill: Callable[[Path], object]) -> Path:
        """The folder of that name, which `fill` has written into; a `fill` that raises leaves it to the next caller."""
        made, done = self.place / name, self.place / f"{name}.done"
        with FileLock(self.place / f"{name}.lock"):
            if not done.exists():
                made.mkdir(exist_ok=True)
                fill(made)
                done.touch()
        return made

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gave, of which every process has a copy; it is pickled on its way."""
        folder = self.folder(name, lambda place: (place / "value").write_bytes(pickle.dumps(make())))
        return pickle.loads((folder / "value").read_bytes())
