"""All figures of one bench, the targets that they are held against, and both as plain data for scripts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from verifier.bench.against import Against
from verifier.bench.costs import Costs
from verifier.bench.curves import Curve, Fit
from verifier.bench.fuzzed import Fuzzed
from verifier.bench.startup import StartUp
from verifier.bench.whole import Whole

# What the whole matrix of the first family should keep on two cores.
START_SECONDS = 2.0  # until the first outcome, on top of what the imports cost
MATRIX_SECONDS = 30.0
MODELS_SHARE = 0.7  # of a case's time, inside the models
TREE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured.

    Attributes:
        family: reference.
        adapter: reference.
        narrowed: the options that made it less than the whole matrix, or more, as on the command line.
        versions: of Python and of the distributions that matter.
        startup: until the first outcome.
        whole: the run of the matrix.
        costs: of a case and of the checks.
        against: another program, if one was named.
        curves: growth, if it was asked for.
        fuzzed: a fuzzing campaign, if one was asked for.
    """

    family: str
    adapter: str
    narrowed: str
    versions: Mapping[str, str]
    startup: StartUp
    whole: Whole
    costs: Costs
    against: Against | None = None
    curves: tuple[Curve, ...] = ()
    fuzzed: Fuzzed | None = None

    @property
    def met(self) -> dict[str, bool | None]:
        """By target, whether it is met; None where it was not measured, or was not asked of what was run."""
        ours, tree = self.startup.ours, self.whole.taken.memory
        return {
            "start": None if ours is None else ours <= START_SECONDS,
            "matrix": None if self.narrowed else self.whole.seconds <= MATRIX_SECONDS,
            "share": self.costs.share >= MODELS_SHARE,
            "memory": None if tree is None else tree <= TREE_BYTES,
        }

    def to_json(self) -> dict[str, Any]:
        """As plain data: seconds and bytes, unrounded."""
        return {
            "family": self.family,
            "adapter": self.adapter,
            "narrowed": self.narrowed,
            "versions": dict(self.versions),
            "startup": {**asdict(self.startup), "bare": self.startup.bare, "ours": self.startup.ours},
            "whole": {**asdict(self.whole), "rate": self.whole.rate},
            "costs": _costs(self.costs),
            "against": None if self.against is None else _against(self.against),
            "fuzzed": None if self.fuzzed is None else {**asdict(self.fuzzed), "rate": self.fuzzed.rate},
            "growth": [_curve(curve) for curve in self.curves],
            "met": self.met,
        }


def _costs(costs: Costs) -> dict[str, Any]:
    return {
        **asdict(costs),
        "inside": {kind.name.lower(): asdict(inside) for kind, inside in costs.inside.items()},
        "checks": [asdict(check) for check in costs.checks],
        "models": costs.models,
        "bare": costs.bare,
        "other": costs.other,
        "harness": costs.harness,
        "share": costs.share,
    }


def _against(against: Against) -> dict[str, Any]:
    medians = {"ours_median": statistics.median(against.ours), "theirs_median": statistics.median(against.theirs)}
    return {**asdict(against), **medians, "ratio": against.ratio}


def _curve(curve: Curve) -> dict[str, Any]:
    data = asdict(curve)
    if not curve.points:
        return data
    fits: dict[str, Fit] = {"total": curve.total, "models": curve.models, "ratio": curve.ratio}
    return {**data, "exponents": {name: asdict(fit) for name, fit in fits.items()}, "growth": str(curve.growth)}
