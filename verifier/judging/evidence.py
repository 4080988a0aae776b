"""What a closer look at a failing case found, as plain values: which places were compared, and how one of them differs.

Nothing here judges: a verdict, an error and its bound are what a check's own comparison said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from verifier.judging.outcome import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One place of a ladder: error and bound as an rms in the tensor's own units."""

    where: str
    verdict: Verdict
    measured: float
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """The error of a tensor over two of its axes: the rms over all other axes.

    Attributes:
        axes: what the rows and the columns are: `head`, `pos`.
        lengths: how long these axes are.
        values: a row for each index of the first axis; where an axis is long, a cell is of several neighbours.
            None where nothing is defined.
    """

    axes: tuple[str, str]
    lengths: tuple[int, int]
    values: tuple[tuple[float | None, ...], ...]

    def __post_init__(self) -> None:
        if len({len(row) for row in self.values}) != 1 or not self.values[0]:
            raise ValueError("its rows are not of one length")


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One number of a tensor: where it stands, what it is and what it must be."""

    index: tuple[int, ...]
    given: float
    right: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a tensor differs from the right one.

    Attributes:
        where: the place.
        axes: of the tensor.
        shape: of the tensor.
        bound: what its error, as an rms over all of it, may be.
        heat: over two of its axes; None of a single number.
        worst: the numbers that are farthest off, the farthest first.
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
        case: its id.
        check: its id.
        fingerprint: of the failure, which is the one that is explained; None if the check did not fail this time.
        places: in the order in which the check looks at them.
        more: how many places there were beyond these.
        difference: of the place that the failure names; None where no tensors were held against each other there.
    """

    case: str
    check: str
    fingerprint: str | None
    places: tuple[Rung, ...]
    more: int
    difference: Difference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """A case's hook points in causal order, each with its error: whatever check failed, it shows where that starts.

    Attributes:
        case: its id.
        forward: activations, and the logits last.
        backward: gradients at the same points, in the same order.
        missing: why a side is empty, by `forward` and `backward`.
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
