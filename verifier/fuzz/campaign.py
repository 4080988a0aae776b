"""A campaign: which case is next, and what is made of a failure, until its time or its number of cases is up."""

from __future__ import annotations

import itertools
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from verifier.analysis.parity import ratio
from verifier.cases.spec import CaseSpec
from verifier.engine import server
from verifier.engine.events import CaseFinished, CaseStarted, CheckInfo, OutcomeReady, RunFinished, RunStarted, Stop
from verifier.engine.interrupts import Interrupts
from verifier.engine.limits import Limits
from verifier.engine.plan import Plan
from verifier.engine.worker_pool import WorkerPool
from verifier.fuzz.fields import Choice, Space
from verifier.fuzz.hands import Answer, Hand, Stopped
from verifier.fuzz.pairs import Covering
from verifier.fuzz.remembered import Remembered
from verifier.fuzz.shrinking import minimal
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.fuzz_finding import Fate, Found, Kept, Passing, Progress, Replayed

AGAIN = 2  # times that a minimal case is run once more, each in a fresh process
_IDLE = 3  # of Hypothesis' runs in a row without a new case: the space is exhausted
_CHUNK = 100  # random cases of one of Hypothesis' runs
_BEAT_SECONDS = 0.5
# How much longer than its time a campaign may go on shrinking: a part of it, and at least some seconds.
_LONGER, _LEAST_LONGER = 0.1, 30.0
# What a hanging case may take while it is shrunk: so many times what a usual case takes, and at least some seconds.
_TIMES_USUAL, _LEAST_SECONDS = 10.0, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked of a campaign.

    Attributes:
        space: what varies.
        adapter: reference of the adapter under test.
        only: globs that select checks; all where there is none.
        limits: what one case may take.
        workers: processes.
        seconds: how long it goes on; None for no limit.
        most: how many cases it runs, those of shrinking aside; None for no limit.
        kept: failures of earlier campaigns.
        choices: the folder in which shrinking finds what it ended with in earlier ones; None for no such folder.
    """

    space: Space
    adapter: str
    only: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    seconds: float | None = None
    most: int | None = None
    kept: tuple[Kept, ...] = ()
    choices: Path | None = None

    @property
    def plan(self) -> Plan:
        """What workers are started with, and a closer look is made of; it has no case yet."""
        return Plan(
            family=self.space.reference,
            adapter=self.adapter,
            specs=(),
            only=self.only,
            device=self.space.device,
            limits=self.limits,
        )


Happening = RunStarted | CaseStarted | OutcomeReady | CaseFinished | RunFinished | Found | Replayed | Progress


def run(order: Order) -> Iterator[Happening]:
    """Run a campaign and tell what happens; `RunFinished` is the last of it.

    Ctrl-C ends it within a second or two; what was found by then has been told.

    Raises:
        UsageError: a check, the family, the adapter or the device is not what it should be.
        ImportFailed: code from outside raised, or ended its process, at import.
        HarnessError: the harness failed on a case.
    """
    began = time.perf_counter()
    stop = Stop.COMPLETE
    with tempfile.TemporaryDirectory(prefix="verifier-") as folder, Interrupts() as interrupts:
        interrupts.immediate = True
        try:
            pool = WorkerPool(order.plan, Path(folder))
            try:
                campaign = _Campaign(order, pool)
                ready = campaign.load()
                interrupts.immediate = False
                yield RunStarted(
                    adapter_name=ready.adapter_name,
                    adapter_version=ready.adapter_version,
                    checks=ready.checks,
                    expected=0,
                    workers=order.workers,
                )
                yield from campaign.happenings(lambda: interrupts.noted)
            finally:
                pool.stop_all()
        except KeyboardInterrupt:
            interrupts.noted = True
            server.discard()
        if interrupts.noted:
            stop = Stop.INTERRUPTED
    yield RunFinished(stop=stop, seconds=time.perf_counter() - began)


class _Campaign:
    """What the threads of a campaign share: each has a worker process of its own, and asks for a case in turns."""

    def __init__(self, order: Order, pool: WorkerPool) -> None:
        self._order = order
        self._space = order.space
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._told: queue.Queue[Happening | BaseException] = queue.Queue()
        hiring = threading.Lock()
        self._hands = [Hand(pool, hiring, order.limits, self._stop) for _ in range(order.workers)]
        self._covering = Covering(self._space, lambda choice: self._space.spec(choice).valid, self._space.seed)
        self._ordered = iter(self._deterministic())
        self._remembered = Remembered(order.choices)
        self._known: set[str] = set()
        self._run: set[str] = set()  # ids of cases
        self._failed: set[tuple[str, str]] = set()  # cases and checks
        self._found = 0
        self._cases = self._refused = self._shrinking = 0
        self._usual: list[float] = []
        self._phase = "what is kept"
        self._began = time.perf_counter()
        self._checks: tuple[CheckInfo, ...] = ()

    def load(self) -> Any:
        """Have one worker ready, and know which checks there are."""
        ready = self._hands[0].load()
        self._checks = ready.checks
        return ready

    def happenings(self, interrupted: Callable[[], bool]) -> Iterator[Happening]:
        """Everything that is told until the campaign is over."""
        self._began = time.perf_counter()
        threads = [
            threading.Thread(target=self._guarded, args=(number,), name=f"verifier-fuzz-{number}", daemon=True)
            for number in range(len(self._hands))
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) or not self._told.empty():
                if interrupted():
                    self._stop.set()
                try:
                    happening = self._told.get(timeout=_BEAT_SECONDS)
                except queue.Empty:
                    yield self._progress()
                    continue
                if isinstance(happening, BaseException):
                    raise happening
                yield happening
            yield self._progress()
        finally:
            # Also where nobody listens any more: a thread that goes on would hire workers that nobody ends.
            self._stop.set()
            for thread in threads:
                thread.join()

    def _progress(self) -> Progress:
        with self._lock:
            return Progress(
                phase=self._phase,
                cases=self._cases,
                refused=self._refused,
                shrinking=self._shrinking,
                found=self._found,
                pairs=(self._covering.met, self._covering.total),
                seconds=time.perf_counter() - self._began,
            )

    # --- which case is next --------------------------------------------------------------------------------------

    def _guarded(self, number: int) -> None:
        try:
            self._work(number)
        except Stopped:
            pass
        except BaseException as error:
            self._told.put(error)

    def _work(self, number: int) -> None:
        hand = self._hands[number]
        for kept in self._order.kept[number :: len(self._hands)]:
            self._replay(hand, kept)
        while (choice := self._next()) is not None:
            self._explore(hand, choice)
        self._phase = "random cases"
        idle = 0
        for chunk in itertools.count():
            before = self._cases
            self._randomly(hand, number + chunk * len(self._hands))
            idle = 0 if self._cases > before else idle + 1
            if self._over or idle == _IDLE:
                return

    @property
    def _over(self) -> bool:
        order = self._order
        late = order.seconds is not None and time.perf_counter() - self._began > order.seconds
        return self._stop.is_set() or late or (order.most is not None and self._cases >= order.most)

    @property
    def _late(self) -> bool:
        """Whether nothing is made smaller any more: what is found by now is told as it is."""
        limit = self._order.seconds
        if limit is None:
            return False
        return time.perf_counter() - self._began > limit + max(_LONGER * limit, _LEAST_LONGER)

    def _next(self) -> Choice | None:
        """The next of those that are in order; None when there are no more, or it is over."""
        with self._lock:
            return None if self._over else next(self._ordered, None)

    def _deterministic(self) -> Iterable[Choice]:
        """The plainest, each value alone, then choices until every pair has met."""
        self._phase = "each value alone"
        plainest = self._space.plainest
        yield plainest
        for place, one in enumerate(self._space.fields):
            for value in range(1, len(one.values)):
                yield (*plainest[:place], value, *plainest[place + 1 :])
        self._phase = "every pair of values"
        yield from self._covering.choices()

    def _randomly(self, hand: Hand, seed: int) -> None:
        """A run of Hypothesis' engine that looks for errors near their bounds, and for what nobody thought of."""
        from hypothesis import HealthCheck, Phase, given, settings, strategies, target
        from hypothesis import seed as seeded

        sizes = [len(one.values) for one in self._space.fields]

        @seeded(self._space.seed * 1_000_003 + seed)
        @settings(
            max_examples=_CHUNK,
            phases=[Phase.generate, Phase.target],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategies.tuples(*(strategies.integers(0, size - 1) for size in sizes)))
        def explore(choice: Choice) -> None:
            if self._over:
                return
            try:
                nearest = self._explore(hand, tuple(choice))
            except Stopped:
                return  # what Hypothesis still asks for is answered at once
            if nearest is not None:
                target(nearest, label="error over bound")

        explore()

    # --- running cases -------------------------------------------------------------------------------------------

    def _explore(self, hand: Hand, choice: Choice) -> float | None:
        """Run a case and see to its new failures; how near to its bound the worst error came that is no failure."""
        spec = self._space.spec(choice)
        with self._lock:
            if spec.id in self._run:
                return None
            self._run.add(spec.id)
            self._cases += 1
            self._refused += not spec.valid
            first = self._cases
            if spec.valid:
                self._covering.note(choice)
        answer = self._told_of(spec, hand.run(spec))
        for outcome in answer.outcomes:
            if outcome.verdict.gates and self._is_new(outcome):
                self._shrink(hand, choice, outcome, first)
        ratios = [
            one
            for outcome in answer.outcomes
            if outcome.verdict is Verdict.PASS and (one := ratio(outcome)) is not None and 0 < one < float("inf")
        ]
        return max(ratios, default=None)

    def _told_of(self, spec: CaseSpec, answer: Answer, shrunk: Outcome | None = None) -> Answer:
        self._told.put(CaseStarted(spec=spec))
        for outcome in answer.outcomes if shrunk is None else believable(answer.outcomes, shrunk):
            # A failure that does not come when the case is run again is unstable, and stays told.
            if outcome.verdict.gates:
                self._failed.add((spec.id, outcome.check))
            elif (spec.id, outcome.check) in self._failed:
                continue
            self._told.put(OutcomeReady(case=spec.id, outcome=outcome))
        self._told.put(CaseFinished(case=spec.id, seconds=answer.seconds))
        if not any(outcome.verdict is Verdict.TIMEOUT for outcome in answer.outcomes):
            self._usual.append(answer.seconds)
        return answer

    def _is_new(self, outcome: Outcome) -> bool:
        fingerprint = outcome.fingerprint
        assert fingerprint is not None
        with self._lock:
            if fingerprint in self._known:
                return False
            self._known.add(fingerprint)
            self._found += 1
            return True

    def _replay(self, hand: Hand, kept: Kept) -> None:
        answer = self._told_of(kept.spec, hand.run(kept.spec, self._up_to(kept.check)))
        prints = {outcome.fingerprint for outcome in answer.outcomes if outcome.verdict.gates}
        if kept.fingerprint in prints:
            fate = Fate.STILL
            with self._lock:
                self._known.add(kept.fingerprint)
                self._found += 1
            self._told.put(
                Found(
                    fingerprint=kept.fingerprint,
                    check=kept.check,
                    case=kept.spec.id,
                    differs=kept.differs,
                    first=0,
                    calls=0,
                    again=(1, 1),
                    neighbours=(),
                )
            )
        elif prints:
            fate = Fate.CHANGED
        else:
            passed = (Verdict.PASS, Verdict.REDUCED)
            looked = any(one.check == kept.check and one.verdict in passed for one in answer.outcomes)
            fate = Fate.FIXED if looked else Fate.UNSEEN
        self._told.put(Replayed(kept=kept, fate=fate))

    # --- shrinking -----------------------------------------------------------------------------------------------

    def _shrink(self, hand: Hand, choice: Choice, outcome: Outcome, first: int) -> None:
        check, fingerprint = outcome.check, outcome.fingerprint
        assert fingerprint is not None
        calls = 0
        cut = False

        def fails(tried: Choice, checks: Sequence[str] | None = None) -> bool:
            nonlocal calls
            if self._stop.is_set():
                return False
            calls += 1
            with self._lock:
                self._shrinking += 1
            try:
                return fingerprint in self._prints(hand, tried, checks or (check,), outcome)
            except Stopped:
                return False

        def still_fails(tried: Choice) -> bool:
            nonlocal cut
            cut = cut or self._late
            return not cut and fails(tried, checks)

        # Most checks fail alone as they do after others; of one that does not, all before it are run too.
        checks: tuple[str, ...] = (check,)
        if self._late or not fails(choice):
            checks = self._up_to(check)
        sizes = [len(one.values) for one in self._space.fields]
        before = self._remembered.of(fingerprint, sizes)
        smallest = _apart(lambda: minimal(choice, sizes, still_fails, before=before))
        again = tried = 0
        while tried < AGAIN and not self._stop.is_set():
            hand.renew()
            came = fails(smallest, checks)
            if self._stop.is_set() and not came:
                break  # it was cut off, which says nothing
            again += came
            tried += 1
        if again == AGAIN and not cut:
            self._remembered.keep(fingerprint, smallest)
        neighbours = [] if again < AGAIN or self._late else list(self._neighbours(hand, smallest, checks, outcome))
        self._told.put(
            Found(
                fingerprint=fingerprint,
                check=check,
                case=self._space.spec(smallest).id,
                differs=self._space.differing(smallest),
                first=first,
                calls=calls,
                again=(again, tried),
                neighbours=tuple(neighbours),
                cut=cut,
            )
        )

    def _prints(self, hand: Hand, choice: Choice, checks: Sequence[str], outcome: Outcome) -> Mapping[str, Verdict]:
        """The fingerprints of what fails there, of these checks alone."""
        spec = self._space.spec(choice)
        answer = self._told_of(spec, hand.run(spec, checks, seconds=self._patience(outcome)), outcome)
        return {one.fingerprint: one.verdict for one in answer.outcomes if one.verdict.gates and one.fingerprint}

    def _neighbours(self, hand: Hand, choice: Choice, checks: Sequence[str], outcome: Outcome) -> Iterator[Passing]:
        """The cases in which one field is the plainest instead."""
        for place, one in enumerate(self._space.fields):
            if not choice[place] or self._stop.is_set():
                continue
            other = (*choice[:place], 0, *choice[place + 1 :])
            spec = self._space.spec(other)
            answer = self._told_of(spec, hand.run(spec, checks, seconds=self._patience(outcome)), outcome)
            if outcome.fingerprint not in {found.fingerprint for found in answer.outcomes}:
                verdict = next((found.verdict for found in answer.outcomes if found.check == outcome.check), None)
                yield Passing(field=one.name, value=one.values[0], case=spec.id, verdict=verdict)

    def _patience(self, outcome: Outcome) -> float | None:
        """How long a case may take while one that hangs is shrunk: each that hangs is waited for."""
        if outcome.verdict is not Verdict.TIMEOUT or not self._usual:
            return None
        usual = sorted(self._usual)[len(self._usual) // 2]
        limit = max(_LEAST_SECONDS, _TIMES_USUAL * usual)
        return limit if self._order.limits.seconds is None else min(limit, self._order.limits.seconds)

    def _up_to(self, check: str) -> tuple[str, ...]:
        """The checks that run before it, and the check."""
        known = [one.id for one in self._checks]
        return tuple(known[: known.index(check) + 1]) if check in known else (check,)


def believable(outcomes: Iterable[Outcome], shrunk: Outcome) -> Iterator[Outcome]:
    """What may be told of a case that was run while a failure was shrunk.

    Where that is a hang, cases have less time than they are allowed: another check that was cut off then says nothing.

    Args:
        outcomes: what the case came to.
        shrunk: the failure.
    """
    for outcome in outcomes:
        hurried = shrunk.verdict is Verdict.TIMEOUT and outcome.verdict is Verdict.TIMEOUT
        if not hurried or outcome.fingerprint == shrunk.fingerprint:
            yield outcome


T = TypeVar("T")


def _apart(work: Callable[[], T]) -> T:
    """Done in a thread of its own: Hypothesis takes no search inside another one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()
