"""Map how one tensor differs from another: over two of its axes, and the elements with the largest errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from verifier.canonical import axes_of
from verifier.judging.evidence import Difference, Element, Heat

WORST = 10
MOST_ROWS, MOST_COLUMNS = 24, 32  # of a heat map; a longer axis is shown in at most so many pieces

# The axes that a heat map shows as rows and as columns, the most informative first.
_ROWS = ("head", "kv_head", "batch")
_COLUMNS = ("pos", "query", "d_head", "d_model")


def difference(
    where: str,
    actual: Tensor,
    truth: Tensor,
    defined: Tensor | None = None,
    axes: Sequence[str] = (),
    *,
    bound: float = 0.0,
) -> Difference:
    """Describe how two tensors of one shape differ.

    Args:
        where: the place.
        actual: the adapter's tensor.
        truth: the right tensor.
        defined: broadcasts to them; None where every element is defined.
        axes: the names of the axes; those of the place in the canonical vocabulary if not given.
        bound: the largest rms error that passes.
    """
    given, right = (value.detach().to("cpu", torch.float64) for value in (actual, truth))
    named = _named(where, tuple(axes), right.ndim)
    compared = torch.ones_like(right, dtype=torch.bool) if defined is None else defined.to("cpu").expand_as(right)
    # Equal elements have no error, minus infinity at a masked score too.
    errors = (given - right).masked_fill(given == right, 0.0).nan_to_num(nan=math.inf).abs().masked_fill(~compared, 0.0)
    return Difference(
        where=where,
        axes=named,
        shape=tuple(right.shape),
        bound=bound,
        heat=_heat(errors, compared, named) if right.ndim else None,
        worst=_worst(errors, given, right),
    )


def _named(where: str, axes: tuple[str, ...], count: int) -> tuple[str, ...]:
    for known in (axes, axes_of(where) or ()):
        if len(known) == count:
            return known
    return tuple(f"axis {number}" for number in range(count))


def _worst(errors: Tensor, given: Tensor, right: Tensor) -> tuple[Element, ...]:
    flat, givens, rights = errors.flatten(), given.flatten(), right.flatten()
    found = flat.topk(min(WORST, flat.numel()))
    return tuple(
        Element(
            index=tuple(int(axis) for axis in torch.unravel_index(torch.tensor(place), errors.shape)),
            given=float(givens[place]),
            right=float(rights[place]),
        )
        for place, error in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        if error > 0
    )


def _heat(errors: Tensor, compared: Tensor, axes: tuple[str, ...]) -> Heat:
    """Compute the rms error over the defined elements of each cell."""
    if errors.ndim == 1:
        errors, compared, axes = errors[None], compared[None], ("", *axes)
    row = _first(axes, _ROWS, range(errors.ndim))
    column = _first(axes, _COLUMNS, [axis for axis in range(errors.ndim) if axis != row])
    others = [axis for axis in range(errors.ndim) if axis not in (row, column)]
    squares, counts = (_cells(value.double(), row, column, others) for value in (errors.square(), compared))
    values = (squares / counts.clamp(min=1)).sqrt()
    return Heat(
        axes=(axes[row], axes[column]),
        lengths=(errors.shape[row], errors.shape[column]),
        values=tuple(
            tuple(float(f"{value:.3g}") if count else None for value, count in zip(*both, strict=True))
            for both in zip(values.tolist(), counts.tolist(), strict=True)
        ),
    )


def _cells(values: Tensor, row: int, column: int, others: Sequence[int]) -> Tensor:
    """Sum over all other axes, and over neighbours where rows or columns are too many."""
    summed = values.permute(row, column, *others).flatten(2).sum(2) if others else values.permute(row, column)
    return _in_pieces(_in_pieces(summed, 0, MOST_ROWS), 1, MOST_COLUMNS)


def _first(axes: Sequence[str], wanted: Sequence[str], among: Sequence[int]) -> int:
    """Find the first wanted axis among these, or the first of these if none is wanted."""
    return next((axis for name in wanted for axis in among if axes[axis] == name), among[0])


def _in_pieces(values: Tensor, axis: int, most: int) -> Tensor:
    """Sum over neighbours on an axis that is longer than `most`."""
    length = values.shape[axis]
    if length <= most:
        return values
    size = pieces(length, most)
    return torch.stack([part.sum(axis) for part in values.split(size, dim=axis)], dim=axis)


def pieces(length: int, most: int) -> int:
    """Count the neighbours in a cell if at most `most` cells show `length` indices.

    Args:
        length: how many indices the axis has.
        most: how many cells may show them.
    """
    return math.ceil(length / most)
