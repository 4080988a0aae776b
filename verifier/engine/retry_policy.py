"""Run a case again if its process died, and decide when such a death needs no more proof."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verifier.cases.spec import CaseSpec
from verifier.checks import LAST
from verifier.engine.events import WorkerLost
from verifier.engine.worker import trim_outcome
from verifier.engine.worker_process import Worker, WorkerExit
from verifier.judging.outcome import Outcome, Verdict

# After so many retried cases that died in the same check and the same way, further ones are not run again.
CONVINCED = 3
# The check that a subject can be closed, as every one is when its case is over.
CLOSING = "build.close"


@dataclass(frozen=True, slots=True, kw_only=True)
class LostCase:
    """A case whose worker process died.

    Attributes:
        spec: the case.
        culprit: the check that was running; the one of closing if the process died after all of them.
        blocked: the checks that were still to run.
        exited: how the process ended.
        seconds: how many seconds the process had been at the case.
    """

    spec: CaseSpec
    culprit: str
    blocked: tuple[str, ...]
    exited: WorkerExit
    seconds: float

    @classmethod
    def from_worker(cls, worker: Worker, exited: WorkerExit, checks: Sequence[str]) -> LostCase:
        """Name the check that was running: the first one that the worker had not ended.

        After the last check, what is left of a case is to close it.

        Args:
            worker: the dead worker, which still names its case.
            exited: how it ended.
            checks: the ids of the checks that apply to the case, in their order.
        """
        assert worker.spec is not None
        return cls.at(worker.spec, exited, [check for check in checks if check not in worker.seen], worker.began)

    @classmethod
    def at(cls, spec: CaseSpec, exited: WorkerExit, left: Sequence[str], began: float) -> LostCase:
        """Name the first of the checks that had not ended, if there is one, and what it keeps from being run.

        Args:
            spec: the case.
            exited: how its process ended.
            left: the ids of the checks that had not ended, in their order.
            began: when the case was begun, by `time.perf_counter`.
        """
        # Before it looks at what is left behind, the last check closes the case.
        last = [check for check in left if check == LAST]
        culprit, *blocked = [*([check for check in left if check != LAST] or [CLOSING]), *last]
        seconds = time.perf_counter() - began
        return cls(spec=spec, culprit=culprit, blocked=tuple(blocked), exited=exited, seconds=seconds)

    @property
    def event(self) -> WorkerLost:
        """What is told of the death if the case is run again."""
        exited = self.exited
        return WorkerLost(case=self.spec.id, check=self.culprit, verdict=exited.verdict, reason=exited.how, again=True)

    @property
    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes of the checks that did not end, once the case is not run again."""
        exited = self.exited
        yield trim_outcome(
            Outcome(
                check=self.culprit,
                verdict=exited.verdict,
                message=f"the process {exited.how}",
                exception=exited.word,
                site=exited.site,
                detail=exited.detail,
            )
        )
        for check in self.blocked:
            yield Outcome(check=check, verdict=Verdict.SKIP, message=f"blocked: the process died in {self.culprit}")


class RetryPolicy:
    """The cases that wait to be run again, each alone in a fresh process."""

    def __init__(self) -> None:
        self._waiting: deque[LostCase] = deque()
        self._confirmed: Counter[tuple[str, str]] = Counter()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def specs(self) -> list[CaseSpec]:
        """The cases that wait to be run again."""
        return [lost.spec for lost in self._waiting]

    def add(self, lost: LostCase) -> None:
        """Let a case wait to be run again, after those that wait already."""
        self._waiting.append(lost)

    def confirm(self, lost: LostCase) -> None:
        """Count a case that was run again alone and died the same way."""
        self._confirmed[lost.culprit, lost.exited.word] += 1

    def is_confirmed(self, lost: LostCase) -> bool:
        """Whether other cases have died in the same check and the same way often enough."""
        return self._confirmed[lost.culprit, lost.exited.word] >= CONVINCED

    def take_confirmed(self) -> Iterator[LostCase]:
        """Take out the cases that need not be run again any more."""
        for lost in [one for one in self._waiting if self.is_confirmed(one)]:
            self._waiting.remove(lost)
            yield lost

    def take(self) -> CaseSpec:
        """Take out the next case that is to be run again."""
        return self._waiting.popleft().spec
