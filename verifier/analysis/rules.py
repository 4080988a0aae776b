"""What explains a set of failures: the shortest predicate over a case's config that is true of them and of no other.

`alibi`, `new_decoder_architecture and multi_query`, `bias and 1 < num_kv_heads < num_attention_heads`. Pure: it is
made of configs and knows no family, no check and no adapter.

A predicate is an integer with a bit for each case, so that joining two of them and counting what they are true of is
one operation each, however many cases there are.
"""

from __future__ import annotations

import heapq
import itertools
import math
import operator
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any, Literal, TypeVar

_T = TypeVar("_T")

# A predicate has three atoms at most: a longer one explains nothing any more. Those that need not be exact are made of
# so many strong atoms, pairs of one of these and any other, nested ones around one of fewer. Exact ones start from so
# many that do half of the work.
_MOST_STRONG, _MOST_OUTSIDE, _MOST_THAT_DO_HALF, _MOST_IN_EXACT_THREES = 24, 8, 100, 40
# Of a field with more values only so many are spoken of as tell most, and as many whose absence does.
_FEW, _TELLING = 16, 4
_SMALL_VALUES = 4  # so many of a field's smallest values are the lower end of a chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A predicate, and how far it holds.

    Attributes:
        text: as one reads it.
        failing: how many cases fail.
        caught: of how many of these it is true.
        passing: how many cases pass.
        spared: of how many of these it is false.
        missed: which of the failing ones it is false of, as places in what `explain` was given. The order of the cases
            is no part of the rule, so that two rules are equal whichever these are.
        unjust: which of the passing ones it is true of, likewise.
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
        """Whether it is true of every failing case, and of no other."""
        return self.caught == self.failing and self.spared == self.passing

    @property
    def words(self) -> str:
        """The rule with its support; of one that is not exact, that it is not."""
        return f"{self.text} ({self.support})" if self.exact else f"nearly {self.text} ({self.support})"

    @property
    def support(self) -> str:
        """`fails 24 of 24, passes 128 of 128`: of those of which it is true, and of which it is false."""
        true = self.caught + self.passing - self.spared
        false = self.spared + self.failing - self.caught
        return f"fails {self.caught:,} of {true:,}, passes {self.spared:,} of {false:,}"


def explain(
    failing: Sequence[Mapping[str, Any]], passing: Sequence[Mapping[str, Any]], *, flags: Iterable[str] = ()
) -> Rule | None:
    """The shortest predicate that tells the failing configs from the passing ones; where none does, the one with the
    fewest exceptions.

    Args:
        failing: the configs of the cases that fail.
        passing: those of the cases that the same check passes.
        flags: the fields that are preferred to others that tell the same. A mapping says their values too, the
            plainest first, which is the one of a config that does not name the flag.

    Returns:
        The rule; None where nothing fails, where nothing passes and so nothing is to be told apart, and where
        nothing that can be said of the configs hits better than chance.
    """
    if not failing or not passing:
        return None
    sides = _Sides(len(failing), len(passing))
    atoms = _atoms([*failing, *passing], flags, sides)
    best: _Joint | None = None
    for search in (_alone, _pair, _three):
        # One that is longer and no better has a part which says nothing.
        most = len(failing) + len(passing) if best is None else sides.exceptions(best.true) - 1
        if most < 0:
            break
        best = search(atoms, sides, most) or best
    return None if best is None else sides.rule(best)


# --- predicates ------------------------------------------------------------------------------------------------------


class _Sides:
    """How many cases there are of each kind: the bits of a predicate are theirs, those of the failing cases first."""

    def __init__(self, failing: int, passing: int) -> None:
        self.failing, self.passing = failing, passing
        self.everything = (1 << failing + passing) - 1
        self.unwanted = (1 << passing) - 1
        self.wanted = self.everything ^ self.unwanted

    def exceptions(self, true: int) -> int:
        """How many failing cases it is false of, and passing ones true."""
        return (true ^ self.wanted).bit_count()

    def counts(self, true: int) -> tuple[int, int]:
        """How many failing cases it is true of, and how many passing ones."""
        unjust = (true & self.unwanted).bit_count()
        return true.bit_count() - unjust, unjust

    def tells(self, caught: int, unjust: int) -> int:
        """How much better than chance that is: the shares of both kinds, one less the other, times a constant.

        Unlike the number of exceptions it does not favour what is true of nearly nothing where few cases fail.
        """
        return caught * self.passing - unjust * self.failing

    def rule(self, predicate: _Joint) -> Rule:
        missed = _places((predicate.true & self.wanted ^ self.wanted) >> self.passing, self.failing)
        unjust = _places(predicate.true & self.unwanted, self.passing)
        return Rule(
            text=predicate.text,
            failing=self.failing,
            caught=self.failing - len(missed),
            passing=self.passing,
            spared=self.passing - len(unjust),
            missed=missed,
            unjust=unjust,
        )


