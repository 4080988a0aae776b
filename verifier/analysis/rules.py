"""The rule of a set of failures: the shortest predicate over a config that is true of the failing cases alone.

`alibi`, `new_decoder_architecture and multi_query`, `bias and 1 < num_kv_heads < num_attention_heads`.

A rule has three atoms at most; a longer one explains nothing any more. An atom says something of one field, or compares
two numbers. Atoms are joined as `a and b`, `a or b`, `a and b and c`, `a or (b and c)` and `a and (b or c)`; not as
`a or b or c`, which any three cases have. Of all predicates that were tried the rule is the one with

1. the fewest exceptions: failing cases of which it is false, and passing ones of which it is true;
2. of these, the fewest atoms;
3. of these, the lowest cost: a flag is cheaper than another field, a value cheaper than its negation or a bound, and
   one field cheaper than two;
4. of these, the first text in the alphabet, so that the order of cases and fields makes no difference.

Some fields are named only where no rule without them is exact, and where the rule with them has fewer exceptions.

Every atom and every exact pair is tried; of other pairs and of triples those that contain one of the strongest atoms.
A set of cases is an integer with a bit for each case, those of the failing ones first.
"""

from __future__ import annotations

import heapq
import itertools
import math
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from verifier.cases.predicates import ABSENT_VALUE, is_list, is_number, plainest_values, write_value
from verifier.output.text import plural

