"""Make the covering array of circumstances.

    python -m verifier.cases.circumstance_rows
    python -m verifier.cases.circumstance_rows --anew

First comes a row for each single value with all else plain, once for each way of looking; then rows are added, each
with the most meetings of values that no row before it has; at last rows that are needed by no meeting go, and values
that are needed by no meeting become plain. Without `--anew` the rows of the file stay, and those that it lacks follow:
what is known of the rows stays true. Both choose anew what is looked at in each row.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from verifier.cases.circumstances import (
    AXES,
    CLASSES,
    FILE,
    PLAIN,
    Circumstance,
    Meeting,
    ObservableClass,
    complete,
    differences,
    is_allowed,
    read_rows,
    wanted_meetings,
)
from verifier.cases.dealing import is_single

SEED = 0
_TRIES = 8  # rows that are tried for each that is added

# What single values are looked at in: plain calls, with gradients, with a loss, and while tokens are generated.
_BASES: Sequence[Mapping[str, Sequence[str]]] = (
    {},
    {"grad": ("grad",)},
    {"grad": ("grad",), "labels": ("given",)},
    next(kind.needs for kind in CLASSES if kind.name == "generation"),
)

_GROUPS = list(dict.fromkeys(group for kind in CLASSES for group in kind.groups))

Wanted = tuple[ObservableClass, Meeting]  # a class, and a meeting that is wanted in it


def make_rows(before: Sequence[Circumstance] = ()) -> list[Circumstance]:
    """Make the covering array.

    Args:
        before: rows that come first and stay as they are; one for each single value if not given.
    """
    singles = before or _single_rows()
    missing = {(kind, meeting) for kind in CLASSES for meeting in wanted_meetings(kind)}
    missing -= {wanted for row in singles for wanted in _covered(row)}
    added: list[Circumstance] = []
    drawn = random.Random(SEED)
    while missing:
        added.append(_best_row(missing, drawn))
        missing -= _covered(added[-1])
    return _make_plain(singles, added)


def _single_rows(bases: Sequence[Mapping[str, Sequence[str]]] = _BASES) -> list[Circumstance]:
    """Make a row for each value of each axis that a base leaves open, everything else as plain as the base allows."""
    rows: list[Circumstance] = []
    for needs in bases:
        for axis, value in ((axis, value) for axis, values in AXES.items() for value in values if axis not in needs):
            row = complete({axis: value}, needs)
            if row is not None and row not in rows:
                rows.append(row)
    return rows


def _covered(row: Circumstance) -> set[Wanted]:
    """List the wanted meetings that a row has, by class."""
    meetings = {frozenset((axis, row[axis]) for axis in group) for group in _GROUPS}
    return {(kind, meeting) for kind in CLASSES if kind.can_look(row) for meeting in meetings & wanted_meetings(kind)}


def _best_row(missing: set[Wanted], drawn: random.Random) -> Circumstance:
    """Make a row around a missing meeting of the class that asks for most, with many other missing ones."""
    left = {kind for kind, _ in missing}
    strictest = max((kind for kind in CLASSES if kind in left), key=lambda kind: len(kind.needs))
    starts = sorted(sorted(meeting) for kind, meeting in missing if kind is strictest)
    by_value: Mapping[tuple[str, str], list[Wanted]] = defaultdict(list)
    for wanted in missing:
        for value in wanted[1]:
            by_value[value].append(wanted)
    tried = [_fill(dict(start), strictest, by_value, drawn) for start in drawn.sample(starts, min(_TRIES, len(starts)))]
    return max(tried, key=lambda row: len(_covered(row) & missing))


def _fill(
    row: dict[str, str],
    kind: ObservableClass,
    by_value: Mapping[tuple[str, str], Sequence[Wanted]],
    drawn: random.Random,
) -> Circumstance:
    """Give each open axis the value that completes the most missing meetings, the plainest of several."""
    for axis in drawn.sample([axis for axis in AXES if axis not in row], len(AXES) - len(row)):
        candidates = [value for value in kind.needs.get(axis, AXES[axis]) if complete({**row, axis: value}, kind.needs)]

        def gain(value: str, axis: str = axis) -> int:
            new = {**row, axis: value}
            return sum(
                other.can_look(new) and meeting <= new.items() for other, meeting in by_value.get((axis, value), ())
            )

        row[axis] = max(candidates, key=gain)  # the first of several is the plainest
    return {axis: row[axis] for axis in AXES}


def _make_plain(singles: Sequence[Circumstance], added: Sequence[Circumstance]) -> list[Circumstance]:
    """Drop added rows, and make their values plain, as long as every meeting still has a row."""
    counts = Counter(wanted for row in (*singles, *added) for wanted in _covered(row))
    kept: list[Circumstance] = []
    for row in reversed(added):
        if all(counts[wanted] > 1 for wanted in _covered(row)):
            counts.subtract(_covered(row))
            continue
        for axis in AXES:
            plainer = {**row, axis: PLAIN[axis]}
            lost, gained = _covered(row) - _covered(plainer), _covered(plainer) - _covered(row)
            if is_allowed(plainer) and all(counts[wanted] > 1 for wanted in lost):
                counts.subtract(lost)
                counts.update(gained)
                row = plainer  # each axis starts from what the axes before it left
        kept.append(row)
    return [*singles, *reversed(kept)]


def choose_looks(rows: Sequence[Circumstance]) -> list[set[str]]:
    """Choose for each row the classes that are looked at in it, so that each class has every meeting in few rows.

    Args:
        rows: the covering array. In a call in which one value is not plain, or one beside gradients, every class is
            looked at that can be, because most real faults need everything else to be plain.
    """
    singles = _single_rows(_BASES[:1])
    looks: list[set[str]] = [set() for _ in rows]
    shown = [_covered(row) for row in rows]
    for kind in CLASSES:
        able = [place for place, row in enumerate(rows) if kind.can_look(row)]
        missing = {(kind, meeting) for meeting in wanted_meetings(kind)}
        chosen = [place for place in able if is_single(rows[place])]
        missing -= set().union(*(shown[place] for place in chosen))
        while missing:
            # Of rows with as much of what is missing one that is looked at anyway.
            best = max(able, key=lambda place: (len(shown[place] & missing), len(looks[place]), -place))
            chosen.append(best)
            missing -= shown[best]
        # Singles without gradients are added to these, and take the place of none.
        for place in {*chosen, *(place for place in able if rows[place] in singles)}:
            looks[place].add(kind.name)
    return looks


def write_rows(rows: Sequence[Circumstance]) -> None:
    """Write the rows into the file that stands beside this module, but for those in which nothing has to be looked at.

    Args:
        rows: the covering array.
    """
    order = [kind.name for kind in CLASSES]
    lines = [
        json.dumps({**differences(row), "looks": [name for name in order if name in looks]})
        for row, looks in zip(rows, choose_looks(rows), strict=True)
        if looks
    ]
    FILE.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anew", action="store_true", help="forget the rows of the file")
    write_rows(make_rows(() if parser.parse_args().anew else read_rows()))
