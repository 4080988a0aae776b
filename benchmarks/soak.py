"""Run ten thousand cases under an adapter that crashes, hangs, grows and leaks, and see what that costs other cases.

    python benchmarks/soak.py

In every hundred cases one segfaults, one hangs, one takes memory without end, and one leaks memory without failing.
Each of the first three must cost its own case and no other. At its end the run must be as fast and as small as at its
beginning. For each tenth of the run the script prints the cases per second, and the median and the largest memory of
all processes together; the last lines compare the last third with the first one. The exit status is 1 if a verdict is
not the planted one; people judge the speed and the memory.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import processes

from verifier import family
from verifier.adapter import Inputs, Output, Subject
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec
from verifier.engine.events import CaseFinished, Heartbeat, OutcomeReady, WorkerLost
from verifier.engine.limits import Limits
from verifier.engine.plan import Plan
from verifier.engine.run import run
from verifier.judging.outcome import Verdict

FAMILY = "falcon"
CHECK = "build.adapter"
ONLY = ("reference.acceptance", CHECK, "build.forward", "forward.logits")
CYCLE = 100
CRASHES, HANGS, GROWS, LEAKS = 17, 42, 67, 92  # which of each hundred
PLANTED = {CRASHES: Verdict.CRASH, HANGS: Verdict.TIMEOUT, GROWS: Verdict.CRASH}
LEAK = 40_000_000
SECONDS, BYTES = 3.0, 400 * 2**20
PARTS = 10
# A number that HF's config carries and nothing computes with, because all weights are drawn by the family.
SERIAL, STEP = "initializer_range", 1e-6

_KEPT: list[bytes] = []


class HuggingSubject(Subject):
    """Hugging Face's own model as a subject."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def forward(self, inputs: Inputs) -> Output:
        from verifier.reference import models

        return models.forward(self._model, inputs)

    def close(self) -> None:
        pass


class Hostile:
    """An adapter that misbehaves in four of every hundred cases."""

    name, version = "hostile", "1"

    def wrap(self, model: Any) -> Subject:
        match round(getattr(model.config, SERIAL) / STEP) % CYCLE:
            case 17:  # CRASHES
                ctypes.string_at(0)
            case 42:  # HANGS
                time.sleep(10_000)
            case 67:  # GROWS
                while True:
                    _KEPT.append(bytes(LEAK // 8) + os.urandom(1))
            case 92:  # LEAKS
                _KEPT.append(os.urandom(LEAK))
        return HuggingSubject(model)


@dataclass(slots=True, kw_only=True)
class Part:
    """The cases, the time and the memory of a part of the run."""

    cases: int = 0
    began: float = 0.0
    ended: float = 0.0
    memory: list[int] = field(default_factory=list)

    @property
    def usual(self) -> float:
        """The median memory in bytes: a case that grows without end does so for a moment only."""
        return statistics.median(self.memory) if self.memory else 0.0

    @property
    def rate(self) -> float:
        return self.cases / (self.ended - self.began)


def serial_cases(count: int) -> tuple[CaseSpec, ...]:
    """Make a number of cases of the plainest config that Hugging Face accepts, each with a serial number."""
    plain = next(spec for spec in matrix.cases(family.load(FAMILY), FAMILY) if spec.valid)
    return tuple(
        CaseSpec(family=FAMILY, config={**plain.config, SERIAL: number * STEP}) for number in range(1, count + 1)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    wanted = serial_cases(options.cases)
    plan = Plan(
        family=FAMILY, adapter="soak:Hostile", specs=wanted, only=ONLY, limits=Limits(seconds=SECONDS, bytes=BYTES)
    )
    parts = [Part() for _ in range(PARTS)]
    outcomes: dict[tuple[str, str], Verdict] = {}
    finished, lost, began = 0, 0, time.perf_counter()
    for event in run(plan, workers=options.workers):
        part = parts[min(PARTS - 1, finished * PARTS // len(wanted))]
        part.began = part.began or time.perf_counter()
        match event:
            case OutcomeReady(case=case, outcome=outcome):
                outcomes[case, outcome.check] = outcome.verdict
            case CaseFinished():
                finished, part.cases, part.ended = finished + 1, part.cases + 1, time.perf_counter()
            case WorkerLost():
                lost += 1
            case Heartbeat():
                used = processes.Usage()
                used.measure(os.getpid())
                part.memory.append(used.bytes)
    _show(parts, time.perf_counter() - began, finished, lost)
    return _judge(wanted, outcomes)


def _show(parts: list[Part], seconds: float, finished: int, lost: int) -> None:
    print(f"{finished:,} cases in {seconds:.0f} s; {lost} times a process was lost in a case")
    print("part   cases/s    memory   at most")
    for number, part in enumerate(parts, start=1):
        most = max(part.memory, default=0) / 2**20
        print(f"{number:>4}   {part.rate:7.1f}   {part.usual / 2**20:3.0f} MiB   {most:3.0f} MiB")
    third = max(1, PARTS // 3)
    # The very last part has the cases that are run again, one after the other.
    first, last = parts[:third], parts[-third - 1 : -1]
    rate = _over([part.rate for part in last], [part.rate for part in first])
    memory = _over([part.usual for part in last], [part.usual for part in first])
    print(f"the last third over the first one: {rate} of its speed, {memory} of its memory")


def _over(last: list[float], first: list[float]) -> str:
    """Divide the means of two parts; a run of a few seconds ends before its memory is measured."""
    return f"{statistics.mean(last) / statistics.mean(first):.2f}" if any(first) else "(too short to be told)"


def _judge(wanted: tuple[CaseSpec, ...], outcomes: dict[tuple[str, str], Verdict]) -> int:
    """Print whether each case has the verdict that was planted in it, and return the exit status."""
    wrong: Counter[str] = Counter()
    for number, spec in enumerate(wanted, start=1):
        planted = PLANTED.get(number % CYCLE)
        found = outcomes.get((spec.id, CHECK))
        if found is not (planted or Verdict.PASS):
            wrong[f"{found} where {planted or Verdict.PASS} was planted"] += 1
    for words, count in wrong.items():
        print(f"WRONG: {count} cases: {words}")
    if not wrong:
        counts = Counter(PLANTED.get(number % CYCLE, Verdict.PASS) for number in range(1, len(wanted) + 1))
        print("every case has its verdict: " + ", ".join(f"{number:,} {verdict}" for verdict, number in counts.items()))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
