"""Run cases one at a time, when they are asked for: in a worker process that is kept, or in this process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from typing import Protocol

from verifier.cases.spec import CaseSpec
from verifier.engine import server
from verifier.engine.events import CaseFinished, CaseRefused, OutcomeReady, RowReady, RunStarted, WorkerLost
from verifier.engine.inline import execute_here
from verifier.engine.interrupts import Interrupts
from verifier.engine.limits import Limits
from verifier.engine.loading import Loaded, load
from verifier.engine.messages import CaseEvent
from verifier.engine.plan import Plan, Task, applicable
from verifier.engine.process import preserve_cwd, preserve_threads
from verifier.engine.retry_policy import LostCase, RetryPolicy
from verifier.engine.starting import prepare
from verifier.engine.worker_pool import WorkerPool
from verifier.engine.worker_process import Worker
from verifier.judging.outcome import Outcome, Verdict
from verifier.judging.row_summary import RowSummary
from verifier.system.temporary import temporary_folder

_POLL_SECONDS = 0.1  # how late a process that takes too much may be found out

# The forkserver and its environment belong to the whole process, each of whose threads may have a runner.
_STARTING = threading.Lock()


class Stopped(Exception):
    """Nothing more is to be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What came of a case.

    Attributes:
        outcomes: of each check that ran, in order, and of those in which or before which the process died.
        seconds: how long the case took.
        rows: what came of each of its circumstances.
        refused: why Hugging Face refuses the case, where that became known only when it ran.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float
    rows: tuple[RowSummary, ...] = ()
    refused: str | None = None

    @property
    def failures(self) -> set[str | None]:
        """The fingerprints of the failures."""
        return {outcome.fingerprint for outcome in self.outcomes if outcome.verdict.gates}

    def settle(self, spec: CaseSpec) -> CaseSpec:
        """Mark the case as refused, where it was found to be when it ran.

        Args:
            spec: the case that was run.
        """
        return spec if self.refused is None else replace(spec, valid=False, reason=self.refused)


class CaseRunner(Protocol):
    """Runs one case at a time.

    Attributes:
        started: what the adapter calls itself, and which checks are selected; None before the first case.
        lost: the processes that died in a case that was then run again.
    """

    started: RunStarted | None
    lost: list[WorkerLost]

    def run(self, spec: CaseSpec, checks: Sequence[str]) -> CaseResult:
        """Run these checks on the case, and the checks that they rest on.

        Args:
            spec: the case.
            checks: the ids of the checks.

        Raises:
            UsageError: a check, the family, the adapter or the device is not what it should be.
            ImportFailed: code from outside raised, or ended its process, at import.
            HarnessError: the harness failed on the case; others can be run after it.
            KeyboardInterrupt: Ctrl-C.
        """

    def close(self) -> None:
        """Stop what was started; a later `run` starts it anew."""