_ATOMS = 1_000  # the strongest are looked at
# So many of the strongest atoms are the first of a pair or a triple, and so many more if all that they decide is right.
_STRONGEST, _TRIED = 24, 200
_LOWER_ENDS = 4  # of a field's numbers so many of the smallest are tried as the lower end of a chain
_FLAG, _FIELD, _TWO_FIELDS, _CHAIN = 0, 2, 3, 5  # costs of an atom


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A predicate, and how far it holds.

    Attributes:
        text: the predicate, as `verifier.cases.predicates` reads it.
        failing: how many cases fail.
        caught: of how many failing cases the predicate is true.
        passing: how many cases pass.
        spared: of how many passing cases the predicate is false.
        missed: failing cases of which it is false, as places in what `explain` was given. The order of the cases is no
            part of the rule: two rules are equal whichever these are.
        unjust: passing cases of which it is true, as places in what `explain` was given.
    """

    text: str
    failing: int
    caught: int
    passing: int
    spared: int
    missed: tuple[int, ...] = field(default=(), compare=False)
    unjust: tuple[int, ...] = field(default=(), compare=False)

    @property
    def exact(self) -> bool:
        """Whether the predicate is true of every failing case, and of no other."""
        return self.caught == self.failing and self.spared == self.passing

    @property
    def hedge(self) -> str:
        """What stands before the predicate: nothing, or `nearly, with 2 exceptions: ` where it is no exact rule."""
        exceptions = self.failing - self.caught + self.passing - self.spared
        return f"nearly, with {plural(exceptions, 'exception')}: " if exceptions else ""

    def state(self, support: str | None = None) -> str:
        """Spell the predicate and how far it holds: `nearly, with 1 exception: alibi (fails 3 of 3, passes 5 of 6)`."""
        return f"{self.hedge}{self.text} ({support or self.count_support()})"

    def count_support(self, caught: str = "fails", spared: str = "passes") -> str:
        """Count how far the rule holds: `fails 24 of 24, passes 128 of 128`.

        The first pair of numbers is of the cases of which the rule is true, the second of those of which it is false.

        Args:
            caught: the word for what a case does of which the rule is rightly true.
            spared: the word for what a case does of which the rule is rightly false.
        """
        true = self.caught + self.passing - self.spared
        false = self.spared + self.failing - self.caught
        return f"{caught} {self.caught:,} of {true:,}, {spared} {self.spared:,} of {false:,}"


def explain(
    failing: Sequence[Mapping[str, Any]],
    passing: Sequence[Mapping[str, Any]],
    *,
    flags: Iterable[str] = (),
    no_sizes: Collection[str] = (),
    last: Collection[str] = (),
) -> Rule | None:
    """Find the rule of the failing configs.

    Args:
        failing: the configs of the cases that fail.
        passing: the configs of the cases that the same check passes.
        flags: the fields that are preferred to others that tell the same. A mapping gives their values too, the
            plainest first, which is the one of a config that does not name the flag.
        no_sizes: the fields whose numbers are held against no other field's.
        last: the fields that are named only where no rule without them is exact.

    Returns:
        The rule; None where nothing fails or nothing passes, so that there is nothing to tell apart, and where no
        predicate hits better than chance.
    """
    if not failing or not passing:
        return None
    sides = _Sides(failing=len(failing), passing=len(passing))
    columns = _columns([*failing, *passing], flags)
    plain = [column for column in columns if column.name not in last]
    found = _find_best(sides, plain, no_sizes)
    if (found is None or sides.exceptions(found.true)) and len(plain) < len(columns):
        other = _find_best(sides, columns, no_sizes)
        if other is not None and (found is None or sides.exceptions(other.true) < sides.exceptions(found.true)):
            found = other
    return None if found is None else sides.rule(found)


def _find_best(sides: _Sides, columns: Sequence[_Column], no_sizes: Collection[str]) -> _Predicate | None:
    """The best predicate over these fields; None where none hits better than chance."""
    # Of those that are true of the same cases the plainest.
    atoms = {one.true: one for one in reversed(_plainest_first(_atoms(columns, no_sizes)))}
    strongest = _plainest_first(sides.strongest(atoms.values(), sides.everything, _ATOMS))
    best, exceptions = None, math.inf
    for length in (1, 2, 3):
        # A longer one with as many exceptions has a part that says nothing.
        found = _search(length, strongest, sides, exceptions, undecided=sides.everything)
        if found is not None and sides.exceptions(found.true) < exceptions:
            best, exceptions = found, sides.exceptions(found.true)
        if not exceptions:
            break
    return best


# --- predicates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Predicate:
    """An atom, or several with a word between them.

    Attributes:
        true: the cases of which it is true.
        cost: how much there is to read.
        parts: the text of each part after the field by which the parts are put in order.
        word: what stands between the parts; empty for an atom.
    """

    true: int
    cost: int
    parts: tuple[tuple[str, str], ...]
    word: str = ""

    @property
    def text(self) -> str:
        def order(part: tuple[str, str]) -> tuple[bool, str, str]:
            name, text = part
            return text.startswith("("), name, text.removeprefix("not ")

        return f" {self.word} ".join(text for _, text in sorted(self.parts, key=order))


def _plainest_first(predicates: Iterable[_Predicate]) -> list[_Predicate]:
    return sorted(predicates, key=lambda one: (one.cost, one.text))


def _join(word: str, one: _Predicate, rest: _Predicate) -> _Predicate:
    parts = rest.parts if rest.word in ("", word) else (("", f"({rest.text})"),)
    true = one.true & rest.true if word == "and" else one.true | rest.true
    return _Predicate(true, one.cost + rest.cost + (word == "or"), (*one.parts, *parts), word)


class _Sides:
    """The sets of the failing and of the passing cases, and how well another set tells these apart."""

    def __init__(self, *, failing: int, passing: int) -> None:
        self.everything = (1 << failing + passing) - 1
        self._failing = (1 << failing) - 1
        self._passing = self.everything ^ self._failing
        self._counts = failing, passing

    def _count(self, cases: int) -> tuple[int, int]:
        return (cases & self._failing).bit_count(), (cases & self._passing).bit_count()

    def exceptions(self, true: int) -> float:
        """How many failing cases are outside the set, and passing ones in it; infinite where chance is as good."""
        caught, unjust = (true & self._failing).bit_count(), (true & self._passing).bit_count()
        failing, passing = self._counts
        return failing - caught + unjust if caught * passing > unjust * failing else math.inf

    def misjudged(self, true: int, among: int) -> int:
        """How many of these cases are exceptions."""
        return ((true ^ self._failing) & among).bit_count()

    def strongest(self, atoms: Iterable[_Predicate], among: int, most: int) -> list[_Predicate]:
        """The atoms that tell these cases apart best.

        How much an atom tells is how much larger a share it has of the failing cases than of the passing ones. Unlike
        the number of exceptions that does not favour what is true of nearly nothing where few cases fail.
        """
        failing, passing = self._count(among)

        def tells(one: _Predicate) -> int:
            caught, unjust = self._count(one.true & among)
            return caught * passing - unjust * failing

        return heapq.nlargest(most, atoms, tells)

    def rule(self, predicate: _Predicate) -> Rule:
        failing, passing = self._counts
        missed = tuple(place for place in range(failing) if not predicate.true >> place & 1)
        unjust = tuple(place for place in range(passing) if predicate.true >> failing + place & 1)
        return Rule(
            text=predicate.text,
            failing=failing,
            caught=failing - len(missed),
            passing=passing,
            spared=passing - len(unjust),
            missed=missed,
            unjust=unjust,
        )


def _search(
    length: int,
    atoms: Sequence[_Predicate],
    sides: _Sides,
    fewer_than: float,
    *,
    undecided: int,
    true: int = 0,
    nested: bool = False,
) -> _Predicate | None:
    """The best predicate of that many atoms for the cases that are undecided.

    `a and …` decides all cases of which `a` is false, `a or …` all of which it is true: what follows is the best for
    the others. An exact predicate has only atoms that decide nothing wrongly, so that exact pairs are found.

    Args:
        length: 1, 2 or 3.
        atoms: the plainest first.
        sides: which cases fail.
        fewer_than: one with so many exceptions or more need not be found.
        undecided: the cases of which the predicate alone says whether the whole is true.
        true: the cases of which the whole is true already.
        nested: whether it follows an `or`, which leaves `and` alone.
    """

    def exceptions(one: _Predicate) -> float:
        return sides.exceptions(true | one.true & undecided)

    if length == 1:
        return min(atoms, key=exceptions, default=None)
    best, rank = None, (fewer_than, 0, "")
    for place, one in enumerate(sides.strongest(atoms, undecided, _TRIED)):
        for word in ("and",) if nested else ("and", "or"):
            left = undecided & (one.true if word == "and" else ~one.true)
            decided = true if word == "and" else true | one.true & undecided
            wrong = sides.misjudged(decided, sides.everything ^ left)  # whatever follows
            if wrong > rank[0] or (wrong and place >= _STRONGEST):
                continue
            others = atoms
            if length == 3:
                others = _plainest_first(sides.strongest(atoms, left, _STRONGEST))
            rest = _search(length - 1, others, sides, rank[0] + 1, undecided=left, true=decided, nested=word == "or")
            if rest is None or (joined := _join(word, one, rest)).true == rest.true:
                continue
            if (this := (exceptions(joined), joined.cost, joined.text)) < rank:
                best, rank = joined, this
    return best


# --- atoms -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A field of every config.

    Attributes:
        name: of the field.
        cost: of an atom that compares it with a value.
        keys: case by case the value as it is written, or the number, so that 1 and 1.0 are one.
        cases: the cases that have a value, by its key.
        values: the value of each key.
        numbers: case by case the number, or NaN, which is not less than another.
    """

    name: str
    cost: int
    keys: Sequence[Any]
    cases: Mapping[Any, int]
    values: Mapping[Any, Any]
    numbers: Sequence[float]

    @cached_property
    def ascending(self) -> Sequence[float]:
        """Its numbers, each once."""
        return sorted(key for key in self.cases if is_number(key))

    @cached_property
    def is_number(self) -> int:
        """The cases that have a number."""
        return sum(self.cases[number] for number in self.ascending)


