"""Numbers as pictures: how long a bar is, how dark each cell of a heat map is, and the same in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from verifier.judging.evidence import Heat, Rung
from verifier.judging.outcome import Verdict

WIDTH = 200  # of a bar
BOUND = 50  # where the bound stands on it
_BELOW, _ABOVE = 4, 15  # orders of magnitude that are shown on either side of it

CELL = 12  # of a heat map, both ways
LEVELS = 6


def bar_length(measured: float, bound: float) -> int:
    """Find the length of an error's bar, from 0 to `WIDTH`, on a log axis on which the bound stands at `BOUND`.

    Args:
        measured: the error.
        bound: the largest error that is accepted, in the same unit.
    """
    if not bound:
        return WIDTH if measured else 0
    ratio = measured / bound
    if not math.isfinite(ratio):
        return WIDTH
    if ratio <= 0:
        return 0
    magnitude = math.log10(ratio)
    if magnitude <= 0:
        return max(0, round(BOUND * (1 + magnitude / _BELOW)))
    return min(WIDTH, round(BOUND + (WIDTH - BOUND) * magnitude / _ABOVE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a ladder: one rung that is shown, or several in a row of which only the number is."""

    rungs: tuple[Rung, ...]
    shown: bool

    @property
    def words(self) -> str:
        """What the rungs have in common: `agree`."""
        return _WORDS[_kind(self.rungs[0])]


_WORDS = {
    Verdict.PASS: "agree",
    Verdict.REDUCED: "agree to float32 rounding only",
    Verdict.FAIL: "differ too",
}


def _kind(rung: Rung) -> Verdict:
    return rung.verdict if rung.verdict in (Verdict.PASS, Verdict.REDUCED) else Verdict.FAIL


def shorten(rungs: Sequence[Rung], most: int = 12) -> tuple[Stretch, ...]:
    """Shorten a ladder: at most `most` of the rungs that differ are shown, all others are put together.

    Args:
        rungs: the ladder, in order.
        most: how many of the rungs that differ are shown.

    Returns:
        Its parts, in order: each rung that is shown by itself, the others by neighbours of one kind.
    """
    stretches: list[Stretch] = []
    shown = 0
    for rung in rungs:
        if _kind(rung) is Verdict.FAIL and shown < most:
            stretches.append(Stretch(rungs=(rung,), shown=True))
            shown += 1
        elif stretches and not stretches[-1].shown and _kind(stretches[-1].rungs[0]) is _kind(rung):
            stretches[-1] = Stretch(rungs=(*stretches[-1].rungs, rung), shown=False)
        else:
            stretches.append(Stretch(rungs=(rung,), shown=False))
    return tuple(stretches)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMapDrawing:
    """A heat map as an SVG picture.

    Attributes:
        width: in pixels.
        height: in pixels.
        paths: the cells of each level that has some, as an SVG path: 0 agrees, the highest is darkest.
        words: what it shows, in a sentence.
    """

    width: int
    height: int
    paths: tuple[tuple[int, str], ...]
    words: str


def draw_heat_map(heat: Heat, bound: float) -> HeatMapDrawing:
    """Draw a heat map, each cell by how its error compares with the bound and with the largest error.

    Args:
        heat: the errors by row and column.
        bound: the largest error that is accepted, in the same unit.
    """
    cells = [(row, column, value) for row, values in enumerate(heat.values) for column, value in enumerate(values)]
    largest = max((value for _, _, value in cells if value is not None), default=0.0)
    drawn: dict[int, list[str]] = {}
    for row, column, value in cells:
        if value is not None:
            drawn.setdefault(_level(value, largest, bound), []).append(f"M{column * CELL} {row * CELL}h11v11h-11z")
    return HeatMapDrawing(
        width=CELL * max((len(values) for values in heat.values), default=0),
        height=CELL * len(heat.values),
        paths=tuple((level, "".join(parts)) for level, parts in sorted(drawn.items())),
        words=_describe(heat, bound),
    )


def _level(value: float, largest: float, bound: float) -> int:
    """Find how dark a cell is: 0 where it agrees, `LEVELS - 1` where its error is of the largest."""
    if value <= bound or value == 0:
        return 0
    if not math.isfinite(value):
        return LEVELS - 1
    if not math.isfinite(largest):
        return 1
    # Half of the largest, a tenth, a hundredth, a ten-thousandth, and less.
    return next((LEVELS - 1 - step for step, part in enumerate((2, 10, 100, 10_000)) if value * part >= largest), 1)


def _describe(heat: Heat, bound: float) -> str:
    """Say where a heat map differs: `differs in head 3 to 11 of 12, in all of 11 pos`."""
    rows = [any(_is_over(value, bound) for value in values) for values in heat.values]
    width = max(map(len, heat.values), default=0)
    columns = [
        any(_is_over(value, bound) for values in heat.values for value in values[place : place + 1])
        for place in range(width)
    ]
    parts = [
        _describe_axis(axis, flags, length)
        for axis, flags, length in zip(heat.axes, (rows, columns), heat.lengths, strict=True)
        if axis
    ]
    return f"differs in {', '.join(parts)}" if any(rows) else "no cell alone is over the bound"


def _is_over(value: float | None, bound: float) -> bool:
    return value is not None and value > bound


def _describe_axis(name: str, flags: Sequence[bool], length: int) -> str:
    """Say which indices of an axis differ: `head 3 to 11 (of 12)`; a flag may stand for several indices."""
    if all(flags):
        return f"every {name} (of {length})"
    size = math.ceil(length / len(flags))
    spans = [(first * size, min(length, (last + 1) * size) - 1) for first, last in _find_spans(flags)]
    spelt = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in spans)
    return f"{name} {spelt} (of {length})"


def _find_spans(flags: Iterable[bool]) -> list[tuple[int, int]]:
    """Find the first and the last index of each run of flags that are set."""
    found: list[tuple[int, int]] = []
    for place, flag in enumerate(flags):
        if flag and found and found[-1][1] == place - 1:
            found[-1] = (found[-1][0], place)
        elif flag:
            found.append((place, place))
    return found
