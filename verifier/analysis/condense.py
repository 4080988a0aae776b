"""Put a product of flags into few rows: combinations with one result share a row, with `any` for flags without effect.

A row is a box: for each flag a set of its values. The boxes of one result together hold every combination with that
result and none with another. Combinations that were not run belong to nobody, so a box may hold them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

ResultT = TypeVar("ResultT", bound=Hashable)
FlagIndices = tuple[int, ...]  # the index of each flag's value
_Box = tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A row: the values by index of each flag (None for any), and the combinations that are counted in it alone."""

    values: tuple[frozenset[int] | None, ...]
    members: tuple[FlagIndices, ...]


def condense(results: Mapping[FlagIndices, ResultT], sizes: Sequence[int]) -> list[tuple[ResultT, list[Box]]]:
    """Find few boxes for each result, the largest first; results stand in the order in which they are first met.

    Args:
        results: the result of each combination.
        sizes: the number of values of each flag.
    """
    classes: dict[ResultT, list[FlagIndices]] = {}
    for combination, result in results.items():
        classes.setdefault(result, []).append(combination)
    condensed = []
    for result, members in classes.items():
        others = [combination for combination, other in results.items() if other != result]
        condensed.append((result, _cover(members, others, sizes)))
    return condensed


def _cover(members: Sequence[FlagIndices], others: Sequence[FlagIndices], sizes: Sequence[int]) -> list[Box]:
    """Cover combinations greedily: from the first one that no box holds yet, choose the box that takes in most."""
    left = list(members)
    boxes = []
    while left:
        candidates = [_grow(left[0], order, others, sizes) for order in _orders(len(sizes))]
        best = max(candidates, key=lambda box: sum(_holds(box, one) for one in left))  # the first of equals
        inside = tuple(one for one in left if _holds(best, one))
        left = [one for one in left if not _holds(best, one)]
        values = tuple(None if len(chosen) == size else chosen for chosen, size in zip(best, sizes, strict=True))
        boxes.append(Box(values=values, members=inside))
    return sorted(boxes, key=lambda box: -len(box.members))


def _orders(count: int) -> list[list[int]]:
    """List the orders in which flags are freed: each rotation, both ways."""
    around = [[(start + step) % count for step in range(count)] for start in range(count)]
    return (around + [order[::-1] for order in around]) or [[]]


def _grow(seed: FlagIndices, order: Sequence[int], others: Sequence[FlagIndices], sizes: Sequence[int]) -> _Box:
    """Grow a box from one combination: free each flag wholly where nothing else gets in, or else by single values."""
    box: list[frozenset[int]] = [frozenset({index}) for index in seed]
    for flag in order:
        # Those that only this flag keeps out say which of its values must stay out.
        kept_out = {
            other[flag]
            for other in others
            if all(other[one] in chosen for one, chosen in enumerate(box) if one != flag)
        }
        box[flag] = frozenset(range(sizes[flag])) - kept_out
    return tuple(box)


def _holds(box: _Box, combination: FlagIndices) -> bool:
    """Whether a box holds a combination."""
    return all(index in chosen for index, chosen in zip(combination, box, strict=True))
