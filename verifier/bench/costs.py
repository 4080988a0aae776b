"""What a case costs, and a check: means over a sample that stand for the matrix, models and harness apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from verifier.bench import children
from verifier.bench.clock import Kind, Tally
from verifier.bench.orders import CaseRun, CheckRun, Order
from verifier.bench.sample import Stratum


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What one kind of call takes in a mean case; `watched` is that part of it in which the harness looked on."""

    calls: float
    seconds: float
    watched_calls: float
    watched_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckCost:
    """What a check takes in a mean case.

    Attributes:
        check: its id.
        cases: in which share of the cases it runs.
        seconds: with what it is the first to ask for.
        models: the seconds of them inside the models.
    """

    check: str
    cases: float
    seconds: float
    models: float

    @property
    def rest(self) -> float:
        """The others."""
        return self.seconds - self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a mean valid case takes in one process with one thread of torch's.

    Attributes:
        cases: valid ones that were run.
        of: valid ones that they stand for.
        seconds: by the clock on the wall.
        cpu: seconds of the processor.
        refused: seconds of a mean refused case; None where there is none.
        inside: by kind of call.
        checks: the dearest first.
        instrument: seconds of the processor that counting itself takes of `cpu`.
        as_without: whether every verdict is that of a run without the instrument.
    """

    cases: int
    of: int
    seconds: float
    cpu: float
    refused: float | None
    inside: Mapping[Kind, Inside]
    checks: tuple[CheckCost, ...]
    instrument: float
    as_without: bool

    @property
    def models(self) -> float:
        """The seconds inside the models."""
        return sum(inside.seconds for kind, inside in self.inside.items() if kind.of_models)

    @property
    def bare(self) -> float:
        """Those of them in which the harness did not look on: in the others there is work of its own, too."""
        watched = sum(inside.watched_seconds for kind, inside in self.inside.items() if kind.of_models)
        return self.models - watched

    @property
    def other(self) -> float:
        """The seconds in the adapter's code that are no model's."""
        return sum(inside.seconds for kind, inside in self.inside.items() if not kind.of_models)

    @property
    def harness(self) -> float:
        """What is left."""
        return self.seconds - self.models - self.other

    @property
    def share(self) -> float:
        """Of the time, what is inside the models."""
        return self.models / self.seconds


def measure(family: str, adapter: str, only: Sequence[str], strata: Sequence[Stratum], refused: Stratum) -> Costs:
    """Run the sample with the instrument and without it.

    Raises:
        VerifierError: a process could not do it.
    """
    cases = tuple(spec for stratum in (*strata, refused) for spec in stratum.cases)

    def measured(*, instrumented: bool) -> list[CaseRun]:
        order = Order(family=family, adapter=adapter, only=tuple(only), cases=cases, instrumented=instrumented)
        return children.measure(order)

    return of_runs(strata, measured(instrumented=True), measured(instrumented=False))


def of_runs(strata: Sequence[Stratum], runs: Sequence[CaseRun], without: Sequence[CaseRun]) -> Costs:
    """The costs of a sample from its runs, those of refused cases last; and from those without the instrument."""
    weights = [stratum.of / len(stratum.cases) for stratum in strata for _ in stratum.cases]
    valid, refused = runs[: len(weights)], runs[len(weights) :]
    total = sum(weights)

    def mean(of: Callable[[CaseRun], float], among: Sequence[CaseRun] = valid) -> float:
        return sum(weight * of(run) for weight, run in zip(weights, among, strict=True)) / total

    return Costs(
        cases=len(valid),
        of=round(total),
        seconds=mean(lambda run: run.seconds),
        cpu=mean(lambda run: run.cpu),
        refused=sum(run.seconds for run in refused) / len(refused) if refused else None,
        inside={kind: _inside(kind, mean) for kind in Kind},
        checks=_checks(valid, mean),
        instrument=mean(lambda run: run.cpu) - mean(lambda run: run.cpu, without[: len(weights)]),
        as_without=[run.verdicts for run in runs] == [run.verdicts for run in without],
    )


Mean = Callable[[Callable[[CaseRun], float]], float]


def _inside(kind: Kind, mean: Mean) -> Inside:
    def tally(run: CaseRun) -> Tally:
        return run.inside.get(kind, Tally())

    return Inside(
        calls=mean(lambda run: tally(run).calls),
        seconds=mean(lambda run: tally(run).seconds),
        watched_calls=mean(lambda run: tally(run).watched_calls),
        watched_seconds=mean(lambda run: tally(run).watched_seconds),
    )


def _checks(runs: Sequence[CaseRun], mean: Mean) -> tuple[CheckCost, ...]:
    def of(check: str, value: Callable[[CheckRun], float]) -> float:
        return mean(lambda run: sum(value(one) for one in run.checks if one.check == check))

    found = [
        CheckCost(
            check=check,
            cases=of(check, lambda one: 1.0),
            seconds=of(check, lambda one: one.seconds),
            models=of(check, lambda one: one.models),
        )
        for check in dict.fromkeys(one.check for run in runs for one in run.checks)
    ]
    return tuple(sorted(found, key=lambda cost: (-cost.seconds, cost.check)))
