"""What explains a set of failures: the shortest predicate over a case's config that is true of them and of no other.

`alibi`, `new_decoder_architecture and multi_query`, `num_kv_heads < num_attention_heads and bias`. Pure: it is made of
configs and knows no family, no check and no adapter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_ATOMS = 3  # a longer predicate explains nothing any more
# Of so many atoms at most triples are tried: those that come nearest alone. Pairs are tried of all.
_MOST_IN_TRIPLES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A predicate, and how far it holds.

    Attributes:
        text: as one reads it.
        failing: how many cases fail.
        caught: of how many of these it is true.
        passing: how many cases pass.
        spared: of how many of these it is false.
    """

    text: str
    failing: int
    caught: int
    passing: int
    spared: int

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


@dataclass(frozen=True, slots=True)
class _Predicate:
    """A predicate, and of which cases it is true: a bit for each."""

    text: str
    atoms: int
    weight: int
    true: int

    @property
    def order(self) -> tuple[int, int, str]:
        """The shortest first, then the plainest, then by the alphabet, so that the same configs give the same rule."""
        return self.atoms, self.weight, self.text


def explain(
    failing: Sequence[Mapping[str, Any]], passing: Sequence[Mapping[str, Any]], *, flags: Iterable[str] = ()
) -> Rule | None:
    """The shortest predicate that tells the failing configs from the passing ones; where none does, the one with the
    fewest exceptions.

    Args:
        failing: the configs of the cases that fail.
        passing: those of the cases that the same check passes.
        flags: the fields that are preferred to others that tell the same.

    Returns:
        The rule; None where nothing fails, or where nothing passes and so nothing is to be told apart.
    """
    if not failing or not passing:
        return None
    configs = [*failing, *passing]
    wanted = (1 << len(failing)) - 1
    everything = (1 << len(configs)) - 1
    best: _Predicate | None = None
    fewest = len(configs) + 1
    for predicates in _by_length(_atoms(configs, frozenset(flags)), wanted, everything):
        for one in sorted(predicates, key=lambda predicate: predicate.order):
            exceptions = (one.true ^ wanted).bit_count()
            if exceptions < fewest:
                best, fewest = one, exceptions
        if fewest == 0:
            break
    if best is None:
        return None
    caught = (best.true & wanted).bit_count()
    spared = (~best.true & everything & ~wanted).bit_count()
    return Rule(text=best.text, failing=len(failing), caught=caught, passing=len(passing), spared=spared)


def _by_length(atoms: Sequence[_Predicate], wanted: int, everything: int) -> Iterator[list[_Predicate]]:
    """Every predicate that is tried: single ones, pairs with `and` and with `or`, and threes with `and`."""
    yield list(atoms)
    pairs = list(itertools.combinations(atoms, 2))
    # What is no longer than it must be says something with each of its parts.
    ands = [_joined("and", pair) for pair in pairs]
    ors = [_joined("or", pair) for pair in pairs]
    yield [*_more(ands, pairs), *_more(ors, pairs)]
    # A conjunction can only be exact if each of its parts is true of every failing case.
    needed = [one for one in atoms if one.true & wanted == wanted and one.true != everything]
    nearest = sorted(needed, key=lambda one: ((one.true ^ wanted).bit_count(), one.order))[:_MOST_IN_TRIPLES]
    yield [_joined("and", three) for three in itertools.combinations(nearest, MOST_ATOMS)]


def _more(joined: Sequence[_Predicate], pairs: Sequence[tuple[_Predicate, ...]]) -> list[_Predicate]:
    """Those that are true of other cases than each of their parts alone."""
    return [one for one, pair in zip(joined, pairs, strict=True) if all(one.true != part.true for part in pair)]


