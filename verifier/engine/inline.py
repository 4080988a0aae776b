"""A run in this very process: no isolation and no limits, so that a debugger can stop in it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from verifier.engine.debugger import Debugger
from verifier.engine.events import (
    CaseFinished,
    CaseStarted,
    Event,
    EvidenceReady,
    OutcomeReady,
    RunFinished,
    RunStarted,
    Stop,
)
from verifier.engine.loading import load
from verifier.engine.plan import Plan, applicable, expected
from verifier.engine.worker import bounded, looked_at


def run(plan: Plan, *, debugger: Debugger | None = None) -> Iterator[Event]:
    """Run every case of the plan, one after the other, and tell what happens in the events of `engine.run.run`.

    A process that dies takes the run with it; what was told before is safe with whoever was told.

    Args:
        plan: what is to be run.
        debugger: is stopped in at each outcome that gates.

    Raises:
        UsageError: a check, the family, the adapter or the device is not what it should be.
        ImportFailed: code from outside raised at import.
    """
    began = time.perf_counter()
    stop = Stop.COMPLETE
    try:
        loaded = load(plan.family, plan.adapter, plan.only, plan.device, about_to=lambda what: None)
        from verifier.trial import run_case

        checks = loaded.infos
        yield RunStarted(
            adapter_name=str(loaded.adapter.name),
            adapter_version=str(loaded.adapter.version),
            checks=checks,
            expected=expected(plan.specs, checks),
            workers=1,
        )
        for spec in plan.specs:
            yield CaseStarted(spec=spec)
            at = time.perf_counter()
            if plan.look is not None:
                for found in looked_at(spec, loaded, plan.look):
                    yield EvidenceReady(evidence=found)
            elif applicable(spec, checks):
                for outcome in run_case(spec, loaded.family, loaded.adapter, loaded.checks, seen=debugger):
                    yield OutcomeReady(case=spec.id, outcome=bounded(outcome))
            yield CaseFinished(case=spec.id, seconds=time.perf_counter() - at)
    except KeyboardInterrupt:
        stop = Stop.INTERRUPTED
    sys.stdout.flush()
    yield RunFinished(stop=stop, seconds=time.perf_counter() - began)
