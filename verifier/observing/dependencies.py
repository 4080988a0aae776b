"""Find which activation depends on which: change one, and see which others change.

The autograd graph has too many dependencies: queries, keys and values are rows of one tensor, and an operation that
reads some rows depends on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs
from verifier.family import Family
from verifier.judging.numerics import moved_rows
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.reference import models

Dependencies = Mapping[str, frozenset[str]]
"""By point: every other point on which its value depends."""


# By the family's identity and its points. The family is kept alive, so that no other one gets its identity.
_found: dict[tuple[int, tuple[str, ...]], tuple[Family, Dependencies]] = {}

_POSITIONS = 4
"""Enough for a change to be seen by a later position; there are hundreds of rows."""


def reference_dependencies(case: Case) -> Dependencies:
    """Find which point of HF's model depends on which, once for each set of points: their blocks are wired alike.

    Args:
        case: whose points they are.
    """
    key = (id(case.family), tuple(point.name for point in case.reference.points))
    if key not in _found:
        _found[key] = (case.family, _change_each(case))
    return _found[key][1]


def _change_each(case: Case) -> Dependencies:
    """Run HF's model with each point changed in a row of its own; nothing is changed in row 0."""
    rows = {point.name: row for row, point in enumerate(case.reference.points, start=1)}
    ids = case.reference.inputs().input_ids
    assert ids is not None
    text = ids[:1, :_POSITIONS].expand(len(rows) + 1, -1)

    def changed_in(row: int) -> Edit:
        def act(value: Tensor) -> Tensor:
            edited = value.clone()
            if not value.is_floating_point():  # which experts a token chose: each is exchanged for another choice
                edited[row] = edited[row].flip(-1)
                return edited
            # Neither the same in each head nor along the last axis, which a norm would take off.
            steps = torch.arange(1, edited[row].numel() + 1, dtype=value.dtype, device=value.device)
            edited[row] = edited[row] * (1.5 + 0.5 * torch.cos(1.7 * steps)).reshape(edited[row].shape)
            return edited

        return act

    edits = {name: changed_in(row) for name, row in rows.items()}
    with torch.no_grad(), case.family.taps(case.reference.model(), edits=edits) as taps:
        models.forward(case.reference.model(), Inputs(input_ids=text))
    return read_dependencies(taps.values, activations.noise(case).values, rows)


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