def _column(name: str, cost: int, values: Iterable[Any]) -> _Column:
    cases: dict[Any, int] = {}
    known: dict[Any, Any] = {}
    keys = []
    for place, value in enumerate(values):
        key = value if is_number(value) else write_value(value)
        keys.append(key)
        cases[key] = cases.get(key, 0) | 1 << place
        if key not in known or isinstance(value, int):  # 1 is written before 1.0
            known[key] = value
    return _Column(name, cost, keys, cases, known, [math.nan if isinstance(key, str) else key for key in keys])


def _columns(configs: Sequence[Mapping[str, Any]], flags: Iterable[str]) -> list[_Column]:
    """Every field of the configs, in the order of the alphabet."""
    defaults = plainest_values(flags) if isinstance(flags, Mapping) else {}
    preferred = frozenset(flags)
    columns = []
    for name in sorted({name for config in configs for name in config}):
        default = defaults.get(name, ABSENT_VALUE)
        cost = _FLAG if name in preferred else _FIELD
        columns.append(_column(name, cost, [config.get(name, default) for config in configs]))
    return columns


def _atoms(columns: Sequence[_Column], no_sizes: Collection[str]) -> Iterator[_Predicate]:
    for column in columns:
        for text, cost, true in _of_one_field(column):
            yield _Predicate(true, column.cost + cost, ((column.name, text),))
    sizes = [column for column in columns if column.ascending and column.name not in no_sizes]
    for low, high in itertools.permutations(sizes, 2):
        for text, cost, true in _of_two_fields(low, high):
            yield _Predicate(true, cost, ((low.name, text),))


_Said = tuple[str, int, int]  # text, cost, the cases of which it is true


def _of_one_field(column: _Column) -> Iterator[_Said]:
    name, every = column.name, sum(column.cases.values())
    for key, true in column.cases.items():
        value, text = column.values[key], write_value(column.values[key])
        if value is None or isinstance(value, bool):
            yield f"{name} is None" if value is None else name if value else f"not {name}", 0, true
            yield f"{name} is not {text}", 1, every ^ true
        elif value is not ABSENT_VALUE:
            longer = int(is_list(value))  # which element matters says more
            yield f"{name} == {text}", longer, true
            yield f"{name} != {text}", longer + 1, every ^ true
    below = 0
    for number in column.ascending:
        text = write_value(column.values[number])
        yield f"{name} < {text}", 1, below
        yield f"{name} >= {text}", 1, column.is_number ^ below if below else 0
        below |= column.cases[number]
    elements = {key: set(map(write_value, value)) for key, value in column.values.items() if is_list(value)}
    for element in set().union(*elements.values()):
        having = sum(column.cases[key] for key, texts in elements.items() if element in texts)
        yield f"{element} in {name}", 0, having
        yield f"{element} not in {name}", 1, sum(column.cases[key] for key in elements) ^ having


def _of_two_fields(low: _Column, high: _Column) -> Iterator[_Said]:
    less = _cases(map(operator.lt, low.numbers, high.numbers))
    yield f"{low.name} < {high.name}", _TWO_FIELDS, less
    above = low.is_number
    for number in low.ascending[:_LOWER_ENDS]:
        above ^= low.cases[number]
        yield f"{write_value(low.values[number])} < {low.name} < {high.name}", _CHAIN, less & above
    same = _cases(map(operator.eq, low.keys, high.keys))
    if low.name < high.name and same == _cases(map(operator.eq, low.numbers, high.numbers)):
        yield f"{low.name} == {high.name}", _TWO_FIELDS, same


def _cases(truths: Iterable[bool]) -> int:
    return int(bytes(truths)[::-1].translate(b"01".ljust(256)), 2)
