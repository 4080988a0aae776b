"""Run a plan in this process, without isolation or limits, so that a debugger can stop in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import perf_counter  # held here: an adapter may patch `time`
from typing import TYPE_CHECKING

from verifier.engine import safeguard
from verifier.engine.debugger import Debugger
from verifier.engine.events import CaseFinished, CaseStarted, Event, OutcomeReady, RunFinished, Stop
from verifier.engine.interrupts import Interrupts
from verifier.engine.loading import Loaded, load
from verifier.engine.messages import CaseEvent, CaseFailed
from verifier.engine.plan import Plan, Task, applicable, count_outcomes
from verifier.engine.process import preserve_cwd, preserve_threads
from verifier.engine.retry_policy import LostCase
from verifier.engine.worker import execute, is_about_all_cases
from verifier.engine.worker_process import WorkerExit
from verifier.errors import all_but_interrupts

if TYPE_CHECKING:
    from verifier.checks.runner import Watcher


def run(plan: Plan, *, debugger: Debugger | None = None) -> Iterator[Event]:
    """Run every case of a plan in this process, one after the other, and yield the events of `engine.run.run`.

    If an adapter ends the process, the run ends with it; the events before that have been given.

    Args:
        plan: the cases, and what is run on them.
        debugger: stops at each outcome that makes a run fail; None for no debugger.

    Raises:
        UsageError: a check, the family, the adapter or the device is not what it should be.
        ImportFailed: code from outside raised at import.
    """
    # A closed terminal may be met between two cases too, where what is known is still written down.
    with preserve_threads(), Interrupts(immediate=True):
        events = _run(plan, debugger)
        while True:
            with preserve_cwd():  # wherever an adapter goes, paths that were given lead from here
                event = next(events, None)
            if event is None:
                return
            yield event


def _run(plan: Plan, debugger: Debugger | None) -> Iterator[Event]:
    began = perf_counter()
    stop = Stop.COMPLETE
    try:
        loaded = load(plan)
        yield loaded.started(expected=count_outcomes(plan.specs, loaded.infos))
        for spec in plan.specs:
            yield CaseStarted(spec=spec)
            if plan.diagnose or plan.applicable(spec, loaded.infos):
                yield from execute_here(plan.task(spec), loaded, seen=debugger)
            else:
                yield CaseFinished(case=spec.id, seconds=0.0)
    except KeyboardInterrupt:
        stop = Stop.INTERRUPTED
    sys.stdout.flush()
    yield RunFinished(stop=stop, seconds=perf_counter() - began)


def execute_here(task: Task, loaded: Loaded, *, seen: Watcher | None = None) -> Iterator[CaseEvent]:
    """Run a task in this process; what goes wrong outside its checks is its outcome, as if its process had died.

    Args:
        task: the case, and what to do with it.
        loaded: family, adapter and checks.
        seen: is called with each outcome and the live case.

    Raises:
        UserInterrupt: Ctrl-C or SIGTERM. A KeyboardInterrupt of the adapter's is an outcome.
    """
    # One handler for the whole case, which must find the process as it was.
    with Interrupts(immediate=True):
        yield from _execute(task, loaded, seen)


def _execute(task: Task, loaded: Loaded, seen: Watcher | None) -> Iterator[CaseEvent]:
    began, ended = perf_counter(), set[str]()
    events = execute(task, loaded, seen=seen)
    while True:
        try:
            event = next(events, None)
        except all_but_interrupts() as error:
            safeguard.restore()
            if is_about_all_cases(error):
                raise
            exited = WorkerExit.from_last_words(CaseFailed.from_error(task.spec.id, error))
            break
        if event is None:
            return
        if isinstance(event, OutcomeReady):
            ended.add(event.outcome.check)
        yield event
    if not task.diagnose:  # else it was judged before
        checks = applicable(task.spec, loaded.infos, task.checks)
        lost = LostCase.at(task.spec, exited, [check for check in checks if check not in ended], began)
        yield from (OutcomeReady(case=task.spec.id, outcome=outcome) for outcome in lost.outcomes)
    yield CaseFinished(case=task.spec.id, seconds=perf_counter() - began)
