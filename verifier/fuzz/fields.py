"""Describe what may vary in a family: fields with finitely many values; one value of each makes a case.

A choice is a tuple of places, one for each field. Place 0 is the field's plainest value, so a choice that is smaller,
field by field, is a simpler case: shrinking goes by this. The axes of circumstances are fields like any other, but not
every choice of them is a circumstance: `Space.mended` gives the nearest choice that is one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verifier.cases.circumstances import AXES, PLAIN, THEN, Circumstance, complete, differences, is_allowed, is_value
from verifier.cases.dealing import WITH_GRADIENTS, can_be_called, dtypes_of_circumstances
from verifier.cases.lengths import shorten_inputs
from verifier.cases.spec import SEEDS, WORKING_DTYPES, CaseSpec, Depth
from verifier.errors import UsageError
from verifier.family import Family, Fuzzes
from verifier.output.text import nearest
from verifier.output.text import value as spelt
from verifier.reference.acceptance import refusal_of

Choice = tuple[int, ...]

_MOVED = 2**20  # by less than this a seed is moved for another circumstance

# The fields of a case that do not depend on the family: its inputs, and how large its weights are. How long a text is
# in a circumstance is an axis of that. Lengths of the long text are near the tiny dims and far from them: 263 is beyond
# 256, up to which bfloat16 counts exactly.
INPUTS: Mapping[str, tuple[Any, ...]] = {
    "batch": (5, 1, 2, 3),
    "long": (97, 1, 12, 33, 150, 263),
    "padding": (0, 1, 2, 3, 4, 5),
    "scale": (1.0, 0.5, 2.0),
}


# What else happens after the history, one after the other: what is wrong only after both is in no covering of values.
_HISTORY, _NOTHING = "history", "nothing"
STEPS = ("then", "lastly")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing that varies.

    Attributes:
        name: the name of a flag, of a dim, of a field of `CaseSpec`, or of an axis of circumstances.
        values: its values, the plainest first.
        of_case: whether it is a field of the case, and not of the config.
        is_axis: whether it is an axis of circumstances, or a further step of a history; these belong to the case.
        moved: whether it was fixed to a value that is not its plainest.
    """

    name: str
    values: tuple[Any, ...]
    of_case: bool = False
    is_axis: bool = False
    moved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Everything that varies in a family.

    Attributes:
        family: the family.
        reference: the family's name, or `module:object`, by which a worker finds it.
        fields: the fields, in the order in which shrinking makes them plain.
        seed: of weights and inputs.
        device: the device that cases run on.
        dtypes: the working dtypes in which precision is judged.
    """

    family: Family
    reference: str
    fields: tuple[Field, ...]
    seed: int = 0
    device: str = "cpu"
    dtypes: tuple[str, ...] = WORKING_DTYPES

    @property
    def plainest(self) -> Choice:
        """The choice of the plainest value of every field."""
        return (0,) * len(self.fields)

    def values(self, choice: Choice) -> dict[str, Any]:
        """Give the values of a choice, by the name of the field."""
        return {field.name: field.values[place] for field, place in zip(self.fields, choice, strict=True)}

    def differing(self, choice: Choice) -> dict[str, Any]:
        """Give the values of a choice that are not the plainest, including those that a field was fixed to."""
        chosen = zip(self.fields, choice, strict=True)
        return {field.name: field.values[place] for field, place in chosen if place or field.moved}

    def goes_together(self, choice: Choice) -> bool:
        """Whether the values of a choice go together as a circumstance in which its model can be called."""
        return self.mended(choice) == choice

    def mended(self, choice: Choice, first: Sequence[int] = ()) -> Choice:
        """Give the nearest choice whose values go together as a circumstance in which its model can be called.

        Args:
            choice: the place of each field's value.
            first: the fields, by number, whose values are kept before those of others.
        """
        axes = {field.name: number for number, field in enumerate(self.fields) if field.name in AXES}
        if not axes:
            return choice
        case = self._case(choice, Depth.PAIRWISE)

        def can_be(circumstance: Circumstance) -> bool:
            return is_allowed(circumstance) and (not case.valid or can_be_called(self.family, case, circumstance))

        wanted = self._circumstance(choice)
        if can_be(wanted):
            return choice
        needs = {axis: (*self.fields[number].values, wanted[axis]) for axis, number in axes.items()}
        kept_first = {_HISTORY if name in STEPS else name for name in (self.fields[number].name for number in first)}
        found: Circumstance = {}
        whole = complete(found, needs)
        assert whole is not None, "a space has a circumstance"
        for axis in sorted(axes, key=lambda axis: axis not in kept_first):
            part = {**found, axis: wanted[axis]}
            kept = {**whole, **part}
            candidate = kept if is_allowed(kept) else complete(part, needs)
            if candidate is not None and can_be(candidate):
                found, whole = part, candidate
        changed = {axis for axis in axes if whole[axis] != wanted[axis]}
        places = {axes[axis]: self.fields[axes[axis]].values.index(whole[axis]) for axis in changed}
        if _HISTORY in changed:
            places |= {number: 0 for number, field in enumerate(self.fields) if field.name in STEPS}
        return tuple(places.get(number, place) for number, place in enumerate(choice))

    def _circumstance(self, choice: Choice) -> Circumstance:
        """Give the value of each axis; the steps of a history are one value."""
        of_axes = [(field, place) for field, place in zip(self.fields, choice, strict=True) if field.is_axis]
        chosen = {field.name: field.values[place] for field, place in of_axes}
        happened = (
            [chosen[_HISTORY], *(chosen.pop(name) for name in STEPS if name in chosen)] if _HISTORY in chosen else []
        )
        happened = [one for one in happened if one not in (_NOTHING, PLAIN[_HISTORY])]
        return {**chosen, _HISTORY: THEN.join(happened)} if happened else chosen

    def without_gaps(self, choice: Choice) -> Choice:
        """Give the choice of the same circumstance in which every step of the history but the last has a next one."""
        numbers = {field.name: number for number, field in enumerate(self.fields)}
        if not numbers.keys() >= set(STEPS):
            return choice
        values = [self.fields[numbers[name]].values[choice[numbers[name]]] for name in (_HISTORY, *STEPS)]
        happened = [one for one in values if one not in (_NOTHING, PLAIN[_HISTORY])]
        filled = dict(zip((_HISTORY, *STEPS), happened, strict=False))
        places = {
            numbers[name]: self.fields[numbers[name]].values.index(filled[name]) if name in filled else 0
            for name in (_HISTORY, *STEPS)
        }
        return tuple(places.get(number, place) for number, place in enumerate(choice))

    def spec(self, choice: Choice, *, depth: Depth = Depth.PAIRWISE) -> CaseSpec:
        """Make the case of a choice, which is looked at in the plainest circumstance with gradients and in its own.

        Args:
            choice: the place of each field's value among the values of the field.
            depth: says which checks run on the case if it is valid.

        Returns:
            The case; it is marked as invalid, with the reason, if the family refuses its configuration.
        """
        case = self._case(choice, depth)
        axes = [field for field in self.fields if field.name in AXES]
        if not case.valid or not axes:
            return case
        circumstance = differences(self._circumstance(choice))
        found = [circumstance]
        with_gradients = differences(WITH_GRADIENTS)
        if circumstance != with_gradients and all(WITH_GRADIENTS[field.name] in field.values for field in axes):
            found.insert(0, with_gradients)
        # A case's id does not count its circumstances: with others it has other weights and inputs.
        moved = zlib.crc32(repr(sorted(circumstance.items())).encode()) % _MOVED if circumstance else 0
        return replace(case, seed=(case.seed + moved) % SEEDS, circumstances=tuple(found))

    def _case(self, choice: Choice, depth: Depth) -> CaseSpec:
        values = self.values(choice)
        of_case = [(field, values.pop(field.name)) for field in self.fields if field.of_case]
        own = {field.name: value for field, value in of_case if not field.is_axis}
        chosen = self.family.fuzzed_config(values) if isinstance(self.family, Fuzzes) else values
        config = {**self.family.dims(), **chosen}
        reason = refusal_of(self.family)(config)
        spec = CaseSpec(
            family=self.reference,
            config=config,
            valid=reason is None,
            reason=reason,
            seed=self.seed,
            device=self.device,
            dtypes=self.dtypes,
            depth=depth,
            **own,
        )
        return shorten_inputs(self.family, spec)


def space(
    family: Family,
    reference: str,
    *,
    fixed: Mapping[str, str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtypes: Sequence[str] = WORKING_DTYPES,
) -> Space:
    """Describe what varies in a family: its flags, the fields that it declares besides (`Fuzzes`), and the inputs.

    Args:
        family: the family.
        reference: the family's name, or `module:object`, by which a worker finds it.
        fixed: the text of the only value of each field that is fixed: `{"alibi": "true"}`.
        seed: of weights and inputs.
        device: the device that cases run on.
        dtypes: the working dtypes in which precision is judged.

    Raises:
        UsageError: a fixed field, or its value, does not exist.
    """
    more = family.fuzzed() if isinstance(family, Fuzzes) else {}
    values: dict[str, tuple[Any, ...]] = {name: tuple(choices) for name, choices in {**family.flags(), **more}.items()}
    fields = [Field(name=name, values=choices) for name, choices in values.items()]
    fields += [Field(name=name, values=choices, of_case=True) for name, choices in INPUTS.items()]
    history = (fixed or {}).get(_HISTORY)
    if history is None:
        further = (_NOTHING, *(value for value in AXES[_HISTORY] if value != PLAIN[_HISTORY]))
        fields += [Field(name=name, values=further, of_case=True, is_axis=True) for name in reversed(STEPS)]
    of_axes = {name: _values_of(name, family, dtypes) for name in AXES}
    if history is not None and is_value(_HISTORY, history):
        of_axes[_HISTORY] = tuple(dict.fromkeys([*of_axes[_HISTORY], history]))
    fields += [Field(name=name, values=values, of_case=True, is_axis=True) for name, values in of_axes.items()]
    kept = tuple(_fixed(fields, fixed or {}))
    # What is fixed comes first, because a search among the other axes would find out last that it does not go together.
    only = {field.name: field.values[0] for field in kept if field.name in AXES and len(field.values) == 1}
    if complete(only, {field.name: field.values for field in kept if field.name in AXES}) is None:
        asked = ", ".join(f"{name}={text}" for name, text in (fixed or {}).items() if name in AXES)
        raise UsageError(f"--where: no circumstance is {asked}")
    return Space(
        family=family,
        reference=reference,
        fields=kept,
        seed=seed,
        device=device,
        dtypes=tuple(dtypes),
    )


def _values_of(axis: str, family: Family, dtypes: Sequence[str]) -> tuple[str, ...]:
    """List the values of an axis that the working dtypes, and the family's attention implementations, allow."""
    if axis == "attention" and len(family.attentions) < 2:
        return ("reference",)
    if axis == "dtype":
        return tuple(value for value in AXES[axis] if value in dtypes_of_circumstances(dtypes))
    return tuple(AXES[axis])


def _fixed(fields: Sequence[Field], fixed: Mapping[str, str]) -> list[Field]:
    names = [field.name for field in fields]
    for name in fixed:
        if name in STEPS:
            raise UsageError(
                f"--where: {name!r} is a step of the history, which is fixed whole: history=edited+backward"
            )
        if name not in names:
            raise UsageError(f"--where: there is no field {name!r} to fuzz{nearest(name, names)}")
    made = []
    for field in fields:
        wanted = fixed.get(field.name)
        kept = tuple(value for value in field.values if wanted is None or spelt(value).lower() == wanted.lower())
        if not kept:
            known = ", ".join(spelt(value) for value in field.values)
            raise UsageError(f"--where: {field.name} has no value {wanted!r} to fuzz; it has {known}")
        moved = spelt(kept[0]) != spelt(field.values[0])
        made.append(replace(field, values=kept, moved=moved))
    return made
