"""`verifier list circumstances`: print axes and their values, constraints, classes of observables, and the covering."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from verifier.cases.circumstances import (
    AXES,
    CLASSES,
    CONSTRAINTS,
    OF_POSITIONS,
    TRIPLES,
    Circumstance,
    Meeting,
    ObservableClass,
    classes_in,
    read_rows,
)
from verifier.output.text import plural

_INDENT = "    "


def write_circumstances(width: int) -> Iterator[str]:
    """Write everything about circumstances, line by line.

    Args:
        width: in columns; 0 to leave long lines whole.
    """
    yield from _fill(
        f"{len(AXES)} axes, the plainest value of each first; `--where dtype=bfloat16` asks for one", width
    )
    for axis, values in AXES.items():
        yield from ("", axis)
        longest = max(map(len, values))
        for value, meaning in values.items():
            yield from _fill(meaning, width, first=f"{_INDENT}{value:{longest}}  ")
    yield ""
    yield from _fill(f"{len(CONSTRAINTS)} constraints: values that do not go together, and why", width)
    for constraint in CONSTRAINTS:
        yield ""
        yield from _fill(_in_words(constraint.values), width)
        yield from _fill(constraint.reason, width, first=_INDENT)
    rows = read_rows()
    met: set[Meeting] = set()
    yield ""
    yield from _fill(f"{len(CLASSES)} classes of observables: every two values meet in a row of each", width)
    for kind in CLASSES:
        looked_at = [row for row in rows if kind in classes_in(row)]
        meetings = _meetings(looked_at, kind)
        met |= meetings
        yield ""
        yield from _fill(f"{kind.name}: {kind.observables}", width)
        yield from _fill(f"where {_in_words(kind.needs)}", width, first=_INDENT)
        if kind.axes:
            yield from _fill(f"of the axes {', '.join(kind.axes)}", width, first=_INDENT)
        yield from _fill(_count(len(looked_at), meetings), width, first=_INDENT)
    yield ""
    of = ", and of ".join(_listed(axes, "and") for axes in (TRIPLES, OF_POSITIONS))
    yield from _fill(f"In all {_count(len(rows), met)} (of {of}).", width)


def _meetings(rows: Sequence[Circumstance], kind: ObservableClass) -> set[Meeting]:
    """List the meetings of values in the rows in which a class is looked at: the array has all that there are."""
    return {frozenset((axis, row[axis]) for axis in group) for row in rows for group in kind.groups}


def _count(rows: int, meetings: set[Meeting]) -> str:
    pairs, triples = (sum(len(meeting) == size for meeting in meetings) for size in (2, 3))
    counts = [plural(rows, "row"), f"{plural(pairs, 'pair')} of values"]
    return ", ".join([*counts, plural(triples, "triple")] if triples else counts)


def _in_words(values: Mapping[str, Sequence[str]]) -> str:
    """Write values by axis: `past is none or asked, and grad is grad`."""
    return ", and ".join(f"{axis} is {_listed(some, 'or')}" for axis, some in values.items())


def _listed(words: Sequence[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _fill(words: str, width: int, *, first: str = "") -> list[str]:
    """Break words into lines, of which the first begins so, and the others are indented as far."""
    if not width:
        return [f"{first}{words}"]
    return textwrap.wrap(words, width, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False)
