"""The matrix of a report: a row for flag combinations or named cases that fared alike, a column for each area."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.analysis.condense import FlagIndices, ResultT, condense
from verifier.cases.spec import CaseSpec
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.record import Record
from verifier.record.case_description import find_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What an area says of one or more cases: the worst verdict (None: no check applies), and the bugs' numbers."""

    verdict: Verdict | None
    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Cases with the same result, as a row of the matrix.

    Attributes:
        labels: the corners' or presets' names; none for combinations of the flag matrix.
        flags: for each flag the values that the row stands for; None for any. Empty for named cases.
        valid: whether HF accepts them. A row holds only combinations that are as it says, whatever its flags.
        cases: their ids.
        cells: by area.
    """

    labels: tuple[str, ...]
    flags: Mapping[str, tuple[Any, ...] | None]
    valid: bool
    cases: tuple[str, ...]
    cells: Mapping[str, Cell]

    @property
    def value_words(self) -> Mapping[str, str]:
        """By flag `any`, or the values: `none or 4`."""
        return {name: _spell(values, "any", " or ") for name, values in self.flags.items()}

    @property
    def terse_values(self) -> Mapping[str, str]:
        """By flag `*` for any, or the values: `none|4`."""
        return {name: _spell(values, "*", "|") for name, values in self.flags.items()}

    @property
    def words(self) -> str:
        """The names of named cases; of combinations the flags that matter: `alibi=true kv_heads=none|4`."""
        if self.labels:
            return ", ".join(map(text.line, self.labels))
        flags = [f"{name}={words}" for name, words in self.terse_values.items() if self.flags[name] is not None]
        return " ".join(flags) or "every combination"


def _spell(values: tuple[Any, ...] | None, every: str, between: str) -> str:
    return every if values is None else between.join(text.value(one) for one in values)


# Of several verdicts in one cell of the matrix the first is shown. A skip says less than anything that ran.
WORST_FIRST = (
    Verdict.CRASH,
    Verdict.TIMEOUT,
    Verdict.ERROR,
    Verdict.FAIL,
    Verdict.KNOWN,
    Verdict.UPSTREAM,
    Verdict.REDUCED,
    Verdict.PASS,
    Verdict.SKIP,
)


def make_cell(verdicts: Iterable[Verdict], numbers: Iterable[str]) -> Cell:
    """Make a cell with the worst of several verdicts, and the numbers in order, known and upstream ones last.

    Args:
        verdicts: the verdicts that the cell stands for; with none it is empty.
        numbers: the numbers of its bugs and known failures, as the list has them: `3`, `U1`, `K1`.
    """
    seen = set(verdicts)
    named = sorted(set(numbers), key=lambda number: (not number.isdigit(), number[0] == "U", len(number), number))
    return Cell(verdict=next((one for one in WORST_FIRST if one in seen), None), numbers=tuple(named))


def merge_cells(cells: Iterable[Cell]) -> Cell:
    """Merge cells into one with the worst verdict and every number."""
    kept = list(cells)
    verdicts = [one.verdict for one in kept if one.verdict is not None]
    return make_cell(verdicts, [number for one in kept for number in one.numbers])


NOTHING = Cell(verdict=None, numbers=())
# A case of the flag matrix has no label; one that shares its flags with another differs from it in what has no column.
_UNNAMED = "other dims"


Cells = Mapping[str, Mapping[str, Cell]]  # by case and area


def make_rows(record: Record, cells: Cells, deciding: Cells, areas: Sequence[str], quiet: set[str]) -> tuple[Row, ...]:
    """Make the matrix of a record, in which cases that fared alike share a row.

    Args:
        record: what was run.
        cells: what is shown, by case and area; a row shows the worst of its cases.
        deciding: the cells of those checks alone that looked at all cases: they decide which cases fared alike. That a
            case was looked at more closely than another tells no two combinations apart.
        areas: the columns.
        quiet: ids of cases that are not to be shown.
    """
    flags = record.run.flags
    matrix: dict[bool, dict[FlagIndices, str]] = {True: {}, False: {}}
    named: list[CaseSpec] = []
    run: list[set[int]] = [set() for _ in flags]
    for spec in record.cases.values():
        place = place_of(spec.config, flags) if spec.label is None else None
        if place is not None:
            for seen, index in zip(run, place, strict=True):
                seen.add(index)
        if spec.id in quiet:
            continue
        if place is not None and place not in matrix[spec.valid]:
            matrix[spec.valid][place] = spec.id
        else:
            named.append(spec)

    def result(case: str) -> tuple[Cell, ...]:
        return tuple(deciding[case].get(area, NOTHING) for area in areas)

    def row(cases: Sequence[str], **described: Any) -> Row:
        shown = {area: merge_cells(cells[case].get(area, NOTHING) for case in cases) for area in areas}
        return Row(cases=tuple(cases), cells=shown, **described)

    rows = []
    for valid, ids in matrix.items():
        results = {place: result(case) for place, case in sorted(ids.items())}
        for values, places in condense_flags(results, flags, run):
            rows.append(row([ids[place] for place in places], labels=(), flags=values, valid=valid))
    alike: dict[tuple[bool, tuple[Cell, ...]], list[CaseSpec]] = {}
    for spec in sorted(named, key=lambda one: (not one.valid, one.label or _UNNAMED, one.id)):
        alike.setdefault((spec.valid, result(spec.id)), []).append(spec)
    for (valid, _), specs in alike.items():
        labels = tuple(dict.fromkeys(spec.label or _UNNAMED for spec in specs))
        rows.append(row([spec.id for spec in specs], labels=labels, flags={}, valid=valid))
    return tuple(rows)


def place_of(config: Mapping[str, Any], flags: Mapping[str, Sequence[Any]]) -> FlagIndices | None:
    """Find a config in the product of the flags; None where a flag has a value there that is not in the product.

    Args:
        config: field → value.
        flags: field → values.

    Returns:
        The index of the config's value of each flag, in the order of the flags.
    """
    indices = [find_value(config[name], values) if name in config else None for name, values in flags.items()]
    known = [index for index in indices if index is not None]
    return tuple(known) if len(known) == len(indices) else None


def condense_flags(
    results: Mapping[FlagIndices, ResultT], flags: Mapping[str, Sequence[Any]], run: Sequence[set[int]]
) -> Iterator[tuple[dict[str, tuple[Any, ...] | None], Sequence[FlagIndices]]]:
    """Put combinations with the same result into few rows.

    Args:
        results: what came out for each combination.
        flags: every flag and its values.
        run: for each flag the values, by index, that were run at all: a narrowed run must not claim the others.

    Yields:
        For each row the values by flag, None for any, and the combinations that are counted in it.
    """
    for _, boxes in condense(results, [len(values) for values in flags.values()]):
        for box in boxes:
            described: dict[str, tuple[Any, ...] | None] = {}
            for (name, values), chosen, seen in zip(flags.items(), box.values, run, strict=True):
                kept = seen if chosen is None else chosen & seen
                described[name] = None if len(kept) == len(values) else tuple(values[index] for index in sorted(kept))
            yield described, box.members
