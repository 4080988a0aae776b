"""The hooks with which circumstances are observed: readers, and edits that act alike in every dtype."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.canonical import Point


@dataclass(slots=True)
class Seen:
    """What hooks were shown in one call.

    Attributes:
        values: by point, a copy of what was shown first.
        kept: by point, that tensor itself.
        times: by point, how often its hook ran.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)

    def note(self, name: str, value: Tensor) -> None:
        """Note what a hook is shown.

        Args:
            name: of the point.
            value: the tensor.
        """
        self.times[name] += 1
        if name not in self.values:
            self.values[name] = value.detach().clone()
            self.kept[name] = value

    def reader(self, name: str, edit: Edit | None = None) -> Edit:
        """Make a hook that notes what it is shown, and edits it.

        Args:
            name: of the point.
            edit: gives what goes on; what was shown does if not given.
        """

        def read(value: Tensor) -> Tensor | None:
            self.note(name, value)
            return None if edit is None else edit(value)

        return read


Replacement = Callable[[Tensor], Tensor]
"""An edit that always gives a tensor."""


def factor(name: str) -> float:
    """Give a point a factor of its own, from 0.6 to 0.9, in which layers differ too.

    With what is added it stays below 1: the lowest number of a dtype, which stands for a masked score, must not
    overflow.
    """
    return 0.6 + 0.02 * (zlib.crc32(name.encode()) % 16)


def wave(value: Tensor, shift: float = 0.0) -> Tensor:
    """Make a vector along the last axis that no norm takes off, of the tensor's dtype."""
    steps = torch.arange(value.shape[-1], dtype=torch.float64, device=value.device)
    return torch.cos(1.7 * steps + shift).to(value.dtype)


def scaled(point: Point, shift: float = 0.0) -> Replacement:
    """Make an edit that scales a point's value by its own factor and adds a little.

    What a mask hides stays hidden: a pattern is multiplied alone. A norm's scale stays positive.

    Args:
        point: the point.
        shift: of the wave that is added.
    """
    by = factor(point.name)

    return lambda value: added(point, value * by, 0.1, shift)


def added(point: Point, value: Tensor, size: float, shift: float = 0.0) -> Tensor:
    """Add a wave to a value; to a pattern in proportion, to a norm's scale a number.

    Args:
        point: whose value it is.
        value: the tensor.
        size: of the wave.
        shift: of the wave.
    """
    if point.kind.is_scale:
        return value + size * 0.1
    if "key" in point.axes:
        return value * (1 + size * wave(value, shift))
    return value + size * wave(value, shift)


def scaled_gradient(point: Point) -> Edit:
    """Make an edit of the gradients at a point: their product with a factor of its own."""
    by = 1.5 - factor(point.name)
    return lambda gradient: gradient * by


def replaced(point: Point, _real: Tensor) -> Edit:
    """Make an edit that puts another tensor in the place of a value; of a pattern, one that sums to the same."""

    def edit(value: Tensor) -> Tensor:
        if "key" in point.axes:
            return value.roll(1, dims=1)  # another head's
        if point.kind.is_scale:
            return torch.ones_like(value) * 1.3
        return wave(value).expand_as(value).clone()

    return edit


def ablated(point: Point, _real: Tensor) -> Edit:
    """Make an edit that takes the last head, or the last element, out of a value."""

    def edit(value: Tensor) -> Tensor:
        if point.kind.is_scale:
            return value * 1.5
        axis = next((place for place, name in enumerate(point.axes) if "head" in name), value.ndim - 1)
        keep = torch.ones(value.shape[axis], dtype=value.dtype, device=value.device)
        keep[-1] = 0.5 if "key" in point.axes else 0.0
        return value * keep.reshape(-1, *[1] * (value.ndim - axis - 1))

    return edit


def zeroed(point: Point, _real: Tensor) -> Edit:
    """Make an edit that puts 0 everywhere; where a mask hides or a norm divides, one that halves."""
    by = 0.5 if "key" in point.axes or point.kind.is_scale else 0.0
    return lambda value: value * by if by else torch.zeros_like(value)


def swapped(point: Point, real: Tensor) -> Edit:
    """Make an edit that gives each row half of the row before; arguments as of `_from_row_before`."""
    return _from_row_before(point, real, 0.5, otherwise=0.7)


def patched(point: Point, real: Tensor) -> Edit:
    """Make an edit that gives each row the value of the row before; arguments as of `_from_row_before`."""
    return _from_row_before(point, real, 1.0, otherwise=0.8)


def _from_row_before(point: Point, real: Tensor, share: float, *, otherwise: float) -> Edit:
    """Make an edit that takes from the row before, at positions that are padding in neither.

    Args:
        point: the point.
        real: `[batch, pos]`, false at padding.
        share: how much comes from the row before, and how little of a row's own value stays.
        otherwise: by what scores and patterns are scaled instead: another row hides other keys.
    """
    both = real & real.roll(1, dims=0)

    def edit(value: Tensor) -> Tensor:
        if "key" in point.axes:
            return value * otherwise
        where = both.reshape(*both.shape, *[1] * (value.ndim - 2))
        before = value.roll(1, dims=0)
        return torch.where(where, before if share == 1 else value * (1 - share) + before * share, value)

    return edit


def oddly_laid(point: Point) -> Edit:
    """Make an edit whose result is an expanded view, or not contiguous."""

    def edit(value: Tensor) -> Tensor:
        if "key" in point.axes:
            return value.mean(1, keepdim=True).expand_as(value) if "pattern" in point.name else value.mT.clone().mT
        heads = [place for place, name in enumerate(point.axes) if "head" in name]
        if heads:
            return value.mean(heads[0], keepdim=True).expand_as(value)
        return (value * 0.9).transpose(0, 1).contiguous().transpose(0, 1)

    return edit


def in_single(point: Point) -> Edit:
    """Make an edit that gives float32 back, whatever the value's dtype is."""
    return lambda value: scaled(point)(value).float()


def written(point: Point) -> Edit:
    """Make an edit that writes into the value and gives nothing back."""
    edit = scaled(point)

    def write(value: Tensor) -> None:
        value.copy_(edit(value))

    return write


def _scaled(point: Point, _real: Tensor) -> Edit:
    return scaled(point, 1.0)


KINDS_OF_EDITS: tuple[Callable[[Point, Tensor], Edit], ...] = (replaced, ablated, swapped, _scaled, zeroed, patched)
"""Edits of one point, each made for a point and `[batch, pos]` that is false at padding."""
