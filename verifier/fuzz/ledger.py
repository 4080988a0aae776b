"""Hold the state that the threads of a campaign share: which cases were run, and which failures are known."""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Iterable, Iterator

from verifier.cases.spec import CaseSpec
from verifier.engine import events
from verifier.engine.case_runner import CaseResult
from verifier.fuzz.fields import Choice
from verifier.fuzz.pairs import Covering
from verifier.fuzz.request import CampaignRequest
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.fuzz_finding import CampaignProgress, ReplayedFailure, ShrunkFailure

# How much longer than its time a campaign may go on shrinking: a part of it, and at least some seconds.
_LONGER, _LEAST_LONGER = 0.1, 30.0
# What a hanging case may take while it is shrunk: so many times what a usual case takes, and at least some seconds.
_TIMES_USUAL, _LEAST_SECONDS = 10.0, 3.0

Event = events.Event | ShrunkFailure | ReplayedFailure | CampaignProgress


class Ledger:
    """The state of a campaign; its methods may be called from any thread.

    Args:
        request: the request of the campaign.

    Attributes:
        lock: held while something is counted, or the next case is chosen.
        stop: set when nothing more is to be run.
        events: what happened, and what a thread raised, in the order of reporting.
        covering: the pairs of values that have met.
        phase: what the campaign does now, in words.
    """

    def __init__(self, request: CampaignRequest) -> None:
        space = request.space
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.events: queue.Queue[Event | BaseException] = queue.Queue()
        self.covering = Covering(space, lambda choice: space.spec(choice).valid, space.seed)
        self.phase = "what is kept"
        self._request = request
        self._known: set[str] = set()  # fingerprints
        self._run: set[str] = set()  # ids of cases
        self._failed: set[tuple[str, str]] = set()  # cases and checks
        self._refused = self._shrinking = 0
        self._usual: list[float] = []
        self._began = time.perf_counter()

    @property
    def cases(self) -> int:
        """The number of cases that were run, not counting those of shrinking."""
        return len(self._run)

    @property
    def is_over(self) -> bool:
        """Whether no further case is begun."""
        seconds, most = self._request.seconds, self._request.most
        late = seconds is not None and time.perf_counter() - self._began > seconds
        return self.stop.is_set() or late or (most is not None and self.cases >= most)

    @property
    def is_late(self) -> bool:
        """Whether shrinking must stop, so that failures are reported as they are."""
        limit = self._request.seconds
        if limit is None:
            return False
        return time.perf_counter() - self._began > limit + max(_LONGER * limit, _LEAST_LONGER)

    def begin(self) -> None:
        """Start the campaign's clock."""
        self._began = time.perf_counter()

    def progress(self) -> CampaignProgress:
        """Report how far the campaign is."""
        with self.lock:
            return CampaignProgress(
                phase=self.phase,
                cases=self.cases,
                refused=self._refused,
                shrinking=self._shrinking,
                found=len(self._known),
                pairs=(self.covering.met, self.covering.total),
                seconds=time.perf_counter() - self._began,
            )

    def enter(self, spec: CaseSpec, choice: Choice) -> int | None:
        """Count a case that is about to be run.

        Args:
            spec: the case.
            choice: the choice that it was made of; a valid case covers the pairs of this choice.

        Returns:
            Its number in the campaign, from 1; None where it was run before.
        """
        with self.lock:
            if spec.id in self._run:
                return None
            self._run.add(spec.id)
            self._refused += not spec.valid
            if spec.valid:
                self.covering.note(choice)
            return self.cases

    def count_shrinking(self) -> None:
        """Count a case that is run while a failure is shrunk."""
        with self.lock:
            self._shrinking += 1

    def is_new(self, fingerprint: str) -> bool:
        """Note a failure, and say whether it was not known before."""
        with self.lock:
            before = len(self._known)
            self._known.add(fingerprint)
            return len(self._known) > before

    def tell(self, spec: CaseSpec, answer: CaseResult, shrunk: Outcome | None = None) -> CaseResult:
        """Report the outcomes and circumstances of a case as events, and give the answer back.

        Args:
            spec: the case.
            answer: its outcomes.
            shrunk: the failure that is being shrunk; None where the case was run for itself.
        """
        spec = answer.settle(spec)
        self.events.put(events.CaseStarted(spec=spec))
        for outcome in answer.outcomes if shrunk is None else believable(answer.outcomes, shrunk):
            # A failure that does not come when the case is run again is unstable, and stays told.
            if outcome.verdict.gates:
                self._failed.add((spec.id, outcome.check))
            elif (spec.id, outcome.check) in self._failed:
                continue
            self.events.put(events.OutcomeReady(case=spec.id, outcome=outcome))
        for row in answer.rows:
            self.events.put(events.RowReady(row=row))
        self.events.put(events.CaseFinished(case=spec.id, seconds=answer.seconds))
        if not any(outcome.verdict is Verdict.TIMEOUT for outcome in answer.outcomes):
            self._usual.append(answer.seconds)
        return answer

    def time_limit(self, outcome: Outcome) -> float | None:
        """The seconds that a case may take while a failure is shrunk; None for the usual limit.

        Only a failure that is a hang has a shorter limit, as each case that hangs is waited for.
        """
        if outcome.verdict is not Verdict.TIMEOUT or not self._usual:
            return None
        limit = max(_LEAST_SECONDS, _TIMES_USUAL * statistics.median_high(self._usual))
        most = self._request.plan.limits.seconds
        return limit if most is None else min(limit, most)


def believable(outcomes: Iterable[Outcome], shrunk: Outcome) -> Iterator[Outcome]:
    """Yield the outcomes that may be reported of a case that was run while a failure was shrunk.

    While a hang is shrunk, cases have less time than they are allowed: a timeout of another check then says nothing.

    Args:
        outcomes: of the case.
        shrunk: the failure.
    """
    for outcome in outcomes:
        hurried = shrunk.verdict is Verdict.TIMEOUT and outcome.verdict is Verdict.TIMEOUT
        if not hurried or outcome.fingerprint == shrunk.fingerprint:
            yield outcome
