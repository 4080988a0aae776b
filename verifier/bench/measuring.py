"""`python -m verifier.bench.measuring ORDER RESULT`: the process in which cases are measured, one after the other."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.bench.orders import Order
from verifier.cases.spec import CaseSpec
from verifier.engine.loading import Loaded, load
from verifier.errors import ExitStatus, VerifierError

if TYPE_CHECKING:
    from verifier.bench.clock import Clock


def measure(order: Order) -> Iterator[dict[str, Any]]:
    """Run the cases of the order, and give of each run what it took, check by check.

    Raises:
        UsageError: the family, the adapter or a check is not what it should be.
        ImportFailed: code from outside raised at import.
    """
    from verifier.observing import reuse

    with contextlib.ExitStack() as stack:
        loaded, clock = _loaded(order, stack)
        # As a worker does before its first case.
        gc.collect()
        gc.freeze()
        # The first case of a process also pays for what torch and HF do once.
        for _ in _run(order.cases[0], loaded, clock):
            pass
        for spec in order.cases:
            spent = 0.0
            for repeat in range(order.repeats):
                if repeat or spec is order.cases[0]:  # it has just run, and would find all that is HF's made already
                    reuse.forget()
                run = _one(spec, loaded, clock)
                yield run
                spent += run["seconds"]
                if order.enough is not None and spent > order.enough:
                    break


def _loaded(order: Order, stack: contextlib.ExitStack) -> tuple[Loaded, Clock | None]:
    clock, loaded = None, None
    if order.instrumented:
        from verifier.bench.instrument import instrument

        tool = stack.enter_context(instrument())
        found = _load(order)
        clock = tool.clock
        loaded = Loaded(family=tool.family(found.family), adapter=tool.adapter(found.adapter), checks=found.checks)
    return loaded or _load(order), clock


def _load(order: Order) -> Loaded:
    return load(order.family, order.adapter, order.only, "cpu", about_to=lambda what: None)


def _one(spec: CaseSpec, loaded: Loaded, clock: Clock | None) -> dict[str, Any]:
    if clock is not None:
        clock.reset()
    began, cpu = time.perf_counter(), time.process_time()
    checks = list(_run(spec, loaded, clock))
    return {
        "case": spec.id,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "checks": checks,
        "inside": {} if clock is None else _spelt(clock),
    }


def _run(spec: CaseSpec, loaded: Loaded, clock: Clock | None) -> Iterator[dict[str, Any]]:
    from verifier.checks.runner import run_case

    before = 0.0 if clock is None else clock.inside
    for outcome in run_case(spec, loaded.family, loaded.adapter, loaded.checks):
        now = 0.0 if clock is None else clock.inside
        yield {
            "check": outcome.check,
            "verdict": str(outcome.verdict),
            "fingerprint": outcome.fingerprint,
            "gates": outcome.verdict.gates,
            "seconds": outcome.seconds,
            "models": now - before,
        }
        before = now


def _spelt(clock: Clock) -> Mapping[str, Mapping[str, float]]:
    return {
        kind.name: {
            "calls": tally.calls,
            "seconds": tally.seconds,
            "watched_calls": tally.watched_calls,
            "watched_seconds": tally.watched_seconds,
        }
        for kind, tally in clock.tallies.items()
    }


def main(arguments: Sequence[str]) -> int:
    """Measure what the file of the first argument orders; what came of it goes into that of the second one."""
    order, result = map(Path, arguments)
    try:
        with result.open("w") as file:
            for one in measure(Order.read(order)):
                file.write(json.dumps(one) + "\n")
    except VerifierError as error:
        print(f"verifier: {error}", file=sys.stderr)
        return int(error.status)
    return int(ExitStatus.CONFORMS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
