"""How times grow with a size: exponents, and whether all else grows faster than the models."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t, two-sided at 95 %, by degrees of freedom: what a standard error that was estimated from so few points is
# to be multiplied by. A line takes two of the points' degrees.
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}


class Growth(enum.StrEnum):
    """How the time of all else over the models' changes with the size."""

    FALLS = "falls"
    HOLDS = "holds"
    GROWS = "grows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was measured at one size.

    Attributes:
        size: layers, width, positions or cases.
        seconds: in all.
        models: the seconds of them inside the models.
        gating: outcomes that make the adapter not conform.
    """

    size: int
    seconds: float
    models: float
    gating: int = 0

    @property
    def ratio(self) -> float:
        """The seconds of all else over the models'."""
        return (self.seconds - self.models) / self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A power law through points: its exponent, and by how much that may be off, at 95 % confidence."""

    exponent: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points along one axis, the smallest first.

    Attributes:
        axis: what grows.
        points: three to eight; none where it could not be measured.
        left_out: why not, as a sentence.
    """

    axis: str
    points: tuple[Point, ...] = ()
    left_out: str | None = None

    @property
    def total(self) -> Fit:
        """Of the time in all."""
        return fit(self._sizes, [point.seconds for point in self.points])

    @property
    def models(self) -> Fit:
        """Of the time inside the models."""
        return fit(self._sizes, [point.models for point in self.points])

    @property
    def ratio(self) -> Fit:
        """Of the time of all else over the models'."""
        return fit(self._sizes, [point.ratio for point in self.points])

    @property
    def growth(self) -> Growth:
        """How that changes: it holds where the exponent may be zero."""
        found = self.ratio
        if abs(found.exponent) <= found.error:
            return Growth.HOLDS
        return Growth.GROWS if found.exponent > 0 else Growth.FALLS

    @property
    def _sizes(self) -> list[float]:
        return [point.size for point in self.points]


def fit(sizes: Sequence[float], values: Sequence[float]) -> Fit:
    """The straight line through the logarithms of both."""
    import numpy as np  # heavy, and needed here alone

    (slope, _), covariance = np.polyfit(np.log(sizes), np.log(values), 1, cov=True)
    few = _STUDENT[len(sizes) - 2]
    return Fit(exponent=float(slope), error=few * math.sqrt(float(covariance[0, 0])))