def _places(true: int, cases: int) -> tuple[int, ...]:
    return tuple(place for place, bit in enumerate(f"{true:0{cases}b}") if bit == "1")


@dataclass(frozen=True, slots=True)
class _Atom:
    """What is said of one field, or of two numbers.

    Attributes:
        text: as one reads it.
        weight: how plain it is: the less the plainer.
        about: the field, by which the parts of a longer predicate are put in order.
        true: of which cases it is true.
        caught: how many of them fail.
        unjust: how many of them pass.
        tells: as `_Sides.tells` counts.
    """

    text: str
    weight: int
    about: str
    true: int
    caught: int
    unjust: int
    tells: int

    @property
    def strength(self) -> tuple[int, int, str]:
        """What tells most first, then the plainest, then by the alphabet: the same configs give the same rule."""
        return -self.tells, self.weight, self.text


_Word = Literal["and", "or"]
_JOIN: Mapping[_Word, Callable[[int, int], int]] = {"and": operator.and_, "or": operator.or_}


@dataclass(frozen=True, slots=True)
class _Joint:
    """Parts, one or more, with a word between them."""

    word: _Word
    parts: tuple[_Atom | _Joint, ...]

    @property
    def weight(self) -> int:
        return sum(part.weight for part in self.parts) + (self.word == "or")

    @property
    def true(self) -> int:
        return reduce(_JOIN[self.word], (part.true for part in self.parts))

    @property
    def text(self) -> str:
        atoms = [part for part in self.parts if isinstance(part, _Atom)]
        texts = [one.text for one in sorted(atoms, key=lambda one: (one.about, one.text.removeprefix("not ")))]
        texts += [f"({part.text})" for part in self.parts if isinstance(part, _Joint)]
        return f" {self.word} ".join(texts)


def _plainest(joints: Sequence[_Joint]) -> _Joint | None:
    """Of equally good ones: the plainest, then the first by the alphabet."""
    least = min((one.weight for one in joints), default=0)
    return min((one for one in joints if one.weight == least), key=lambda one: one.text, default=None)


class _Fewest:
    """Of all that are offered those with the fewest exceptions, and with no more than so many."""

    def __init__(self, sides: _Sides, most: int) -> None:
        self._sides, self._fewest = sides, most
        self.joints: list[_Joint] = []

    def offer(self, true: int, word: _Word, *parts: _Atom | _Joint) -> None:
        exceptions = self._sides.exceptions(true)
        # What hits no better than chance explains nothing, however few cases fail.
        if exceptions > self._fewest or self._sides.tells(*self._sides.counts(true)) <= 0:
            return
        if exceptions < self._fewest:
            self._fewest, self.joints = exceptions, []
        self.joints.append(_Joint(word, parts))


# --- which are tried: each gives one with at most so many exceptions, or none ----------------------------------------


def _alone(atoms: Sequence[_Atom], sides: _Sides, most: int) -> _Joint | None:
    found = _Fewest(sides, most)
    for one in atoms:
        found.offer(one.true, "and", one)
    return _plainest(found.joints)


def _pair(atoms: Sequence[_Atom], sides: _Sides, most: int) -> _Joint | None:
    exact = [*_both(atoms, sides, sides.wanted), *_either(atoms, sides, sides.unwanted)]
    if exact:
        return _plainest(exact)
    found = _Fewest(sides, most)
    for place, one in enumerate(atoms[:_MOST_STRONG]):
        for other in atoms[place + 1 :]:
            found.offer(one.true & other.true, "and", one, other)
            found.offer(one.true | other.true, "or", one, other)
    return _plainest(found.joints)


def _three(atoms: Sequence[_Atom], sides: _Sides, most: int) -> _Joint | None:
    """Never `a or b or c`: any three failing cases have such a rule."""
    needed = [one for one in atoms if one.caught == sides.failing]
    exact = _Fewest(sides, 0)
    _offer_threes(needed[:_MOST_IN_EXACT_THREES], exact)
    joints = [*exact.joints, *_nested(atoms, sides)]
    if joints:
        return _plainest(joints)
    found = _Fewest(sides, most)
    _offer_threes(atoms[:_MOST_STRONG], found)
    _offer_nested(atoms, sides, found)
    return _plainest(found.joints)


