"""Cases run one at a time for whoever decides which is next: each hand is a worker process, replaced when it dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection

from verifier.cases.spec import CaseSpec
from verifier.engine.events import CaseFinished, CheckInfo, OutcomeReady, RunStarted
from verifier.engine.limits import Limits
from verifier.engine.plan import applicable
from verifier.engine.retry_policy import LostCase
from verifier.engine.run import blame_import, raised
from verifier.engine.task import Task
from verifier.engine.worker import Failed
from verifier.engine.worker_pool import Worker, WorkerExit, WorkerPool
from verifier.judging.outcome import Outcome

_POLL_SECONDS = 0.1


class Stopped(Exception):
    """The campaign is over: nothing more is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a case.

    Attributes:
        outcomes: of each check that ran, in order; the exited of the process among them.
        seconds: how long it took.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float


class Hand:
    """One worker process at a time. Not to be shared by threads; the pool is.

    Args:
        pool: hires the workers.
        lock: of the pool.
        limits: what one case may take.
        stop: is set when nothing more is to be run.
    """

    def __init__(self, pool: WorkerPool, lock: threading.Lock, limits: Limits, stop: threading.Event) -> None:
        self._pool = pool
        self._lock = lock
        self._limits = limits
        self._stop = stop
        self._worker: Worker | None = None
        self.ready: RunStarted | None = None

    def load(self) -> RunStarted:
        """Have a worker that has loaded everything; what it says of that.

        Raises:
            UsageError, ImportFailed, HarnessError: it could not.
            Stopped: the campaign is over.
        """
        if self._stop.is_set():
            raise Stopped
        if self._worker is None:
            with self._lock:
                self._worker = self._pool.start()
            worker = self._worker
            while not worker.ready:
                self._wait(worker, self._limits)
                if worker.ended is not None:
                    raise blame_import(worker, self._bury(worker))
                try:
                    for message in worker.messages():
                        match message:
                            case RunStarted():
                                worker.ready, worker.at_first, self.ready = True, worker.memory, message
                            case Failed(status=status, message=text, detail=detail):
                                raise raised(status, text, detail, loaded=False)
                except EOFError:
                    raise blame_import(worker, self._bury(worker)) from None
        assert self.ready is not None
        return self.ready

    def run(self, spec: CaseSpec, checks: Sequence[str] | None = None, *, seconds: float | None = None) -> Answer:
        """Run the case, with these checks or all that apply.

        Args:
            spec: the case.
            checks: those that are wanted; all that were selected if None.
            seconds: a shorter limit than the usual one.

        Raises:
            HarnessError: the harness is at fault.
            Stopped: the campaign is over.
        """
        ready = self.load()
        known = {check.id: check for check in ready.checks}
        wanted = ready.checks if checks is None else tuple(known[name] for name in checks if name in known)
        if not applicable(spec, wanted):
            return Answer(outcomes=(), seconds=0.0)
        if self._worker is not None and self._worker.is_bloated(self._limits):
            self.renew()
        worker = self._have()
        began = time.perf_counter()
        worker.give(Task(spec=spec, checks=None if checks is None else tuple(checks)))
        outcomes: list[Outcome] = []
        while True:
            self._wait(worker, self._limits if seconds is None else replace(self._limits, seconds=seconds))
            try:
                for message in worker.messages():
                    match message:
                        case OutcomeReady(outcome=outcome):
                            worker.seen.append(outcome.check)
                            outcomes.append(outcome)
                        case CaseFinished(seconds=taken):
                            worker.last, worker.spec = worker.spec, None
                            return Answer(outcomes=tuple(outcomes), seconds=taken)
                        case Failed(status=status, message=text, detail=detail):
                            raise raised(status, text, detail)
            except EOFError:
                return self._died(worker, spec, wanted, outcomes, time.perf_counter() - began)

    def renew(self) -> None:
        """Take another process for the next case."""
        if self._worker is not None:
            self._bury(self._worker)

    def _have(self) -> Worker:
        self.load()
        assert self._worker is not None
        return self._worker

    def _wait(self, worker: Worker, limits: Limits) -> None:
        """Until it says something, dies, or has taken too much, whereupon it is ended."""
        while not connection.wait([worker.pipe, worker.process.sentinel], timeout=_POLL_SECONDS):
            if self._stop.is_set():
                self.renew()
                raise Stopped
            if worker.enforce(limits):
                return

    def _bury(self, worker: Worker) -> WorkerExit:
        exited = worker.wait_for_exit()
        with self._lock:
            self._pool.stop(worker)
        self._worker = None
        return exited

    def _died(
        self, worker: Worker, spec: CaseSpec, checks: Sequence[CheckInfo], outcomes: list[Outcome], seconds: float
    ) -> Answer:
        by_itself = worker.ended is None
        lost = LostCase.from_checks(
            spec, applicable(spec, checks), worker.seen, self._bury(worker), by_itself=by_itself, seconds=seconds
        )
        return Answer(outcomes=(*outcomes, *lost.outcomes), seconds=seconds)
