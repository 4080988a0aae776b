"""Choose few of many configs so that values that meet in one of all still meet in one of the chosen."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item", bound=Hashable)


def covering(configs: Sequence[Mapping[str, Any]], strength: int, names: Iterable[str] | None = None) -> list[int]:
    """Choose configs so that values of `strength` fields that occur together in any config do so in a chosen one.

    The choice is greedy and deterministic: each next config has the most combinations that none before it has, so the
    first few already have most.

    Args:
        configs: to choose from.
        strength: how many fields' values are to meet.
        names: the fields that count; all of them if not given.

    Returns:
        The places of the chosen ones in `configs`, in the order in which they were chosen.
    """
    wanted = None if names is None else set(names)
    items = [
        [(name, repr(value)) for name, value in sorted(config.items()) if wanted is None or name in wanted]
        for config in configs
    ]
    unseen = [meetings(some, strength) for some in items]
    taken: list[int] = []
    while True:
        best = max(range(len(unseen)), key=lambda place: len(unseen[place]), default=None)
        if best is None or not unseen[best]:
            return taken
        taken.append(best)
        unseen = [left - unseen[best] for left in unseen]


def meetings(items: Iterable[Item], strength: int) -> set[tuple[Item, ...]]:
    """List every combination of that many items, each in the order in which the items are given.

    Args:
        items: what is combined.
        strength: how many items are in a combination.
    """
    return set(itertools.combinations(items, strength))
