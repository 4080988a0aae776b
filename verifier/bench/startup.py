"""How long one waits for a run's first outcome, beside what importing torch and the modelling file costs anyone."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from verifier import family
from verifier.bench import children
from verifier.errors import ExitStatus, VerifierError

_TIMES = 3

# What makes transformers import a family's modelling file is asking it for the family's class. An interpreter takes a
# while to take all of it down again, for which no run's first outcome waits.
_IMPORTS = "import os, torch, transformers; transformers.{architecture}; os._exit(0)"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """Seconds from the start of a process.

    Attributes:
        imports: until a bare interpreter has imported torch and the modelling file; each time.
        first_outcome: until the run's first outcome was in its record; None where it had none.
    """

    imports: tuple[float, ...]
    first_outcome: float | None

    @property
    def bare(self) -> float:
        """The median of the imports."""
        return statistics.median(self.imports)

    @property
    def ours(self) -> float | None:
        """What the harness adds to them."""
        return None if self.first_outcome is None else self.first_outcome - self.bare


def imports(reference: str) -> tuple[float, ...]:
    """What the imports that no run of the family can do without take, nothing of ours among them.

    Raises:
        VerifierError: they failed.
    """
    script = _IMPORTS.format(architecture=family.load(reference).architecture)
    return tuple(_seconds(script) for _ in range(_TIMES))


def _seconds(script: str) -> float:
    ended = children.run([sys.executable, "-c", script])
    if ended.status != ExitStatus.CONFORMS:
        raise VerifierError(f"`python -c {script!r}` {ended.how}")
    return ended.seconds


class FirstOutcome:
    """Waits for the first outcome in a record that is being written.

    Args:
        path: the record, which need not be there yet.
        began: when the run was started, by the clock that `look` is given the time of.
    """

    def __init__(self, path: Path, began: float) -> None:
        self.seconds: float | None = None
        self._path = path
        self._began = began
        self._read = 0

    def look(self, now: float) -> None:
        """Look whether it is there by now."""
        if self.seconds is not None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]  # what is behind it is still being written
        self._read += len(whole)
        if any(json.loads(line)["kind"] == "outcome" for line in whole.splitlines()):
            self.seconds = now - self._began
