"""Evidence of a failing case, as plain values: which places were compared, and how the first wrong one differs.

Nothing here judges: verdict, error and bound come from the check's own comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from verifier.judging.outcome import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One compared place: its error and bound are an rms in the units of the tensor."""

    where: str
    verdict: Verdict
    measured: float
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """The error of a tensor over two of its axes: the rms over all other axes.

    Attributes:
        axes: the names of the row and the column axis: `head`, `pos`.
        lengths: of these axes.
        values: the rms error by row and column; where an axis is long, a cell covers several neighbours. None where
            no element is defined.
    """

    axes: tuple[str, str]
    lengths: tuple[int, int]
    values: tuple[tuple[float | None, ...], ...]

    def __post_init__(self) -> None:
        if len({len(row) for row in self.values}) != 1 or not self.values[0]:
            raise ValueError("the rows of a heat map must have one length, which is not 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One element of a tensor: its index, the given and the right value."""

    index: tuple[int, ...]
    given: float
    right: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a tensor differs from the right one.

    Attributes:
        where: the place.
        axes: the names of the tensor's axes.
        shape: of the tensor.
        bound: the largest rms error that passes.
        heat: the error over two axes; None for a scalar.
        worst: the elements with the largest errors, the worst first.
    """

    where: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    bound: float
    heat: Heat | None
    worst: tuple[Element, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one check compared on one case.

    Attributes:
        case: the case's id.
        check: the check's id.
        fingerprint: of the failure; None if the check did not fail this time.
        places: the compared places, in the check's order.
        more: how many further places were compared.
        difference: at the place that the failure names; None where no tensors were compared there.
    """

    case: str
    check: str
    fingerprint: str | None
    places: tuple[Rung, ...]
    more: int
    difference: Difference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """A case's hook points in causal order, each with its error: it shows where a failure starts.

    Attributes:
        case: the case's id.
        forward: the activations, and the logits last.
        backward: the gradients at the same points, in the same order.
        missing: why `forward` or `backward` is empty, by these names.
    """

    case: str
    forward: tuple[Rung, ...]
    backward: tuple[Rung, ...]
    missing: Mapping[str, str]

    @property
    def starts(self) -> Rung | None:
        """The first activation that differs."""
        return next((rung for rung in self.forward if rung.verdict is Verdict.FAIL), None)

    @property
    def starts_backward(self) -> Rung | None:
        """The first gradient that differs on the way back from the logits."""
        return next((rung for rung in reversed(self.backward) if rung.verdict is Verdict.FAIL), None)
