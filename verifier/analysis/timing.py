"""Where a run's time went: by check, and the cases that took longest."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from verifier.judging.outcome import Outcome
from verifier.output import text
from verifier.record import Record
from verifier.record.case_description import config_difference

SLOWEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckCost:
    """The seconds that a check took over all its runs, with all that it was the first to ask for."""

    check: str
    runs: int
    total: float
    median: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowCase:
    """A case that took long, and the check that took most of its time, in seconds."""

    case: str
    name: str
    seconds: float
    check: str | None
    of_check: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time went.

    Attributes:
        cases: seconds of all cases together.
        workers: how many processes they were shared out to.
        checks: the dearest first.
        slowest: cases, the slowest first.
    """

    cases: float
    workers: int
    checks: tuple[CheckCost, ...]
    slowest: tuple[SlowCase, ...]


def measure_timing(record: Record, most: int = SLOWEST) -> Timing:
    """Measure where a record's time went, in seconds, with at most `most` of the slowest cases.

    Args:
        record: what was run.
        most: the largest number of slow cases listed.
    """
    costs = []
    for check, outcomes in record.outcomes_by_check.items():
        if seconds := [outcome.seconds for outcome in outcomes]:
            median, largest = statistics.median(seconds), max(seconds)
            costs.append(CheckCost(check=check, runs=len(seconds), total=sum(seconds), median=median, largest=largest))
    return Timing(
        cases=sum(record.done.values()),
        workers=record.run.workers,
        checks=tuple(sorted(costs, key=lambda cost: (-cost.total, cost.check))),
        slowest=find_slowest_cases(record, most),
    )


def find_slowest_cases(record: Record, most: int) -> tuple[SlowCase, ...]:
    """Find at most `most` cases, the slowest first.

    Args:
        record: what was run.
        most: the largest number of cases; below 0 it counts as 0.

    Returns:
        The cases that came to their end, each with the check that took most of its time.
    """
    chosen = sorted(record.done.items(), key=lambda item: (-item[1], item[0]))[: max(most, 0)]
    dearest: dict[str, Outcome] = {}
    for entry in record.entries:
        if entry.case not in dearest or entry.outcome.seconds > dearest[entry.case].seconds:
            dearest[entry.case] = entry.outcome
    found = []
    for case, seconds in chosen:
        spec, outcome = record.cases[case], dearest.get(case)
        found.append(
            SlowCase(
                case=case,
                name=spec.label or text.config(config_difference(spec.config, record.run)) or "the plainest config",
                seconds=seconds,
                check=outcome.check if outcome else None,
                of_check=outcome.seconds if outcome else 0.0,
            )
        )
    return tuple(found)
