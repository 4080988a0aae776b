"""The coordinator: gives each worker one case at a time and tells what happens as events. It never imports torch."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path

from verifier.engine import server
from verifier.engine.crew import Crew, Worker
from verifier.engine.events import (
    CaseFinished,
    CaseStarted,
    CheckInfo,
    Event,
    OutcomeReady,
    RunFinished,
    RunStarted,
    Stop,
    WorkerLost,
)
from verifier.engine.interrupts import Interrupts
from verifier.engine.plan import Plan, applicable, expected
from verifier.engine.worker import Done, Failed, Ready, Result, bounded
from verifier.errors import ExitStatus, ImportFailed, UsageError, VerifierError
from verifier.outcome import Outcome, Verdict


class HarnessError(VerifierError):
    """The harness itself is at fault; `detail` is the traceback of the process where it showed."""

    def __init__(self, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail


_ERRORS: dict[ExitStatus, type[VerifierError]] = {ExitStatus.USAGE: UsageError, ExitStatus.BROKEN: ImportFailed}


def run(plan: Plan, *, workers: int) -> Iterator[Event]:
    """Run every case of the plan and tell what happens.

    The events of one case come in order; those of different cases are mixed as the workers go. A Ctrl-C ends it
    within a second with what has come in by then; `RunFinished` is always the last event.

    Raises:
        UsageError: a check, the family, the adapter or the device is not what it should be.
        ImportFailed: code from outside raised, or ended its process, at import.
        HarnessError: the harness failed on a case.
    """
    began = time.perf_counter()
    stop = Stop.COMPLETE
    with tempfile.TemporaryDirectory(prefix="verifier-") as folder, Interrupts() as interrupts:
        interrupts.immediate = True  # starting blocks on imports, and there is nothing yet to lose
        try:
            crew = Crew(plan, Path(folder))
            try:
                for _ in range(max(1, min(workers, len(plan.specs)))):
                    crew.hire()
                interrupts.immediate = False
                yield from _Coordinator(plan, crew, interrupts).events()
            finally:
                crew.end()
        except KeyboardInterrupt:
            interrupts.noted = True
            server.discard()  # it may be seconds deep in imports, and whoever reads our output would wait for it
        if interrupts.noted:
            stop = Stop.INTERRUPTED
    yield RunFinished(stop=stop, seconds=time.perf_counter() - began)


class _Coordinator:
    """One run's queue: every case is in `_waiting`, at one worker, or finished."""

    def __init__(self, plan: Plan, crew: Crew, interrupts: Interrupts) -> None:
        self._plan = plan
        self._crew = crew
        self._interrupts = interrupts
        self._waiting = deque(plan.specs)
        self._checks: tuple[CheckInfo, ...] | None = None

    def events(self) -> Iterator[Event]:
        while self._crew.workers and not self._interrupts.noted:
            heard: list[connection.Connection | int] = [self._interrupts.reader]
            for worker in self._crew.workers:
                heard += [worker.pipe, worker.process.sentinel]
            ready = connection.wait(heard)
            for worker in list(self._crew.workers):
                if worker.pipe in ready or worker.process.sentinel in ready:
                    yield from self._hear(worker)
        for worker in self._crew.workers:  # interrupted: what has been finished is kept
            if worker.spec is not None:
                yield from self._hear(worker, last=True)

    def _hear(self, worker: Worker, *, last: bool = False) -> Iterator[Event]:
        try:
            for message in worker.messages():
                match message:
                    case Ready():
                        yield from self._ready(worker, message)
                    case Result(outcome=outcome):
                        assert worker.spec is not None
                        worker.seen.append(outcome.check)
                        yield OutcomeReady(case=worker.spec.id, outcome=outcome)
                    case Done(seconds=seconds):
                        assert worker.spec is not None
                        yield CaseFinished(case=worker.spec.id, seconds=seconds)
                        worker.spec = None
                    case Failed() if last:
                        return
                    case Failed(status=status, message=text, detail=detail):
                        if status is ExitStatus.BROKEN and worker.ready:
                            raise HarnessError(text, detail)
                        raise _ERRORS[status](text)
        except EOFError:
            if not last:
                yield from self._lost(worker)
            return
        if worker.ready and worker.spec is None and not last:
            yield from self._next(worker)

    def _ready(self, worker: Worker, message: Ready) -> Iterator[Event]:
        worker.ready = True
        if self._checks is None:
            self._checks = message.checks
            yield RunStarted(
                adapter_name=message.adapter_name,
                adapter_version=message.adapter_version,
                checks=message.checks,
                expected=expected(self._plan.specs, message.checks),
                workers=len(self._crew.workers),
            )

    def _next(self, worker: Worker) -> Iterator[Event]:
        """Give it a case; let it go where none is left. A case that no check looks at is over at once."""
        assert self._checks is not None
        while self._waiting:
            spec = self._waiting.popleft()
            yield CaseStarted(spec=spec)
            if applicable(spec, self._checks):
                worker.give(spec)
                return
            yield CaseFinished(case=spec.id, seconds=0.0)
        self._crew.dismiss(worker)

    def _lost(self, worker: Worker) -> Iterator[Event]:
        """A worker died: its case pays, and another one takes its place."""
        word, how = worker.death()
        tail = worker.tail()
        spec = worker.spec
        self._crew.dismiss(worker)
        if not worker.ready:
            if worker.loading is None:
                raise HarnessError(f"a worker died before it could load anything: it {how}" + _last_line(tail), tail)
            raise ImportFailed(f"{worker.loading} ended the process at import: it {how}" + _last_line(tail))
        if spec is None:
            raise HarnessError(f"a worker {how} between two cases", tail)
        assert self._checks is not None
        # Checks run in order, so the first one without an outcome was running; where each has one, the process died
        # in what the last one left behind, whose outcome the crash replaces.
        left = [check for check in applicable(spec, self._checks) if check not in worker.seen]
        culprit, *blocked = left or worker.seen[-1:]
        yield OutcomeReady(case=spec.id, outcome=_crash(culprit, word, how, tail))
        for check in blocked:
            yield OutcomeReady(case=spec.id, outcome=_blocked(check, culprit))
        yield WorkerLost(case=spec.id, reason=how)
        yield CaseFinished(case=spec.id, seconds=time.perf_counter() - worker.began)
        if self._waiting:
            self._crew.hire()


def _crash(check: str, word: str, how: str, tail: str | None) -> Outcome:
    return bounded(
        Outcome(check=check, verdict=Verdict.CRASH, message=f"the process {how}", exception=word, detail=tail)
    )


def _blocked(check: str, culprit: str) -> Outcome:
    return Outcome(check=check, verdict=Verdict.SKIP, message=f"blocked: the process died in {culprit}")


def _last_line(tail: str | None) -> str:
    return f"; it last wrote: {tail.splitlines()[-1].strip()[:200]}" if tail else ""
