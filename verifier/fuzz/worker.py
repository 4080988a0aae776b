"""Run the cases of a campaign one at a time, in a worker process that is replaced when it dies."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection

from verifier.cases.spec import CaseSpec
from verifier.engine.events import CaseFinished, OutcomeReady, RunStarted
from verifier.engine.limits import Limits
from verifier.engine.plan import Task, applicable
from verifier.engine.retry_policy import LostCase
from verifier.engine.run import blame_import, worker_error
from verifier.engine.worker import Failed
from verifier.engine.worker_pool import Worker, WorkerExit, WorkerPool
from verifier.judging.outcome import Outcome

_POLL_SECONDS = 0.1


class Stopped(Exception):
    """The campaign is over: nothing more is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """The outcomes of a case.

    Attributes:
        outcomes: of each check that ran, in order, and of those that the process died before or in.
        seconds: how long it took.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def failures(self) -> set[str | None]:
        """The fingerprints of its failures."""
        return {outcome.fingerprint for outcome in self.outcomes if outcome.verdict.gates}


class FuzzWorker:
    """Runs cases in one worker process at a time. Each thread has its own; they share the pool.

    Args:
        pool: starts the processes.
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
        """Start a process where there is none, and wait until it has loaded everything.

        Returns:
            What the process reported when it was ready.

        Raises:
            UsageError, ImportFailed, HarnessError: the process could not load everything.
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
                    raise blame_import(worker, self._end(worker))
                try:
                    for message in worker.messages():
                        match message:
                            case RunStarted():
                                worker.ready, worker.memory_when_ready, self.ready = True, worker.memory, message
                            case Failed(status=status, message=text, detail=detail):
                                raise worker_error(status, text, detail, loaded=False)
                except EOFError:
                    raise blame_import(worker, self._end(worker)) from None
        assert self.ready is not None
        return self.ready

    def run(self, spec: CaseSpec, checks: Sequence[str] | None = None, *, seconds: float | None = None) -> CaseResult:
        """Run the case, with these checks or all that apply.

        Args:
            spec: the case.
            checks: ids of the wanted ones; all that were selected if None.
            seconds: a shorter limit than the usual one.

        Raises:
            HarnessError: the harness is at fault.
            Stopped: the campaign is over.
        """
        ready = self.load()
        known = {check.id: check for check in ready.checks}
        wanted = ready.checks if checks is None else tuple(known[name] for name in checks if name in known)
        if not applicable(spec, wanted):
            return CaseResult(outcomes=(), seconds=0.0)
        if self._worker is not None and self._worker.is_bloated(self._limits):
            self.renew()
            self.load()
        worker = self._worker
        assert worker is not None
        worker.send_task(Task(spec=spec, checks=None if checks is None else tuple(checks)))
        outcomes: list[Outcome] = []
        limits = self._limits if seconds is None else replace(self._limits, seconds=seconds)
        while True:
            self._wait(worker, limits)
            try:
                for message in worker.messages():
                    match message:
                        case OutcomeReady(outcome=outcome):
                            worker.seen.append(outcome.check)
                            outcomes.append(outcome)
                        case CaseFinished(seconds=taken):
                            worker.last, worker.spec = worker.spec, None
                            return CaseResult(outcomes=tuple(outcomes), seconds=taken)
                        case Failed(status=status, message=text, detail=detail):
                            raise worker_error(status, text, detail)
            except EOFError:
                lost = LostCase.from_worker(worker, self._end(worker), applicable(spec, wanted))
                return CaseResult(outcomes=(*outcomes, *lost.outcomes), seconds=lost.seconds)

    def renew(self) -> None:
        """End the process, so that the next case runs in a fresh one."""
        if self._worker is not None:
            self._end(self._worker)

    def checks_up_to(self, check: str) -> tuple[str, ...]:
        """The ids of the checks that run before a check, and its own."""
        known = [one.id for one in (self.ready or self.load()).checks]
        return tuple(known[: known.index(check) + 1]) if check in known else (check,)

    def _wait(self, worker: Worker, limits: Limits) -> None:
        """Wait until the process says something or dies; end it when it has taken too much time or memory."""
        while not connection.wait([worker.pipe, worker.process.sentinel], timeout=_POLL_SECONDS):
            if self._stop.is_set():
                self.renew()
                raise Stopped
            if worker.enforce_limits(limits):
                return

    def _end(self, worker: Worker) -> WorkerExit:
        exited = worker.wait_for_exit()
        with self._lock:
            self._pool.stop(worker)
        self._worker = None
        return exited
