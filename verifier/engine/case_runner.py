"""Run cases one at a time, when they are asked for: in a worker process that is kept, or in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Protocol

from verifier.cases.spec import CaseSpec
from verifier.engine.events import CaseFinished, Event, OutcomeReady, RunFinished, RunStarted, WorkerLost
from verifier.engine.inline import threads_kept
from verifier.engine.interrupts import Paused
from verifier.engine.loading import Loaded, load
from verifier.engine.plan import Plan, Task
from verifier.engine.run import run as run_plan
from verifier.engine.worker import execute
from verifier.engine.working_directory import preserve_cwd
from verifier.judging.outcome import Outcome


class CaseRunner(Protocol):
    """Runs one case at a time.

    Attributes:
        started: what the adapter calls itself, and which checks are selected; None before the first case.
        lost: the processes that died in a case, so far.
    """

    started: RunStarted | None
    lost: list[WorkerLost]

    def run(self, spec: CaseSpec, checks: Sequence[str]) -> tuple[Outcome, ...]:
        """Run these checks on the case, and the checks that they rest on.

        Raises:
            UsageError: a check, the family, the adapter or the device is not what it should be.
            ImportFailed: code from outside raised, or ended its process, at import.
            HarnessError: the harness failed on the case; others can be run after it.
            KeyboardInterrupt: Ctrl-C.
        """
        ...

    def close(self) -> None:
        """Stop what was started; a later `run` starts it anew."""
        ...


class SubprocessRunner:
    """Runs cases in a worker process, under the plan's limits; a worker that dies is replaced.

    Its run is paused between two cases, and takes no signal then.

    Args:
        plan: family, adapter, checks, device and limits; it has no cases yet.
    """

    def __init__(self, plan: Plan) -> None:
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._plan = replace(plan, wanted=self._wanted)
        self._more: deque[CaseSpec] = deque()
        self._events: Generator[Event] | None = None
        self._paused = Paused()
        self.started: RunStarted | None = None
        self.lost: list[WorkerLost] = []

    def run(self, spec: CaseSpec, checks: Sequence[str]) -> tuple[Outcome, ...]:
        try:
            with self._paused:
                return self._run(spec, checks)
        except BaseException:
            self.close()  # the next case begins anew
            raise

    def _run(self, spec: CaseSpec, checks: Sequence[str]) -> tuple[Outcome, ...]:
        self._wanted[spec.id] = tuple(checks)
        if self._events is None:
            self._events = run_plan(replace(self._plan, specs=(spec,)), workers=1, more=self._more)
        else:
            self._more.append(spec)
        outcomes: dict[str, Outcome] = {}
        for event in self._events:
            match event:
                case RunStarted():
                    self.started = event
                case OutcomeReady(case=case, outcome=outcome) if case == spec.id:
                    outcomes[outcome.check] = outcome
                case WorkerLost():
                    self.lost.append(event)
                case CaseFinished(case=case) if case == spec.id:
                    return tuple(outcomes.values())
                case RunFinished():
                    break
                case _:
                    pass
        raise KeyboardInterrupt  # nothing else ends a run before its case has ended

    def close(self) -> None:
        if self._events is not None:
            with self._paused:
                self._events.close()
            self._events = None
            self._more.clear()


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

    def run(self, spec: CaseSpec, checks: Sequence[str]) -> tuple[Outcome, ...]:
        with threads_kept(), preserve_cwd():
            if self._loaded is None:
                self._loaded = load(self._plan)
                self.started = self._loaded.started()
            events = execute(Task(spec=spec, checks=tuple(checks)), self._loaded)
            return tuple(event.outcome for event in events if isinstance(event, OutcomeReady))

    def close(self) -> None:
        self._loaded = None
