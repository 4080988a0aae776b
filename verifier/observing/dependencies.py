"""Find which activation depends on which: change one, and see which others change.

The autograd graph has too many dependencies: queries, keys and values are rows of one tensor, and an operation that
reads some rows depends on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from verifier.judging.numerics import moved_rows

Dependencies = Mapping[str, frozenset[str]]
"""By point: every other point on which its value depends."""


def read_dependencies(
    values: Mapping[str, Tensor], noise: Mapping[str, float], changed_in: Mapping[str, int]
) -> Dependencies:
    """Read off which points each point depends on, from a batch in which each row changes one point.

    Args:
        values: by point, `[row, …]`; nothing is changed in row 0.
        noise: by point, of its float64 values.
        changed_in: by point, the row in which it alone is changed.
    """
    found = {}
    for name, value in values.items():
        moved = moved_rows(value, value[:1], noise[name])
        found[name] = frozenset(other for other, row in changed_in.items() if other != name and moved[row])
    return found


def nearest(before: Dependencies, name: str) -> list[str]:
    """List the points that flow into a point with no other point between, as far as single changes show.

    Args:
        before: by point, the points that flow into it.
        name: of the point.
    """
    inputs = before[name]
    return [one for one in inputs if not any(one in before[other] for other in inputs)]


def out_of_order(before: Dependencies, fired: Sequence[str]) -> tuple[str, str] | None:
    """Find the first point that fired before a point that it depends on, and name both; None if the order is right.

    Args:
        before: by point, the points that flow into it.
        fired: the names of the points in the order in which they fired; the first time counts.

    Returns:
        The point, and the earliest of its inputs that fired too late.
    """
    places = {name: place for place, name in reversed(list(enumerate(fired)))}
    for name in sorted(places, key=places.__getitem__):
        late = [one for one in before.get(name, ()) if places.get(one, -1) > places[name]]
        if late:
            return name, min(late, key=places.__getitem__)
    return None
