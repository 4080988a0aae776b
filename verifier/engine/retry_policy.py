"""Run a case again whose process died, and decide when its death needs no more proof."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verifier.cases.spec import CaseSpec
from verifier.engine import crash_report
from verifier.engine.worker import bounded
from verifier.engine.worker_pool import WorkerExit
from verifier.judging.outcome import Outcome, Verdict

# After so many retried cases that died in the same check and the same way, further ones are not run again.
CONVINCED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LostCase:
    """A case whose worker process died.

    Attributes:
        spec: the case.
        culprit: the check that was running, or the last one, if the process died in what it left behind.
        blocked: the checks that were still to run.
        exited: how the process ended.
        by_itself: whether it died, and was not ended.
        seconds: how long it had been at the case.
    """

    spec: CaseSpec
    culprit: str
    blocked: tuple[str, ...]
    exited: WorkerExit
    by_itself: bool
    seconds: float

    @classmethod
    def from_checks(
        cls,
        spec: CaseSpec,
        checks: Sequence[str],
        seen: Sequence[str],
        exited: WorkerExit,
        *,
        by_itself: bool,
        seconds: float,
    ) -> LostCase:
        """Name the check that was running: the first of `checks` that is not in `seen`, which had ended."""
        culprit, *blocked = [check for check in checks if check not in seen] or seen[-1:]
        return cls(
            spec=spec, culprit=culprit, blocked=tuple(blocked), exited=exited, by_itself=by_itself, seconds=seconds
        )

    @property
    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes of the checks that did not end, once the case is not run again."""
        exited = self.exited
        yield bounded(
            Outcome(
                check=self.culprit,
                verdict=exited.verdict,
                message=f"the process {exited.how}",
                exception=exited.word,
                # One that was ended was met by chance where it was: that does not make two failures the same.
                site=crash_report.site(exited.detail) if self.by_itself else None,
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
        self._waiting.append(lost)

    def confirm(self, lost: LostCase) -> None:
        """Count a case that was run again alone and died the same way."""
        self._confirmed[lost.culprit, lost.exited.word] += 1

    def believed(self, lost: LostCase) -> bool:
        """Whether other cases have died in the same check and the same way often enough."""
        return self._confirmed[lost.culprit, lost.exited.word] >= CONVINCED

    def take_believed(self) -> Iterator[LostCase]:
        """Take out the cases that need not be run again any more."""
        for lost in [one for one in self._waiting if self.believed(one)]:
            self._waiting.remove(lost)
            yield lost

    def take(self) -> CaseSpec:
        """Take out the next case that is to be run again."""
        return self._waiting.popleft().spec
