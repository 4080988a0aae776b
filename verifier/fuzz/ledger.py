"""What the threads of a campaign share: which cases were run, which failures are known, and what is told of them."""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Iterable, Iterator

from verifier.cases.spec import CaseSpec
from verifier.engine.events import CaseFinished, CaseStarted, OutcomeReady, RunFinished, RunStarted
from verifier.fuzz.fields import Choice
from verifier.fuzz.pairs import Covering
from verifier.fuzz.request import CampaignRequest
from verifier.fuzz.worker import CaseResult
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.fuzz_finding import CampaignProgress, ReplayedFailure, ShrunkFailure

# How much longer than its time a campaign may go on shrinking: a part of it, and at least some seconds.
_LONGER, _LEAST_LONGER = 0.1, 30.0
# What a hanging case may take while it is shrunk: so many times what a usual case takes, and at least some seconds.
_TIMES_USUAL, _LEAST_SECONDS = 10.0, 3.0

Event = (
    RunStarted
    | CaseStarted
    | OutcomeReady
    | CaseFinished
    | RunFinished
    | ShrunkFailure
    | ReplayedFailure
    | CampaignProgress
)


class Ledger:
    """The state of a campaign; its methods may be called from any thread.

    Args:
        request: what is asked of the campaign.

    Attributes:
        lock: held while something is counted, or the next case is chosen.
        stop: is set when nothing more is to be run.
        events: what happened, and what a thread raised, in the order in which it is told.
        covering: which pairs of values have met.
        phase: what the campaign is at, in words.
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
        """How many cases were run, those of shrinking aside."""
        return len(self._run)

    @property
    def is_over(self) -> bool:
        """Whether no further case is begun."""
        seconds, most = self._request.seconds, self._request.most
        late = seconds is not None and time.perf_counter() - self._began > seconds
        return self.stop.is_set() or late or (most is not None and self.cases >= most)

    @property
    def is_late(self) -> bool:
        """Whether nothing is made smaller any more: what is found by now is told as it is."""
        limit = self._request.seconds
        if limit is None:
            return False
        return time.perf_counter() - self._began > limit + max(_LONGER * limit, _LEAST_LONGER)

    def begin(self) -> None:
        """The campaign's time begins now."""
        self._began = time.perf_counter()

    def progress(self) -> CampaignProgress:
        """How far the campaign is."""
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
        """Count a case that is about to be run; which one it is of the campaign, or None where it was run before."""
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
        """Whether a failure was not known; from now on it is."""
        with self.lock:
            before = len(self._known)
            self._known.add(fingerprint)
            return len(self._known) > before

    def tell(self, spec: CaseSpec, answer: CaseResult, shrunk: Outcome | None = None) -> CaseResult:
        """Tell what a case came to, and give it back.

        Args:
            spec: the case.
            answer: what it came to.
            shrunk: the failure for which it was run; None where it was run for itself.
        """
        self.events.put(CaseStarted(spec=spec))
        for outcome in answer.outcomes if shrunk is None else believable(answer.outcomes, shrunk):
            # A failure that does not come when the case is run again is unstable, and stays told.
            if outcome.verdict.gates:
                self._failed.add((spec.id, outcome.check))
            elif (spec.id, outcome.check) in self._failed:
                continue
            self.events.put(OutcomeReady(case=spec.id, outcome=outcome))
        self.events.put(CaseFinished(case=spec.id, seconds=answer.seconds))
        if not any(outcome.verdict is Verdict.TIMEOUT for outcome in answer.outcomes):
            self._usual.append(answer.seconds)
        return answer

    def time_limit(self, outcome: Outcome) -> float | None:
        """How many seconds a case may take while that failure is shrunk: each one that hangs is waited for."""
        if outcome.verdict is not Verdict.TIMEOUT or not self._usual:
            return None
        limit = max(_LEAST_SECONDS, _TIMES_USUAL * statistics.median_high(self._usual))
        return limit if self._request.limits.seconds is None else min(limit, self._request.limits.seconds)


def believable(outcomes: Iterable[Outcome], shrunk: Outcome) -> Iterator[Outcome]:
    """The outcomes that may be told of a case that was run while a failure was shrunk.

    Where that is a hang, cases have less time than they are allowed: another check that was cut off then says nothing.

    Args:
        outcomes: what the case came to.
        shrunk: the failure.
    """
    for outcome in outcomes:
        hurried = shrunk.verdict is Verdict.TIMEOUT and outcome.verdict is Verdict.TIMEOUT
        if not hurried or outcome.fingerprint == shrunk.fingerprint:
            yield outcome
