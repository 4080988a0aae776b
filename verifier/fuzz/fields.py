"""What may vary: fields with finitely many values, the plainest first; a choice of one value each is a case.

A choice is a tuple of places, one for each field. Place 0 is the plainest value, so that a smaller choice, field by
field, is a simpler case: this is what shrinking goes by.
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

# What of a case is no matter of the family: its inputs, and how large its weights are. Lengths are about the tiny dims
# and far from them: 263 is beyond 256, from where on bfloat16 does not count exactly.
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
        name: a flag, a dim, or a field of `CaseSpec`.
        values: the plainest first.
        of_case: whether it is the case's own, and not part of the config.
        moved: whether it was fixed to another value than its plainest.
    """

    name: str
    values: tuple[Any, ...]
    of_case: bool = False
    moved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Everything that varies in a family.

    Attributes:
        family: whose it is.
        reference: how a worker finds the family again.
        fields: in the order in which they are shrunk: what comes first is made plain first.
        seed: of weights and inputs.
        device: where cases run.
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
        return (0,) * len(self.fields)

    def values(self, choice: Choice) -> dict[str, Any]:
        """By field."""
        return {field.name: field.values[place] for field, place in zip(self.fields, choice, strict=True)}

    def differing(self, choice: Choice) -> dict[str, Any]:
        """The values that are not the plainest, those to which a field was fixed too."""
        chosen = zip(self.fields, choice, strict=True)
        return {field.name: field.values[place] for field, place in chosen if place or field.moved}

    def spec(self, choice: Choice, *, depth: Depth = Depth.PAIRWISE) -> CaseSpec:
        """The case of that choice."""
        values = self.values(choice)
        own = {field.name: values.pop(field.name) for field in self.fields if field.of_case}
        config = _config(self.family, values)
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
    """What varies in a family: its flags, what it says besides (`Fuzzes`), and the inputs.

    Args:
        family: whose flags they are.
        reference: how a worker finds the family again.
        fixed: fields that are to have one value alone, as text: `{"alibi": "true"}`.
        seed: of weights and inputs.
        device: where cases run.
        dtypes: the working dtypes in which precision is judged.

    Raises:
        UsageError: a field that is to be fixed, or its value, is not known.
    """
    more = family.fuzzed() if isinstance(family, Fuzzes) else {}
    values: dict[str, tuple[Any, ...]] = {name: tuple(some) for name, some in {**family.flags(), **more}.items()}
    fields = [Field(name=name, values=some) for name, some in values.items()]
    others = tuple(name for name in family.attentions if name != family.reference_attention)
    own = {**INPUTS, "attention": (None, *others)}
    fields += [Field(name=name, values=some, of_case=True) for name, some in own.items()]
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


def _config(family: Family, values: Mapping[str, Any]) -> dict[str, Any]:
    return {**family.dims(), **(family.fuzzed_config(values) if isinstance(family, Fuzzes) else values)}
