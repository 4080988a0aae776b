"""Describe what may vary in a family: fields with finitely many values; one value of each makes a case.

A choice is a tuple of places, one for each field. Place 0 is the field's plainest value, so a choice that is smaller,
field by field, is a simpler case: shrinking goes by this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.cases.spec import SHORTEST, WORKING_DTYPES, CaseSpec, Depth
from verifier.errors import UsageError
from verifier.family import Family, Fuzzes
from verifier.output.text import nearest
from verifier.output.text import value as spelt

Choice = tuple[int, ...]

# The fields of a case that do not depend on the family: its inputs, and how large its weights are. Lengths are near the
# tiny dims and far from them: 263 is beyond 256, up to which bfloat16 counts exactly.
INPUTS: Mapping[str, tuple[Any, ...]] = {
    "batch": (5, 1, 2, 3),
    "length": (11, SHORTEST, 8, 17, 33, 70),
    "long": (97, 1, 12, 33, 150, 263),
    "padding": (0, 1, 2, 3, 4, 5),
    "scale": (1.0, 0.5, 2.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing that varies.

    Attributes:
        name: the name of a flag, of a dim, or of a field of `CaseSpec`.
        values: its values, the plainest first.
        of_case: whether it is a field of the case, and not of the config.
        moved: whether it was fixed to a value that is not its plainest.
    """

    name: str
    values: tuple[Any, ...]
    of_case: bool = False
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

    def spec(self, choice: Choice, *, depth: Depth = Depth.PAIRWISE) -> CaseSpec:
        """Make the case of a choice.

        Args:
            choice: the place of each field's value among the values of the field.
            depth: says which checks run on the case if it is valid.

        Returns:
            The case; it is marked as invalid, with the reason, if the family refuses its configuration.
        """
        values = self.values(choice)
        own = {field.name: values.pop(field.name) for field in self.fields if field.of_case}
        chosen = self.family.fuzzed_config(values) if isinstance(self.family, Fuzzes) else values
        config = {**self.family.dims(), **chosen}
        reason = self.family.refusal(config)
        return CaseSpec(
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
    others = tuple(name for name in family.attentions if name != family.reference_attention)
    own = {**INPUTS, "attention": (None, *others)}
    fields += [Field(name=name, values=choices, of_case=True) for name, choices in own.items()]
    return Space(
        family=family,
        reference=reference,
        fields=tuple(_fixed(fields, fixed or {})),
        seed=seed,
        device=device,
        dtypes=tuple(dtypes),
    )


def _fixed(fields: Sequence[Field], fixed: Mapping[str, str]) -> list[Field]:
    names = [field.name for field in fields]
    for name in fixed:
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
        made.append(Field(name=field.name, values=kept, of_case=field.of_case, moved=moved))
    return made