def _joined(word: str, parts: Sequence[_Predicate]) -> _Predicate:
    parts = sorted(parts, key=lambda part: part.text.removeprefix("not "))
    true = parts[0].true
    for part in parts[1:]:
        true = true & part.true if word == "and" else true | part.true
    return _Predicate(
        text=f" {word} ".join(part.text for part in parts),
        atoms=len(parts),
        weight=sum(part.weight for part in parts) + (word == "or"),
        true=true,
    )


# --- what is said of one config -------------------------------------------------------------------------------------

_ABSENT = object()
_FLAG, _FIELD, _TWO_FIELDS = 0, 2, 3  # how plain it is


def _atoms(configs: Sequence[Mapping[str, Any]], flags: frozenset[str]) -> list[_Predicate]:
    """Everything that is said of one field or of two numbers; of those that are true of the same cases the plainest."""
    found: dict[int, _Predicate] = {}
    everything = (1 << len(configs)) - 1
    for text, weight, holds in _said(configs, flags):
        true = sum(1 << place for place, config in enumerate(configs) if holds(config))
        one = _Predicate(text=text, atoms=1, weight=weight, true=true)
        if true not in (0, everything) and (true not in found or one.order < found[true].order):
            found[true] = one
    return sorted(found.values(), key=lambda one: one.order)


def _said(configs: Sequence[Mapping[str, Any]], flags: frozenset[str]) -> Iterator[tuple[str, int, Any]]:
    names = sorted({name for config in configs for name in config})
    numbers = []
    for name in names:
        values = {repr(config.get(name, _ABSENT)): config.get(name, _ABSENT) for config in configs}
        plain = _FLAG if name in flags else _FIELD
        known = [value for value in values.values() if value is not _ABSENT]
        if all(isinstance(value, bool) or value is None for value in known):
            yield from _of_a_switch(name, plain)
        else:
            yield from _of_values(name, known, plain)
        if any(_is_number(value) for value in known):
            numbers.append(name)
            yield from _of_a_number(name, sorted({value for value in known if _is_number(value)}), plain)
    for one, other in itertools.combinations(numbers, 2):
        yield from _of_two_numbers(one, other)


def _of_a_switch(name: str, plain: int) -> Iterator[tuple[str, int, Any]]:
    yield name, plain, lambda config: config.get(name) is True
    yield f"not {name}", plain, lambda config: config.get(name, _ABSENT) is False
    yield f"{name} is None", plain + 1, lambda config: config.get(name, _ABSENT) is None


def _of_values(name: str, values: Sequence[Any], plain: int) -> Iterator[tuple[str, int, Any]]:
    for value in values:
        spelt = repr(value)
        same, other = ("is", "is not") if value is None else ("==", "!=")
        yield f"{name} {same} {spelt}", plain, lambda config, spelt=spelt: repr(config.get(name, _ABSENT)) == spelt
        yield f"{name} {other} {spelt}", plain + 1, lambda config, spelt=spelt: repr(config.get(name, _ABSENT)) != spelt


def _of_a_number(name: str, values: Sequence[float], plain: int) -> Iterator[tuple[str, int, Any]]:
    for value in values[1:]:

        def less(config: Mapping[str, Any], value: float = value) -> bool:
            return _is_number(config.get(name)) and config[name] < value

        def least(config: Mapping[str, Any], value: float = value) -> bool:
            return _is_number(config.get(name)) and config[name] >= value

        yield f"{name} < {value!r}", plain + 1, less
        yield f"{name} >= {value!r}", plain + 1, least


def _of_two_numbers(one: str, other: str) -> Iterator[tuple[str, int, Any]]:
    def both(config: Mapping[str, Any]) -> bool:
        return _is_number(config.get(one)) and _is_number(config.get(other))

    yield f"{one} < {other}", _TWO_FIELDS, lambda config: both(config) and config[one] < config[other]
    yield f"{one} == {other}", _TWO_FIELDS, lambda config: both(config) and config[one] == config[other]
    yield f"{other} < {one}", _TWO_FIELDS, lambda config: both(config) and config[other] < config[one]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
