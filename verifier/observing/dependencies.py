"""Which activation depends on which, found by trying: one is changed, and the others that change depend on it.

The autograd graph would say too much: queries, keys and values are rows of one tensor, and whatever reads some of it
hangs on all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from verifier.judging.numerics import moved_rows

Dependencies = Mapping[str, frozenset[str]]
"""By point: every other point that its value depends on."""


def read_dependencies(
    values: Mapping[str, Tensor], noise: Mapping[str, float], changed_in: Mapping[str, int]
) -> Dependencies:
    """What each point depends on.

    Args:
        values: by point: `[row, …]`, of which row 0 is the run in which nothing was changed.
        noise: by point: of its values in float64.
        changed_in: by point: the row in which its value was changed, and it alone.
    """
    found = {}
    for name, value in values.items():
        moved = moved_rows(value, value[:1], noise[name])
        found[name] = frozenset(other for other, row in changed_in.items() if other != name and moved[row])
    return found


def nearest(before: Dependencies, name: str) -> list[str]:
    """What flows into a point with no other point between, as far as that can be told by changing single ones."""
    inputs = before[name]
    return [one for one in inputs if not any(one in before[other] for other in inputs)]


def out_of_order(before: Dependencies, fired: Sequence[str]) -> tuple[str, str] | None:
    """The first point that fired too early, and the one that it depends on and that fired later; None if none did."""
    places = {name: place for place, name in reversed(list(enumerate(fired)))}
    for name in sorted(places, key=places.__getitem__):
        late = [one for one in before.get(name, ()) if places.get(one, -1) > places[name]]
        if late:
            return name, min(late, key=places.__getitem__)
    return None