def _offer_threes(atoms: Sequence[_Atom], found: _Fewest) -> None:
    for one, other, third in itertools.combinations(atoms, 3):
        found.offer(one.true & other.true & third.true, "and", one, other, third)


def _nested(atoms: Sequence[_Atom], sides: _Sides) -> Iterator[_Joint]:
    """The exact ones of `a or (b and c)` and of `a and (b or c)`."""
    for one in [one for one in atoms if not one.unjust][:_MOST_STRONG]:
        for pair in _both(atoms, sides, sides.wanted & ~one.true):
            yield _Joint("or", (one, pair))
    for one in [one for one in atoms if one.caught == sides.failing][:_MOST_STRONG]:
        for pair in _either(atoms, sides, sides.unwanted & one.true):
            yield _Joint("and", (one, pair))


def _offer_nested(atoms: Sequence[_Atom], sides: _Sides, found: _Fewest) -> None:
    """The same that need not be exact: whatever a strong atom leaves to decide, pairs of what tells most of that."""
    nestings: tuple[tuple[_Word, _Word], ...] = (("or", "and"), ("and", "or"))
    for one, (outer, inner) in itertools.product(atoms[:_MOST_OUTSIDE], nestings):
        left = one.true if outer == "and" else one.true ^ sides.everything
        for pair in itertools.combinations(_strongest(atoms, sides, left), 2):
            nested = _Joint(inner, pair)
            true = _JOIN[outer](one.true, nested.true)
            if true != nested.true:
                found.offer(true, outer, one, nested)


def _strongest(atoms: Sequence[_Atom], sides: _Sides, cases: int) -> list[_Atom]:
    """What tells most where there are these cases only."""
    failing, passing = sides.counts(cases)

    def strength(one: _Atom) -> tuple[int, int, str]:
        caught, unjust = sides.counts(one.true & cases)
        return unjust * failing - caught * passing, one.weight, one.text

    return heapq.nsmallest(_MOST_STRONG, atoms, strength)


def _both(atoms: Iterable[_Atom], sides: _Sides, wanted: int) -> Iterator[_Joint]:
    """Pairs with `and` that are true of those failing cases at least, and of no passing one.

    One of the two spares at least half of the passing cases, so the search starts from those.
    """
    needed = sorted((one for one in atoms if one.true & wanted == wanted), key=lambda one: one.unjust)
    for place, one in enumerate(needed[:_MOST_THAT_DO_HALF]):
        if 2 * one.unjust > sides.passing:
            return
        for other in needed[place + 1 :]:
            if not one.true & other.true & sides.unwanted:
                yield _Joint("and", (one, other))


def _either(atoms: Iterable[_Atom], sides: _Sides, unwanted: int) -> Iterator[_Joint]:
    """Pairs with `or` that are true of every failing case, and of none of those passing ones.

    One of the two catches at least half of the failing cases, so the search starts from those.
    """
    enough = sorted((one for one in atoms if not one.true & unwanted), key=lambda one: -one.caught)
    for place, one in enumerate(enough[:_MOST_THAT_DO_HALF]):
        if 2 * one.caught < sides.failing:
            return
        for other in enough[place + 1 :]:
            if (one.true | other.true) & sides.wanted == sides.wanted:
                yield _Joint("or", (one, other))


# --- what is said of one config --------------------------------------------------------------------------------------

_FLAG, _FIELD, _TWO_FIELDS, _CHAIN = 0, 2, 3, 5  # how plain it is


@dataclass(frozen=True, slots=True)
class _Said:
    """Something that can be said of a config: its text, how plain it is, which field it is about, of which cases it is
    true."""

    text: str
    weight: int
    about: str
    true: int

    @property
    def order(self) -> tuple[int, str]:
        """The plainest first."""
        return self.weight, self.text


def _atoms(configs: Sequence[Mapping[str, Any]], flags: Iterable[str], sides: _Sides) -> list[_Atom]:
    """Everything that is said of one config, the strongest first; of what is true of the same cases the plainest."""
    columns = _columns(configs, flags, sides)
    found: dict[int, _Said] = {}
    for said in itertools.chain(*(column.said() for column in columns), _of_two_numbers(columns)):
        if said.true not in found or said.order < found[said.true].order:
            found[said.true] = said
    for nothing in (0, sides.everything):
        found.pop(nothing, None)
    atoms = []
    for said in found.values():
        caught, unjust = sides.counts(said.true)
        tells = sides.tells(caught, unjust)
        atoms.append(_Atom(said.text, said.weight, said.about, said.true, caught, unjust, tells))
    return sorted(atoms, key=lambda one: one.strength)


