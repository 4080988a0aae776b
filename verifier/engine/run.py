"""The coordinator gives each worker one case at a time and passes on its events. It never imports torch."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

from msgspec import structs

from verifier.cases.spec import CaseSpec
from verifier.engine import events, server
from verifier.engine.interrupts import Interrupts
from verifier.engine.plan import Plan, count_outcomes
from verifier.engine.retry_policy import LostCase, RetryPolicy
from verifier.engine.schedule import Schedule
from verifier.engine.starting import prepare
from verifier.engine.worker_pool import WorkerPool
from verifier.engine.worker_process import Worker, WorkerExit
from verifier.errors import VerifierError
from verifier.judging.outcome import Verdict
from verifier.system.temporary import temporary_folder

_POLL_SECONDS = 0.1  # how late a process that takes too much may be found out
_BEAT_SECONDS = 1.0


def run(plan: Plan, *, workers: int) -> Generator[events.Event]:
    """Run every case of a plan in worker processes, and yield what happens.

    The events of one case come in order; those of different cases are mixed as the workers go. Ctrl-C ends the run
    within a second, with what has come in by then. `RunFinished` is always the last event.

    Args:
        plan: the cases, and what is run on them.
        workers: how many processes run cases, at most.

    Raises:
        UsageError: a check, the family, the adapter or the device is not what it should be.
        ImportFailed: code from outside raised, or ended its process, at import.
        HarnessError: the harness failed on a case.
        VerifierError: no process can be started on this machine.
    """
    began = time.perf_counter()
    prepare(workers)
    with temporary_folder() as folder, Interrupts() as interrupts:
        interrupts.immediate = True  # starting blocks on imports, and there is nothing yet to lose
        try:
            pool = WorkerPool(plan, folder)
            try:
                for _ in range(max(1, min(workers, len(plan.specs)))):
                    pool.start()
                interrupts.immediate = False
                yield from _Coordinator(plan, pool, interrupts).run()
            finally:
                pool.stop_all()
        except KeyboardInterrupt:
            interrupts.noted = True
            server.discard()  # it may be seconds deep in imports, and whoever reads our output would wait for it
    stop = events.Stop.INTERRUPTED if interrupts.noted else events.Stop.COMPLETE
    yield events.RunFinished(stop=stop, seconds=time.perf_counter() - began)


class _Coordinator:
    """The queue of one run: every case waits, is at one worker, waits to be run again alone, or is finished."""

    def __init__(self, plan: Plan, pool: WorkerPool, interrupts: Interrupts) -> None:
        self._plan = plan
        self._pool = pool
        self._interrupts = interrupts
        self._schedule: Schedule | None = None  # once the checks are known
        self._retries = RetryPolicy()
        self._beaten = self._looked = time.perf_counter()
        pool.listen(interrupts.reader)

    def run(self) -> Iterator[events.Event]:
        while not self._interrupts.noted:
            if not self._pool.workers:
                if not self._retries and not self._schedule:
                    return
                self._pool.start()
            for worker in self._pool.wait(_POLL_SECONDS):
                yield from self._hear(worker)
            yield from self._look()
            yield from self._beat()
        for worker in self._pool.workers:  # interrupted: what has been finished is kept
            if worker.spec is not None:
                yield from self._hear(worker, last=True)

    def _look(self) -> Iterator[events.Event]:
        """End workers that take too much time or memory; ten times a second, because messages come far more often."""
        now = time.perf_counter()
        if now - self._looked < _POLL_SECONDS:
            return
        self._looked = now
        for worker in list(self._pool.workers):
            if worker.enforce_limits(self._plan.limits):
                # Messages that came after the signal that asks for its stack are not read: the signal wakes sleepers.
                yield from self._lost(worker)

    def _beat(self) -> Iterator[events.Event]:
        now = time.perf_counter()
        if now - self._beaten < _BEAT_SECONDS or self._schedule is None:
            return
        self._beaten = now
        busy = {worker.spec.id: now - worker.began for worker in self._pool.workers if worker.spec is not None}
        yield events.Heartbeat(
            running=busy, left=self._schedule.estimate_left(busy, self._retries.specs, len(self._pool.workers))
        )

    def _hear(self, worker: Worker, *, last: bool = False) -> Iterator[events.Event]:
        try:
            for message in worker.messages():
                if isinstance(message, events.RunStarted):
                    yield from self._begin(message)
                    continue
                if isinstance(message, events.CaseFinished) and self._schedule is not None:
                    self._schedule.note_cost(message.case, message.seconds)
                yield message
        except EOFError:
            if not last:
                yield from self._lost(worker)
            return
        except VerifierError:
            if last:
                return
            raise
        if worker.ready and worker.spec is None and not last:
            yield from self._next(worker)

    def _begin(self, message: events.RunStarted) -> Iterator[events.Event]:
        if self._schedule is None:
            self._schedule = Schedule(self._plan.specs, message.checks, self._plan.known)
            total = count_outcomes(self._plan.specs, message.checks)
            yield structs.replace(message, expected=total, workers=len(self._pool.workers))

    def _next(self, worker: Worker) -> Iterator[events.Event]:
        """Give the worker its next case, or stop it if none is left; a case that no check looks at is over at once."""
        assert self._schedule is not None
        while self._schedule:
            if worker.is_spent(self._plan.limits):
                self._pool.stop(worker)
                self._pool.start()
                return
            spec = self._schedule.take_case(last=worker.number % 2 == 1)
            yield events.CaseStarted(spec=spec)
            if self._plan.diagnose or self._plan.applicable(spec, self._schedule.checks):
                worker.send_task(self._plan.task(spec))
                return
            yield events.CaseFinished(case=spec.id, seconds=0.0)
        for lost in self._retries.take_confirmed():
            yield from _report_lost(lost)
        if self._retries and len(self._pool.workers) == 1 and worker.last is None:
            worker.alone = True
            worker.send_task(self._plan.task(self._retries.take()))
            return
        self._pool.stop(worker)  # a case that is to be run again gets a fresh worker

    def _lost(self, worker: Worker) -> Iterator[events.Event]:
        """Replace a worker that died or was ended. Its case is run once more alone, or gets the worker's verdict."""
        exited, spec = worker.wait_for_exit(), worker.spec
        self._pool.stop(worker)
        if spec is None and worker.last is None:
            # Something else may have killed it, or what it was forked from. What it does itself, it does again.
            if worker.again or exited.verdict is Verdict.TIMEOUT:
                raise worker.early_error(exited)
            self._pool.start().again = True
            return
        if spec is not None and self._plan.diagnose:
            yield events.CaseFinished(case=spec.id, seconds=time.perf_counter() - worker.began)  # it was judged before
        elif spec is not None:
            yield from self._retry_or_report(worker, spec, exited)
        elif not self._plan.diagnose:
            # Its case was finished, so nothing is run again; but the death must not be overlooked.
            assert worker.last is not None
            check = worker.seen[-1]
            yield events.WorkerLost(
                case=worker.last.id, check=check, verdict=exited.verdict, reason=exited.how, again=False
            )
        if self._schedule:
            self._pool.start()

    def _retry_or_report(self, worker: Worker, spec: CaseSpec, exited: WorkerExit) -> Iterator[events.Event]:
        assert self._schedule is not None
        lost = LostCase.from_worker(worker, exited, self._plan.applicable(spec, self._schedule.checks))
        if worker.alone:
            self._retries.confirm(lost)
        elif not self._retries.is_confirmed(lost):
            self._retries.add(lost)
            yield lost.event
            return
        yield from _report_lost(lost)


def _report_lost(lost: LostCase) -> Iterator[events.Event]:
    for outcome in lost.outcomes:
        yield events.OutcomeReady(case=lost.spec.id, outcome=outcome)
    yield events.CaseFinished(case=lost.spec.id, seconds=lost.seconds)
