"""The order in which cases are run.

The most expensive cases come first, so that the workers end together. Similar cases go to the same worker, so that what
they have in common is made once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from verifier.cases.spec import CaseSpec
from verifier.engine.events import CheckInfo
from verifier.engine.plan import applicable


class _Kind(NamedTuple):
    """What cases of about the same cost have in common: the ids of their checks, and the sizes of their inputs."""

    checks: tuple[str, ...]
    batch: int
    length: int
    long: int


class Schedule:
    """The cases that wait for a worker, ordered by what they are likely to cost.

    The cost of a case is known if an earlier run of it was recorded. The cost of the others is measured during the run:
    cases of one kind, with the same checks and inputs of the same size, cost about the same. Before the first case of a
    kind has ended, its number of checks stands for its cost.

    The cases of a kind are taken in their order, from the beginning or from the end: neighbours are similar, and a
    worker that stays at its end gets similar cases.

    Args:
        specs: the cases.
        checks: the selected checks.
        known: how many seconds each case took before, by id.
    """

    def __init__(
        self, specs: Sequence[CaseSpec], checks: Sequence[CheckInfo], known: Mapping[str, float] | None = None
    ) -> None:
        self.checks = checks
        self._known = dict(known or {})
        self._kinds: dict[str, _Kind] = {}
        self._waiting: dict[_Kind, deque[CaseSpec]] = {}
        self._spent: dict[_Kind, tuple[int, float]] = {}
        for spec in specs:
            kind = _Kind(applicable(spec, checks), spec.batch, spec.length, spec.long)
            self._kinds[spec.id] = kind
            self._waiting.setdefault(kind, deque()).append(spec)

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def take_case(self, *, last: bool = False) -> CaseSpec:
        """Take a case of the most expensive kind.

        Args:
            last: whether to take the last case of the kind, and not the first.

        Raises:
            IndexError: no case waits.
        """
        kinds = [kind for kind, waiting in self._waiting.items() if waiting]
        if not kinds:
            raise IndexError("no case waits")
        pace = self._pace()
        dearest = self._waiting[max(kinds, key=lambda kind: self._cost(self._waiting[kind][0].id, pace))]
        return dearest.pop() if last else dearest.popleft()

    def note_cost(self, case: str, seconds: float) -> None:
        """Note what a case has cost.

        Args:
            case: the case's id.
            seconds: how long the case took.

        Raises:
            KeyError: the schedule has never had that case.
        """
        number, spent = self._spent.get(self._kinds[case], (0, 0.0))
        self._spent[self._kinds[case]] = number + 1, spent + seconds

    def estimate_left(self, running: Mapping[str, float], again: Iterable[CaseSpec], workers: int) -> float | None:
        """Estimate how many seconds the run will still take; None while nothing is known.

        Args:
            running: for how many seconds each running case has been run, by id.
            again: cases that are run once more, one after the other.
            workers: how many workers run the others.
        """
        if not self._spent and not self._known:
            return None
        pace = self._pace()
        waiting = sum(self._cost(spec.id, pace) for specs in self._waiting.values() for spec in specs)
        going = sum(max(0.0, self._cost(case, pace) - seconds) for case, seconds in running.items())
        return (waiting + going) / max(1, workers) + sum(self._cost(spec.id, pace) for spec in again)

    def _cost(self, case: str, pace: float) -> float:
        if case in self._known:
            return self._known[case]
        kind = self._kinds[case]
        number, spent = self._spent.get(kind, (0, 0.0))
        return spent / number if number else pace * len(kind.checks)

    def _pace(self) -> float:
        """Compute the mean seconds of a check, over the cases that have ended so far."""
        checks = sum(number * len(kind.checks) for kind, (number, _) in self._spent.items())
        spent = sum(seconds for _, seconds in self._spent.values())
        return spent / checks if checks and spent else 1.0
