"""Measure what a case and each check cost in one process, and how much of that is spent inside the models.

    python benchmarks/case_costs.py falcon --adapter bridge --cases 24

The script runs a sample of valid cases that stands for the matrix, with one thread. It prints the mean seconds of a
case; the share of the models (builds, wraps, forwards, backwards, generations: no harness can do without these); and
for each check the mean milliseconds, those inside the models, and the rest. Nested calls are counted once.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn
from transformers import GenerationMixin

from verifier import family
from verifier.adapter import DEFAULT
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec, Depth
from verifier.checks.runner import run_case
from verifier.engine.loading import Loaded, load
from verifier.engine.plan import Plan
from verifier.observing import reuse

DEAREST = 15  # checks that are printed without --every-check
KINDS = ("builds", "wraps", "modules", "subjects", "generations", "backwards")


class ModelClock:
    """A clock for calls into models: their number and their seconds, by kind; only the outermost call counts."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self._busy = False

    @property
    def total(self) -> float:
        """The seconds of all kinds of calls together."""
        return sum(self.seconds.values())

    def timed(
        self, function: Callable[..., Any], kind: str, then: Callable[[Any], None] = lambda result: None
    ) -> Callable[..., Any]:
        """Wrap a function so that its calls are timed; `then` is called with each result, outside the time."""

        @functools.wraps(function)
        def outermost(*args: Any, **kwargs: Any) -> Any:
            if self._busy:
                return function(*args, **kwargs)
            self._busy, began = True, time.perf_counter()
            try:
                result = function(*args, **kwargs)
            finally:
                self.seconds[kind] += time.perf_counter() - began
                self.calls[kind] += 1
                self._busy = False
            then(result)
            return result

        return outermost


@contextlib.contextmanager
def clocked(loading: Callable[[], Loaded]) -> Iterator[tuple[Loaded, ModelClock]]:
    """Load family, adapter and checks, with a clock on the models inside the block.

    The clock is put on the functions of torch and transformers before anything is loaded, because the harness remembers
    the functions that it finds then. So this is for a process that runs nothing else.
    """
    clock = ModelClock()
    with contextlib.ExitStack() as patches:
        subjects: set[type] = set()

        def count(owner: Any, name: str, kind: str, then: Callable[[Any], None] = lambda result: None) -> None:
            timed = clock.timed(getattr(owner, name), kind, then)
            patches.enter_context(mock.patch.object(owner, name, timed))

        def count_subject(subject: object) -> None:
            if type(subject) not in subjects:
                subjects.add(type(subject))
                count(type(subject), "forward", "subjects")

        count(nn.Module, "__call__", "modules")
        count(GenerationMixin, "generate", "generations")
        count(torch.autograd, "grad", "backwards")
        count(torch.autograd, "backward", "backwards")
        loaded = loading()
        count(type(loaded.family), "build", "builds")
        count(type(loaded.adapter), "wrap", "wraps", count_subject)
        yield loaded, clock


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRun:
    """One run of one case: its seconds in all and inside the models, its calls by kind, and both seconds by check."""

    seconds: float
    models: float
    calls: Mapping[str, int]
    inside: Mapping[str, float]
    checks: Mapping[str, tuple[float, float]]


def measure(spec: CaseSpec, loaded: Loaded, clock: ModelClock) -> CaseRun:
    """Run a case as the first one of its model, so that it pays for everything that equal models share."""
    reuse.forget()
    calls, inside, before, began = clock.calls.copy(), dict(clock.seconds), clock.total, time.perf_counter()
    checks, at_start = {}, before
    for outcome in run_case(spec, loaded.family, loaded.adapter, loaded.checks):
        checks[outcome.check] = (outcome.seconds, clock.total - before)
        before = clock.total
    return CaseRun(
        seconds=time.perf_counter() - began,
        models=clock.total - at_start,
        calls=clock.calls - calls,
        inside={kind: clock.seconds[kind] - inside.get(kind, 0.0) for kind in clock.seconds},
        checks=checks,
    )


@contextlib.contextmanager
def warm(reference: str, adapter: str, only: Sequence[str], first: CaseSpec) -> Iterator[Callable[[CaseSpec], CaseRun]]:
    """Give a function that measures cases, after a first case that pays for what torch does only once."""
    with clocked(lambda: load(Plan(family=reference, adapter=adapter, specs=(), only=tuple(only)))) as (loaded, clock):
        gc.collect()
        gc.freeze()  # as a worker does before its first case
        try:
            measure(first, loaded, clock)
            yield lambda spec: measure(spec, loaded, clock)
        finally:
            gc.unfreeze()


def sample_cases(specs: Sequence[CaseSpec], wanted: int) -> list[tuple[CaseSpec, float]]:
    """Choose valid cases of each depth in proportion, each with the number of cases that it stands for."""
    valid = [spec for spec in specs if spec.valid]
    found = []
    for depth in Depth:
        alike = [spec for spec in valid if spec.depth == depth]
        count = min(len(alike), -(-wanted * len(alike) // len(valid)))
        chosen = [alike[(2 * number + 1) * len(alike) // (2 * count)] for number in range(count)]
        found += [(spec, len(alike) / count) for spec in chosen]
    return found


def show(runs: Sequence[tuple[CaseRun, float]], most: int | None) -> None:
    """Print the weighted means of runs; `most` is how many checks are printed, None for all."""
    weights = sum(weight for _, weight in runs)

    def mean(value: Callable[[CaseRun], float]) -> float:
        return sum(weight * value(run) for run, weight in runs) / weights

    seconds, models = mean(lambda run: run.seconds), mean(lambda run: run.models)
    print(
        f"{seconds:.3f} s a mean case ({len(runs)} for {weights:.0f}), {models / seconds:.1%} of it inside the models"
    )
    for kind in KINDS:
        calls, inside = (
            mean(lambda run, kind=kind: run.calls[kind]),
            mean(lambda run, kind=kind: run.inside.get(kind, 0.0)),
        )
        print(f"    {kind:12} {calls:7.1f} calls {1000 * inside:9.2f} ms {inside / seconds:6.1%}")
    checks = {}
    for check in dict.fromkeys(check for run, _ in runs for check in run.checks):
        checks[check] = [mean(lambda run, c=check, part=part: run.checks.get(c, (0.0, 0.0))[part]) for part in (0, 1)]
    print(f"\n{'check':28} {'ms':>9} {'models':>9} {'the rest':>9} {'share':>6}")
    for check, (whole, inside) in sorted(checks.items(), key=lambda item: -item[1][0])[:most]:
        milliseconds = f"{1000 * whole:9.2f} {1000 * inside:9.2f} {1000 * (whole - inside):9.2f}"
        print(f"{check:28} {milliseconds} {whole / seconds:6.1%}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("--adapter", default=DEFAULT)
    parser.add_argument("--only", action="append", default=[], help="a glob of checks; may be repeated")
    parser.add_argument("--cases", type=int, default=12, help="at least so many valid ones")
    parser.add_argument("--every-check", action="store_true", help="not the dearest checks alone")
    options = parser.parse_args(arguments)
    sample = sample_cases(matrix.cases(family.load(options.family), options.family), options.cases)
    with warm(options.family, options.adapter, options.only, sample[0][0]) as measured:
        runs = [(measured(spec), weight) for spec, weight in sample]
    show(runs, None if options.every_check else DEAREST)


if __name__ == "__main__":
    main()