class SubprocessRunner:
    """Runs cases in a worker process, under the plan's limits; a worker that dies is replaced.

    Args:
        plan: family, adapter, checks, device and limits; its cases are not run.
        retries: whether a case whose worker died is run once more in a fresh one before the death counts.
        stop: another thread sets it when nothing more is to be run.
    """

    def __init__(self, plan: Plan, *, retries: bool = True, stop: threading.Event | None = None) -> None:
        self._plan = plan
        self._retries = RetryPolicy() if retries else None
        self._stop = stop or threading.Event()
        self._resources = contextlib.ExitStack()
        self._pool: WorkerPool | None = None
        self._worker: Worker | None = None
        self.started: RunStarted | None = None
        self.lost: list[WorkerLost] = []

    def run(
        self,
        spec: CaseSpec,
        checks: Sequence[str] | None = None,
        *,
        seconds: float | None = None,
        told: Mapping[str, Outcome] | None = None,
    ) -> CaseResult:
        """Run these checks on the case, or all that the plan selects, and the checks that they rest on.

        Args:
            spec: the case.
            checks: the ids of the checks.
            seconds: a shorter limit than the plan's; None for that one.
            told: by the id of the check, failures that were told before, which are looked for there first.

        Raises:
            UsageError, ImportFailed, HarnessError, KeyboardInterrupt: as `CaseRunner.run` says.
            Stopped: nothing more is to be run.
        """
        task = Task(spec=spec, checks=None if checks is None else tuple(checks), told=told or {})
        limits = self._plan.limits if seconds is None else replace(self._plan.limits, seconds=seconds)
        try:
            with Interrupts() as interrupts:
                interrupts.immediate = True  # what the case has done by then is lost anyhow
                return self._run(task, limits)
        except BaseException:
            self.close()  # the next case begins anew
            raise

    def load(self) -> RunStarted:
        """Start a worker if there is none, wait until it has loaded everything, and say what it has loaded.

        Raises:
            UsageError, ImportFailed, HarnessError: the worker could not load everything.
            Stopped: nothing more is to be run.
        """
        if self._stop.is_set():
            raise Stopped
        again = False
        while self._worker is None:
            worker = self._worker = self._start()
            try:
                for message in self._listen(worker, self._plan.limits):
                    if isinstance(message, RunStarted):
                        self.started = message
                        break
            except EOFError:
                exited = worker.wait_for_exit()
                if again or exited.verdict is Verdict.TIMEOUT:
                    raise worker.early_error(exited) from None
                again = True  # something else may have killed it; what it does itself, it does again
                self.renew()
        assert self.started is not None
        return self.started

    def renew(self) -> None:
        """End the worker, so that the next case runs in a fresh one."""
        if self._pool is not None and self._worker is not None:
            self._pool.stop(self._worker)
        self._worker = None

    def close(self) -> None:
        """End the worker and remove its folder; a later `run` starts anew."""
        self._pool = self._worker = None
        self._resources.close()

    def _start(self) -> Worker:
        with _STARTING:
            try:
                if self._pool is None:
                    prepare()
                    self._pool = WorkerPool(self._plan, self._resources.enter_context(temporary_folder()))
                    self._resources.callback(self._pool.stop_all)
                return self._pool.start()
            except KeyboardInterrupt:
                server.discard()  # it may be seconds deep in imports, and whoever reads our output would wait for it
                raise

    def _run(self, task: Task, limits: Limits) -> CaseResult:
        checks = applicable(task.spec, self.load().checks, task.checks)
        if not checks:
            return CaseResult(outcomes=(), seconds=0.0)
        result, lost = self._attempt(task, limits, checks)
        if lost is not None and self._retries is not None and not self._retries.is_confirmed(lost):
            self.lost.append(lost.event)
            result, lost = self._attempt(task, limits, checks)
            if lost is not None:
                self._retries.confirm(lost)
        return result

    def _attempt(self, task: Task, limits: Limits, checks: Sequence[str]) -> tuple[CaseResult, LostCase | None]:
        """Run a case once.

        Args:
            task: the case, and what to do with it.
            limits: what the case may take.
            checks: the ids of the checks that apply to the case, in their order.

        Returns:
            What came of the case, and how the worker died if it did.
        """
        if self._worker is not None and self._worker.is_spent(self._plan.limits):
            self.renew()
        self.load()
        worker = self._worker
        assert worker is not None
        worker.send_task(task)
        outcomes: list[Outcome] = []
        rows: list[RowSummary] = []
        refused: str | None = None
        try:
            for message in self._listen(worker, limits):
                match message:
                    case OutcomeReady(outcome=outcome):
                        outcomes.append(outcome)
                    case RowReady(row=row):
                        rows.append(row)
                    case CaseRefused(reason=refused):
                        pass
                    case CaseFinished(seconds=seconds):
                        if worker.is_dirty:
                            self.renew()
                        result = CaseResult(
                            outcomes=tuple(outcomes), seconds=seconds, rows=tuple(rows), refused=refused
                        )
                        return result, None
        except EOFError:
            if refused is not None:  # other checks run then
                assert self.started is not None
                checks = applicable(replace(task.spec, valid=False), self.started.checks)
            lost = LostCase.from_worker(worker, worker.wait_for_exit(), checks)
            self.renew()
            result = CaseResult(
                outcomes=(*outcomes, *lost.outcomes), seconds=lost.seconds, rows=tuple(rows), refused=refused
            )
            return result, lost
        raise AssertionError("a worker is listened to until it ends a case or dies")

    def _listen(self, worker: Worker, limits: Limits) -> Iterator[RunStarted | CaseEvent]:
        """Wait for what a worker says, and end it if it takes too much.

        Raises:
            EOFError: the worker is dead.
            Stopped: nothing more is to be run.
        """
        while not self._stop.is_set():
            if connection.wait([worker.pipe, worker.process.sentinel], timeout=_POLL_SECONDS):
                yield from worker.messages()
            if worker.enforce_limits(limits):
                raise EOFError
        raise Stopped


class InProcessRunner:
    """Runs cases in this process: for a debugger, a coverage tool, or an adapter that only this process has.

    Args:
        plan: family, adapter, checks and device.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loaded: Loaded | None = None
        self.started: RunStarted | None = None
        self.lost: list[WorkerLost] = []

    def run(self, spec: CaseSpec, checks: Sequence[str]) -> CaseResult:
        """Run these checks on the case in this process, and the checks that they rest on.

        Args:
            spec: the case.
            checks: the ids of the checks.
        """
        with preserve_threads(), preserve_cwd():
            if self._loaded is None:
                self._loaded = load(self._plan)
                self.started = self._loaded.started()
            began = time.perf_counter()
            events = list(execute_here(Task(spec=spec, checks=tuple(checks)), self._loaded))
            return CaseResult(
                outcomes=tuple(event.outcome for event in events if isinstance(event, OutcomeReady)),
                seconds=time.perf_counter() - began,
                rows=tuple(event.row for event in events if isinstance(event, RowReady)),
                refused=next((event.reason for event in events if isinstance(event, CaseRefused)), None),
            )

    def close(self) -> None:
        """Drop what was loaded; a later `run` loads it anew."""
        self._loaded = None
