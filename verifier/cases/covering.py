"""A few of many configs in which every few of their values still meet."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any


def covering(configs: Sequence[Mapping[str, Any]], strength: int, names: Iterable[str] | None = None) -> list[int]:
    """Which configs to take so that whatever values of `strength` fields occur together in one occur in a taken one.

    Greedy: each next one has the most that none before it had, so the first few already have most. Deterministic.

    Args:
        configs: to choose from.
        strength: how many fields' values are to meet.
        names: the fields that count; all of them if not given.

    Returns:
        Places in `configs`, in the order in which they were taken.
    """
    wanted = None if names is None else set(names)
    meetings = [_meetings(config, strength, wanted) for config in configs]
    taken: list[int] = []
    seen: set[Hashable] = set()
    while True:
        for met in meetings:
            met -= seen
        best = max(range(len(meetings)), key=lambda place: len(meetings[place]), default=None)
        if best is None or not meetings[best]:
            return taken
        taken.append(best)
        seen = set(meetings[best])


def _meetings(config: Mapping[str, Any], strength: int, wanted: set[str] | None) -> set[Hashable]:
    items = [(name, repr(value)) for name, value in sorted(config.items()) if wanted is None or name in wanted]
    return set(itertools.combinations(items, strength))