def _columns(configs: Sequence[Mapping[str, Any]], flags: Iterable[str], sides: _Sides) -> list[_Column]:
    plainest = {name: values[0] for name, values in flags.items() if values} if isinstance(flags, Mapping) else {}
    preferred = frozenset(flags)
    columns = []
    for name in sorted({name for config in configs for name in config}):
        default = plainest.get(name, _ABSENT)
        values = [config.get(name, default) for config in configs]
        columns.append(_Column(name, _FLAG if name in preferred else _FIELD, values, sides))
    return columns


def _of_two_numbers(columns: Iterable[_Column]) -> Iterator[_Said]:
    for one, other in itertools.combinations([column for column in columns if column.numbers], 2):
        less = _bits(map(operator.lt, one.as_numbers, other.as_numbers))
        equal = _bits(map(operator.eq, one.as_numbers, other.as_numbers))
        more = one.is_number & other.is_number & ~(less | equal)
        yield _Said(f"{one.name} == {other.name}", _TWO_FIELDS, one.name, equal)
        for low, high, true in ((one, other, less), (other, one, more)):
            yield _Said(f"{low.name} < {high.name}", _TWO_FIELDS, low.name, true)
            for number, above in low.above_small:
                yield _Said(f"{number} < {low.name} < {high.name}", _CHAIN, low.name, true & above)


def _bits(truths: Iterable[bool]) -> int:
    return int(bytes(truths).translate(b"01".ljust(256)), 2)


# --- one field -------------------------------------------------------------------------------------------------------


class _Absent:
    """Stands for the value of a field that a config does not name."""

    def __repr__(self) -> str:
        return "absent"  # as no value is spelt: text has quotes


_ABSENT = _Absent()


