"""Run a plan in this process, without isolation or limits, so that a debugger can stop in it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from verifier.engine.debugger import Debugger
from verifier.engine.events import CaseFinished, CaseStarted, Event, RunFinished, Stop
from verifier.engine.loading import load
from verifier.engine.plan import Plan, count_outcomes
from verifier.engine.process import preserve_cwd, preserve_threads
from verifier.engine.worker import execute


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
    with preserve_threads():
        events = _run(plan, debugger)
        while True:
            with preserve_cwd():  # wherever an adapter goes, paths that were given lead from here
                event = next(events, None)
            if event is None:
                return
            yield event


def _run(plan: Plan, debugger: Debugger | None) -> Iterator[Event]:
    began = time.perf_counter()
    stop = Stop.COMPLETE
    try:
        loaded = load(plan)
        yield loaded.started(expected=count_outcomes(plan.specs, loaded.infos))
        for spec in plan.specs:
            yield CaseStarted(spec=spec)
            if plan.diagnose or plan.applicable(spec, loaded.infos):
                yield from execute(plan.task(spec), loaded, seen=debugger)
            else:
                yield CaseFinished(case=spec.id, seconds=0.0)
    except KeyboardInterrupt:
        stop = Stop.INTERRUPTED
    sys.stdout.flush()
    yield RunFinished(stop=stop, seconds=time.perf_counter() - began)
