"""Measure how the cost of a case grows with layers, width, positions and cases, compared with the cost of the models.

    python benchmarks/growth.py --adapter bridge

The script grows the plainest Falcon along one axis after the other, and runs each size a few times, in one process. For
each size it prints the median seconds, the seconds inside the models, and the ratio of the rest to these. For each axis
it prints the exponents of the power laws through them, with their error at 95 %, and whether the ratio grows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from case_costs import CaseRun, sample_cases, warm

from verifier import family
from verifier.adapter import DEFAULT
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec, Depth

FAMILY = "falcon"
# The fields of the config that grow together; the first says the size.
GROWING: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers",),
    "width": ("hidden_size", "ffn_hidden_size"),
}
FACTORS = (1, 2, 4, 8, 16)
COUNTS = (8, 16, 32, 64)
REPEATS = 3
DEPTH = Depth.PAIRWISE  # the dearest depth asks a number of forwards of each hook point, and of a few cases only

# Student's t, two-sided at 95 %, by degrees of freedom: what the standard error of a slope through so few points is
# multiplied by. A line takes two of the points' degrees.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Seconds at one size, in all and inside the models."""

    size: int
    seconds: float
    models: float

    @property
    def ratio(self) -> float:
        """The seconds outside the models, over those inside."""
        return (self.seconds - self.models) / self.models


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Fit a power law, and return its exponent and the error of the exponent at 95 % confidence."""
    (slope, _), covariance = np.polyfit(np.log(sizes), np.log(values), 1, cov=True)
    return float(slope), STUDENT[len(sizes) - 2] * math.sqrt(float(covariance[0, 0]))


def judge_growth(points: Sequence[Point]) -> str:
    """Say whether the ratio grows with the size; it holds if the exponent may be zero."""
    exponent, error = fit_exponent([point.size for point in points], [point.ratio for point in points])
    if abs(exponent) <= error:
        return "holds: linear in what the models cost"
    return "GROWS faster than the models" if exponent > 0 else "falls: slower than the models"


def grow_cases(factors: Sequence[int] = FACTORS) -> dict[str, dict[int, CaseSpec]]:
    """Grow the plainest case along each axis; the cases by axis and size."""
    falcon = family.load(FAMILY)
    flags = {name: values[0] for name, values in falcon.flags().items()}
    plain = CaseSpec(family=FAMILY, config={**falcon.dims(), **flags}, depth=DEPTH)
    found = {
        axis: {
            plain.config[fields[0]] * factor: replace(
                plain, config={**plain.config, **{name: plain.config[name] * factor for name in fields}}
            )
            for factor in factors
        }
        for axis, fields in GROWING.items()
    }
    found["positions"] = {plain.length * factor: replace(plain, length=plain.length * factor) for factor in factors}
    return found


def median_point(size: int, runs: Sequence[CaseRun]) -> Point:
    """Choose the run that took the median time, as a point."""
    run = sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]
    return Point(size=size, seconds=run.seconds, models=run.models)


def sum_point(runs: Sequence[CaseRun]) -> Point:
    """Add up several cases, as a point whose size is their number."""
    return Point(size=len(runs), seconds=sum(run.seconds for run in runs), models=sum(run.models for run in runs))


def show(axis: str, points: Sequence[Point]) -> None:
    """Print the points of an axis, and the exponents of the power laws through them."""
    print(f"\n{axis:>9} {'s':>15} {'inside models':>15} {'rest over them':>15}")
    for point in points:
        print(f"{point.size:9,} {point.seconds:15.3f} {point.models:15.3f} {point.ratio:15.3f}")
    sizes = [point.size for point in points]
    fits = [fit_exponent(sizes, [getattr(one, name) for one in points]) for name in ("seconds", "models", "ratio")]
    print(f"{'exponent':>9}", *(f"{f'{exponent:.2f} ± {error:.2f}':>15}" for exponent, error in fits))
    print(f"What is not inside the models, over what is, {judge_growth(points)}.", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", default=DEFAULT)
    parser.add_argument("--only", action="append", default=[], help="a glob of checks; may be repeated")
    parser.add_argument("--factors", type=int, nargs="+", default=FACTORS, help="three sizes or more")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="of cases; three or more")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each size")
    options = parser.parse_args(arguments)
    grown = grow_cases(options.factors)
    with warm(FAMILY, options.adapter, options.only, next(iter(grown["layers"].values()))) as measured:
        for axis, ladder in grown.items():
            show(axis, [median_point(n, [measured(s) for _ in range(options.repeats)]) for n, s in ladder.items()])
        most = max(options.counts)
        sample = sample_cases(matrix.cases(family.load(FAMILY), FAMILY), most)[:most]
        runs = [measured(replace(spec, depth=DEPTH)) for spec, _ in sample]
        show("cases", [sum_point(runs[:: -(-len(runs) // count)]) for count in sorted(options.counts)])


if __name__ == "__main__":
    main()
