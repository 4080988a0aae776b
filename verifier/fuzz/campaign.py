"""Run a campaign: choose the next case until the time or the number of cases is up."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator

from msgspec import structs

from verifier.analysis.error_ratios import ratio
from verifier.engine.case_runner import Stopped, SubprocessRunner
from verifier.engine.events import RunFinished, Stop
from verifier.engine.interrupts import Interrupts
from verifier.fuzz.fields import Choice, Field
from verifier.fuzz.ledger import Event, Ledger
from verifier.fuzz.minimizing import checks_up_to, minimize
from verifier.fuzz.remembered import Remembered
from verifier.fuzz.request import CampaignRequest
from verifier.judging.outcome import Verdict
from verifier.record.fuzz_finding import ReplayedFailure, ShrinkStatus, ShrunkFailure, StoredFailure

_IDLE = 3  # of Hypothesis' runs in a row without a new case: the space is exhausted
_CHUNK = 100  # random cases of one of Hypothesis' runs
_BEAT_SECONDS = 0.5


def run(request: CampaignRequest) -> Iterator[Event]:
    """Run a campaign and yield what happens; `RunFinished` is the last event.

    Ctrl-C ends it within a second or two; what was found by then has been told.

    Raises:
        UsageError: a check, the family, the adapter or the device does not exist or cannot be used.
        ImportFailed: code from outside raised, or ended its process, at import.
        HarnessError: the harness failed on a case.
    """
    began = time.perf_counter()
    with Interrupts() as interrupts, contextlib.ExitStack() as resources:
        interrupts.immediate = True  # starting blocks on imports, and there is nothing yet to lose
        try:
            campaign = _Campaign(request)
            for runner in campaign.runners:
                resources.callback(runner.close)
            started = campaign.runners[0].load()
            interrupts.immediate = False
            yield structs.replace(started, workers=request.workers)
            yield from campaign.events(lambda: interrupts.noted)
        except KeyboardInterrupt:
            interrupts.noted = True
    stop = Stop.INTERRUPTED if interrupts.noted else Stop.COMPLETE
    yield RunFinished(stop=stop, seconds=time.perf_counter() - began)


class _Campaign:
    """The threads of a campaign: each has a worker process of its own, and asks for a case in turns."""

    def __init__(self, request: CampaignRequest) -> None:
        self._request = request
        self._space = request.space
        self._ledger = Ledger(request)
        self.runners = [
            SubprocessRunner(request.plan, retries=False, stop=self._ledger.stop) for _ in range(request.workers)
        ]
        self._ordered = self._deterministic()
        self._remembered = Remembered(request.choices)

    def events(self, interrupted: Callable[[], bool]) -> Iterator[Event]:
        """Start the threads, and yield what happens until the campaign is over."""
        ledger = self._ledger
        ledger.begin()
        threads = [
            threading.Thread(
                # Each thread asks Hugging Face as this one does.
                target=contextvars.copy_context().run,
                args=(self._guarded, number),
                name=f"verifier-fuzz-{number}",
                daemon=True,
            )
            for number in range(len(self.runners))
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) or not ledger.events.empty():
                if interrupted():
                    ledger.stop.set()
                try:
                    event = ledger.events.get(timeout=_BEAT_SECONDS)
                except queue.Empty:
                    yield ledger.progress()
                    continue
                if isinstance(event, BaseException):
                    raise event
                yield event
            yield ledger.progress()
        finally:
            # Also where nobody listens any more: a thread that goes on would start processes that nobody ends.
            ledger.stop.set()
            for thread in threads:
                thread.join()

    def _guarded(self, number: int) -> None:
        try:
            self._work(number)
        except Stopped:
            pass
        except BaseException as error:
            self._ledger.events.put(error)

    def _work(self, number: int) -> None:
        runner, ledger, step = self.runners[number], self._ledger, len(self.runners)
        for kept in self._request.kept[number::step]:
            self._replay(runner, kept)
        while (choice := self._next()) is not None:
            self._explore(runner, choice)
        ledger.phase = "random cases"
        idle = 0
        for seed in itertools.count(number, step):
            before = ledger.cases
            self._explore_randomly(runner, seed)
            idle = 0 if ledger.cases > before else idle + 1
            if ledger.is_over or idle == _IDLE:
                return

    # --- which case is next --------------------------------------------------------------------------------------

    def _next(self) -> Choice | None:
        """Take the next choice of the fixed order; None where there is none left, or the campaign is over."""
        with self._ledger.lock:
            return None if self._ledger.is_over else next(self._ordered, None)

    def _deterministic(self) -> Iterator[Choice]:
        """Yield the plainest choice, each value alone, then choices until every pair has met."""
        self._ledger.phase = "each value alone"
        plainest = self._space.plainest
        yield self._space.mended(plainest)
        for place, one in enumerate(self._space.fields):
            for value in range(1, len(one.values)):
                yield self._space.mended((*plainest[:place], value, *plainest[place + 1 :]), [place])
        self._ledger.phase = "every pair of values"
        yield from self._ledger.covering.choices()

    def _explore_randomly(self, runner: SubprocessRunner, seed: int) -> None:
        """Let Hypothesis choose cases at random, and lead it towards errors near their bounds."""
        from hypothesis import HealthCheck, Phase, given, settings, strategies, target
        from hypothesis import seed as seeded

        def places(field: Field) -> strategies.SearchStrategy[int]:
            all_of_them = strategies.integers(0, len(field.values) - 1)
            return strategies.just(0) | all_of_them if field.is_axis else all_of_them  # plain half the time

        @seeded(self._space.seed * 1_000_003 + seed)
        @settings(
            max_examples=_CHUNK,
            phases=[Phase.generate, Phase.target],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategies.tuples(*map(places, self._space.fields)))
        def explore(choice: Choice) -> None:
            if self._ledger.is_over:
                return
            try:
                nearest = self._explore(runner, self._space.mended(choice))
            except Stopped:
                return  # what Hypothesis still asks for is answered at once
            if nearest is not None:
                target(nearest, label="error over bound")

        explore()

    # --- running cases -------------------------------------------------------------------------------------------

    def _explore(self, runner: SubprocessRunner, choice: Choice) -> float | None:
        """Run a case and minimize its new failures.

        Returns:
            How near to its bound the worst error came that is no failure; None where the case was run before.
        """
        ledger, spec = self._ledger, self._space.spec(choice)
        first = ledger.enter(spec, choice)
        if first is None:
            return None
        outcomes = ledger.tell(spec, runner.run(spec)).outcomes
        for outcome in outcomes:
            if outcome.verdict.gates and outcome.fingerprint is not None and ledger.is_new(outcome.fingerprint):
                shrunk = minimize(self._space, ledger, runner, self._remembered, choice, outcome, first=first)
                ledger.events.put(shrunk)
        ratios = [ratio(outcome) for outcome in outcomes if outcome.verdict is Verdict.PASS]
        return max((one for one in ratios if one is not None and 0 < one < float("inf")), default=None)

    def _replay(self, runner: SubprocessRunner, kept: StoredFailure) -> None:
        """Run the minimal case of an earlier campaign's failure, and report what became of the failure."""
        ledger = self._ledger
        answer = ledger.tell(kept.spec, runner.run(kept.spec, checks_up_to(runner, kept.check)))
        passed = (Verdict.PASS, Verdict.REDUCED)
        if kept.fingerprint in answer.failures:
            status = ShrinkStatus.STILL
            ledger.is_new(kept.fingerprint)
            failure = ShrunkFailure(
                fingerprint=kept.fingerprint,
                check=kept.check,
                case=kept.spec.id,
                differs=kept.differs,
                first=0,
                calls=0,
                again=(1, 1),
                neighbours=(),
            )
            ledger.events.put(failure)
        elif answer.failures:
            status = ShrinkStatus.CHANGED
        elif any(one.check == kept.check and one.verdict in passed for one in answer.outcomes):
            status = ShrinkStatus.FIXED
        else:
            status = ShrinkStatus.UNSEEN
        ledger.events.put(ReplayedFailure(kept=kept, status=status))