class _Column:
    """One field of every config: its distinct values in order, and which of them each case has.

    Numbers come first and ascend, so that whatever is said of the value is true of a range of places in that order.

    Attributes:
        name: the field's.
        numbers: how many of the values are numbers.
    """

    def __init__(self, name: str, plain: int, values: Sequence[Any], sides: _Sides) -> None:
        nested = any(issubclass(kind, list | tuple | Mapping) for kind in set(map(type, values)))
        spelt = list(map(_spelt if nested else repr, values))
        distinct = dict(zip(spelt, values, strict=True))
        numbers = [text for text, value in distinct.items() if _is_number(value)]
        others = sorted(distinct.keys() - set(numbers))
        self._texts = [*sorted(numbers, key=lambda text: (distinct[text], text)), *others]
        self._values = [distinct[text] for text in self._texts]
        self.name, self.numbers = name, len(numbers)
        self._plain, self._everything = plain, sides.everything
        place_of = {text: place for place, text in enumerate(self._texts)}
        self._places = [place_of[text] for text in spelt]  # case by case
        self._failing, self._passing = Counter(self._places[: sides.failing]), Counter(self._places[sides.failing :])
        self._tells = [sides.tells(self._failing[place], self._passing[place]) for place in place_of.values()]
        # Where a number begins that is greater than the one before: 1 and 1.0 are two values and one number.
        self._starts = [
            place
            for place, value in enumerate(self._values[: self.numbers])
            if not place or value != self._values[place - 1]
        ]

    def said(self) -> Iterator[_Said]:
        """What is said of this field alone."""
        sayings = [*self._of_values(), *self._of_cuts()]
        for one, true in zip(sayings, self._true_of([one.of for one in sayings]), strict=True):
            true = true ^ self._everything if one.otherwise else true
            yield _Said(one.text, self._plain + one.weight, self.name, true)
        yield from self._of_elements()

    # --- as numbers

    @cached_property
    def is_number(self) -> int:
        """Which cases have a number there."""
        return self._true_of([range(self.numbers)])[0]

    @cached_property
    def as_numbers(self) -> Sequence[float]:
        """Each case's number; what is none is neither less than another nor equal to it."""
        table = [*self._values[: self.numbers], *([math.nan] * (len(self._values) - self.numbers))]
        return [table[place] for place in self._places]

    @cached_property
    def above_small(self) -> Sequence[tuple[str, int]]:
        """Each of the field's smallest values, and which cases have a greater number."""
        starts = self._starts[: _SMALL_VALUES + 1]
        above = self._true_of([range(start, self.numbers) for start in starts[1:]])
        return [(self._texts[start], true) for start, true in zip(starts, above, strict=False)]

    # --- in words

    def _of_values(self) -> Iterator[_Saying]:
        switch = all(value is None or isinstance(value, bool | _Absent) for value in self._values)
        for place in _telling(range(len(self._values)), self._tells.__getitem__):
            value, text, here = self._values[place], self._texts[place], range(place, place + 1)
            if isinstance(value, _Absent):
                continue
            if value is None or isinstance(value, bool):
                plainly = (self.name if value else f"not {self.name}") if switch and value is not None else None
                yield _Saying(plainly or f"{self.name} is {text}", 0, here)
                yield _Saying(f"{self.name} is not {text}", 1, here, otherwise=True)
            else:
                longer = int(_is_list(value))  # it says more which element it is that matters
                yield _Saying(f"{self.name} == {text}", longer, here)
                yield _Saying(f"{self.name} != {text}", longer + 1, here, otherwise=True)

    def _of_cuts(self) -> Iterator[_Saying]:
        for cut in self._cuts():
            yield _Saying(f"{self.name} < {self._texts[cut]}", 1, range(cut))
            yield _Saying(f"{self.name} >= {self._texts[cut]}", 1, range(cut, self.numbers))

    def _of_elements(self) -> Iterator[_Said]:
        lists = {place: set(map(_spelt, value)) for place, value in enumerate(self._values) if _is_list(value)}

        def tells(element: str) -> int:
            return sum(self._tells[place] for place, elements in lists.items() if element in elements)

        for element in _telling(sorted(set().union(*lists.values())), tells):
            having = {place for place, elements in lists.items() if element in elements}
            for text, weight, places in (("in", 0, having), ("not in", 1, lists.keys() - having)):
                true = _bits(place in places for place in self._places)
                yield _Said(f"{element} {text} {self.name}", self._plain + weight, self.name, true)

    def _cuts(self) -> Sequence[int]:
        """Where the numbers are cut in two: everywhere, if they are few; else where it tells most, and as near as it
        goes to all failing and to all passing cases: what is exact with another cut is so with one of these."""
        starts = self._starts
        if len(starts) <= _FEW:
            return starts[1:]
        below = [0, *itertools.accumulate(self._tells)]
        cuts = set(_telling(starts[1:], below.__getitem__))
        for side in (self._failing, self._passing):
            places = [place for place in side if place < self.numbers]
            if places:
                lowest, above = bisect_right(starts, min(places)) - 1, bisect_right(starts, max(places))
                cuts.update(starts[lowest : lowest + 1] + starts[above : above + 1])
        return sorted(cuts - {0})

    def _true_of(self, ranges: Sequence[range]) -> list[int]:
        """Of which cases each is true that is said of these values.

        The places between two ends of ranges are the same to all of them, and so few that one byte tells them apart.
        """
        ends = sorted({end for one in ranges for end in (one.start, one.stop)})
        between = [bisect_right(ends, place) for place in range(len(self._values))]
        coarse = bytes(map(between.__getitem__, self._places))

        def bits(one: range) -> int:
            low, high = bisect_right(ends, one.start), bisect_right(ends, one.stop)
            return int(coarse.translate((b"0" * low + b"1" * (high - low)).ljust(256, b"0")), 2)

        return [bits(one) for one in ranges]


@dataclass(frozen=True, slots=True)
class _Saying:
    """What can be said of a field's value.

    Attributes:
        text: as one reads it.
        weight: how much less plain it is than the plainest.
        of: the values that it is true of, as places in the column's order.
        otherwise: whether it is true of all others instead.
    """

    text: str
    weight: int
    of: range
    otherwise: bool = False


def _telling(candidates: Sequence[_T], tells: Callable[[_T], int]) -> Sequence[_T]:
    """Those whose presence tells most and those whose absence does, in order; all, if they are few."""
    if len(candidates) <= _FEW:
        return candidates
    places = range(len(candidates))
    worth = list(map(tells, candidates)).__getitem__
    chosen = {*heapq.nlargest(_TELLING, places, worth), *heapq.nsmallest(_TELLING, places, worth)}
    return [candidates[place] for place in sorted(chosen)]


def _spelt(value: Any) -> str:
    """As Python writes it, but a tuple like a list and a mapping in the order of its keys: what is equal is spelt
    alike, wherever it came from."""
    if _is_list(value):
        return f"[{', '.join(map(_spelt, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_spelt(value[key])}' for key in sorted(value, key=repr))}}}"
    return repr(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # NaN is none
