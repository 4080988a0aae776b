"""Make the covering array of circumstances: `python -m verifier.cases.circumstance_rows` writes it anew.

First comes a row for each single value with all else plain, once for each way of looking; then rows are added, each
with the most meetings of values that no row before it has; at last rows that are needed by no meeting go, and values
that are needed by no meeting become plain.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from verifier.cases.circumstances import (
    AXES,
    CLASSES,
    PLAIN,
    TRIPLES,
    Circumstance,
    Meeting,
    complete,
    is_allowed,
    wanted_meetings,
)

FILE = Path(__file__).with_name("circumstances.jsonl")
SEED = 0
_TRIES = 8  # rows that are tried for each that is added
_PLACES = range(len(CLASSES))

# What single values are looked at in: plain calls, with gradients, with a loss, and while tokens are generated.
_BASES: Sequence[Mapping[str, Sequence[str]]] = (
    {},
    {"grad": ("grad",)},
    {"grad": ("grad",), "labels": ("given",)},
    CLASSES[-1].needs,
)

Wanted = tuple[int, Meeting]  # a class's place and a meeting that is wanted in it


def make_rows() -> list[Circumstance]:
    """Make the covering array."""
    rows = list(_single_rows())
    missing = {(place, meeting) for place in _PLACES for meeting in wanted_meetings(place)}
    for row in rows:
        missing -= _covered(row)
    drawn = random.Random(SEED)
    while missing:
        row = _best_row(missing, drawn)
        rows.append(row)
        missing -= _covered(row)
    return _make_plain(rows)


def _single_rows() -> Iterator[Circumstance]:
    """Make a row for each value of each axis that a base leaves open, everything else as plain as the base allows."""
    seen: list[Circumstance] = []
    for needs in _BASES:
        for axis, value in ((axis, value) for axis, values in AXES.items() for value in values if axis not in needs):
            row = complete({axis: value}, needs)
            if row is not None and row not in seen:
                seen.append(row)
                yield row


def _covered(row: Circumstance) -> set[Wanted]:
    """List the wanted meetings that a row has, by class."""
    groups = [*itertools.combinations(AXES, 2), *itertools.combinations(TRIPLES, 3)]
    meetings = {frozenset((axis, row[axis]) for axis in group) for group in groups}
    return {
        (place, meeting)
        for place in _PLACES
        if CLASSES[place].can_look(row)
        for meeting in meetings & wanted_meetings(place)
    }


def _best_row(missing: set[Wanted], drawn: random.Random) -> Circumstance:
    """Make a row around a missing meeting of the class that asks for most, with many other missing ones."""
    place = max({place for place, _ in missing}, key=lambda place: (len(CLASSES[place].needs), -place))
    starts = sorted(sorted(meeting) for other, meeting in missing if other == place)
    by_value: Mapping[tuple[str, str], list[Wanted]] = defaultdict(list)
    for wanted in missing:
        for value in wanted[1]:
            by_value[value].append(wanted)
    tried = [_fill(dict(start), place, by_value, drawn) for start in drawn.sample(starts, min(_TRIES, len(starts)))]
    return max(tried, key=lambda row: len(_covered(row) & missing))


def _fill(
    row: dict[str, str], place: int, by_value: Mapping[tuple[str, str], Sequence[Wanted]], drawn: random.Random
) -> Circumstance:
    """Give each open axis the value that completes the most missing meetings, the plainest of several."""
    needs = CLASSES[place].needs
    for axis in drawn.sample([axis for axis in AXES if axis not in row], len(AXES) - len(row)):
        candidates = [value for value in needs.get(axis, AXES[axis]) if complete({**row, axis: value}, needs)]

        def gain(value: str, axis: str = axis) -> int:
            new = {**row, axis: value}
            return sum(
                CLASSES[other].can_look(new) and meeting <= new.items()
                for other, meeting in by_value.get((axis, value), ())
            )

        row[axis] = max(candidates, key=gain)  # the first of several is the plainest
    return {axis: row[axis] for axis in AXES}


def _make_plain(rows: Sequence[Circumstance]) -> list[Circumstance]:
    """Drop rows and make values plain as long as every meeting still has a row; the single rows stay."""
    singles = list(_single_rows())
    counts = Counter(wanted for row in rows for wanted in _covered(row))
    kept: list[Circumstance] = []
    for row in reversed(rows):
        if row in singles:
            kept.append(row)
            continue
        changes: Iterable[Circumstance | None] = [None, *({axis: PLAIN[axis]} for axis in AXES)]
        new: Circumstance | None = row
        for change in changes:
            if new is None:
                break
            other = None if change is None else {**new, **change}
            if other is not None and not is_allowed(other):
                continue
            before, after = _covered(new), set() if other is None else _covered(other)
            if all(counts[wanted] > 1 for wanted in before - after):
                counts.subtract(before - after)
                counts.update(after - before)
                new = other
        if new is not None:
            kept.append(new)
    return kept[::-1]


def write_rows(rows: Sequence[Circumstance], path: Path = FILE) -> None:
    """Write what is not plain of each row, one JSON object a line.

    Args:
        rows: the circumstances, with a value for each axis.
        path: the file, which is replaced.
    """
    lines = [json.dumps({axis: row[axis] for axis in AXES if row[axis] != PLAIN[axis]}) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_rows(make_rows())
