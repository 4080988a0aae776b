"""Circumstances as data: how a model is called and what happened to it before, and which values go together.

A circumstance has one value on each axis. A covering array of circumstances stands beside this module, one JSON object
a line; `verifier.cases.circumstance_rows` makes it. What is observed falls into classes: every two values that the
constraints allow meet in a row in which each class can be looked at.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("circumstances.jsonl")
"""The covering array: of each row what is not plain, and under `looks` the classes that need it, an object a line."""

Circumstance = Mapping[str, str]
"""A value for each axis, or for some of them."""

AXES: Mapping[str, Mapping[str, str]] = {
    "dtype": {
        "float64": "everything in float64",
        "float32": "everything in float32",
        "bfloat16": "everything in bfloat16",
        "float16": "everything in float16",
        "mixed": "a bfloat16 model whose norms are float32",
    },
    "mode": {
        "eval": "evaluation mode",
        "train": "training mode, with dropouts of 0",
        "dropout": "training mode with dropout, from the same random state",
    },
    "grad": {
        "no_grad": "inside torch.no_grad",
        "grad": "with gradients of everything",
        "inference": "inside torch.inference_mode",
        "frozen": "with gradients, while no parameter requires one",
        "autocast": "with gradients, inside torch.autocast to bfloat16",
    },
    "rows": {
        "several": "several rows",
        "one": "one row",
        "square": "as many rows as tokens",
    },
    "length": {
        "short": "a short, odd number of tokens",
        "one": "one token",
        "multiple": "a multiple of 16",
        "long": "more than 64 tokens",
        "beyond": "more tokens than the config's maximum",
    },
    "tokens": {
        "ids": "token ids in int64",
        "embeddings": "embeddings in the place of token ids",
        "int32": "token ids in int32",
        "strided": "token ids that are a non-contiguous view",
    },
    "mask": {
        "none": "no attention mask",
        "ones": "an attention mask that hides nothing",
        "left": "padding on the left",
        "right": "padding on the right",
        "gaps": "masked tokens in the middle",
        "mixed": "another padding in each row",
        "boolean": "a boolean mask with padding on the left",
        "additive": "a 4-D mask that is added to the scores",
        "rewritten": "the tensor of an earlier call, written into since",
    },
    "positions": {
        "default": "positions left to the model",
        "given": "positions given",
        "far": "positions given, beyond 64 and up to the config's maximum",
    },
    "labels": {
        "none": "no labels",
        "given": "a label for each token",
        "some": "labels of which some are -100",
    },
    "past": {
        "none": "no cache",
        "asked": "a cache is asked for",
        "chunk": "several tokens after a cache",
        "token": "one token after a cache",
        "cropped": "one token after a cache of a longer text that was cropped",
        "generation": "tokens are generated",
    },
    "checkpointing": {
        "off": "no gradient checkpointing",
        "on": "gradient checkpointing",
    },
    "attention": {
        "reference": "the adapter is given the attention implementation that is the reference",
        "other": "the adapter is given another attention implementation that the family names",
    },
    "model": {
        "built": "the model as it was built",
        "copied": "a deep copy of the wrapped model",
        "moved": "after a cast to another dtype and back",
        "cast": "built in one dtype, used, and cast to this one",
        "loaded": "after load_state_dict of other weights",
        "written": "after its weights were written in place",
        "data": "after its weights were written through .data",
        "replaced": "after its parameters were replaced",
        "saved": "after save_pretrained, from_pretrained and wrapping again",
    },
    "history": {
        "fresh": "the first call",
        "masked": "after a call with a mask",
        "longer": "after a call with a longer text",
        "edited": "after a call with an edit",
        "raised": "after a hook that raised",
        "backward": "after a backward",
        "generated": "after a generation",
        "interleaved": "while a subject of another config is used in between",
        "nested": "from inside a hook of another forward",
        "trained": "after a call in training mode with dropouts",
        "inference": "after a call in inference mode",
    },
    "depth": {
        "two": "two layers",
        "three": "three layers",
        "eleven": "eleven layers",
    },
    "dims": {
        "usual": "the shapes of the case",
        "even": "a head dim that is a power of two, two queries a group, a vocabulary beyond 256",
        "many": "more than sixteen heads",
        "wide": "heads wider than 32",
        "extreme": "weights scaled so that scores reach hundreds",
    },
}
"""The values of each axis with what they mean, the plainest first."""

PLAIN: Circumstance = {axis: next(iter(values)) for axis, values in AXES.items()}

THEN = "+"
"""Stands between histories of which one follows the other: `edited+backward`."""

TRIPLES = ("dtype", "mask", "past", "grad")
"""The axes of which every three values meet, for the classes that ask for it."""

OF_POSITIONS = ("dtype", "positions", "dims")
"""Where positions are rounded shows in a half dtype, far from the first one, and in wide heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """Values that do not go together.

    Attributes:
        values: by axis; a circumstance that has one of the values on each of these axes is not allowed.
        reason: why not, in a sentence for people.
    """

    values: Mapping[str, Sequence[str]]
    reason: str

    def excludes(self, circumstance: Circumstance) -> bool:
        """Whether the circumstance, as far as it goes, has such values on all of the axes."""
        return all(has_one_of(circumstance.get(axis), values) for axis, values in self.values.items())


def has_one_of(value: str | None, values: Sequence[str]) -> bool:
    """Whether the value of an axis is one of these; a history has each one whose steps it has in their order."""
    if value in values or value is None or THEN not in value:
        return value in values
    return any(_has_steps(steps(value), steps(one)) for one in values)


def _has_steps(all_steps: Sequence[str], wanted: Sequence[str]) -> bool:
    left = iter(all_steps)
    return all(one in left for one in wanted)


def steps(value: str) -> list[str]:
    """Split a value into those of which one follows the other; but for a history it is one."""
    return value.split(THEN)


def shorter(value: str) -> list[str]:
    """Give the histories in which one step is left out; none of a single one."""
    found = steps(value)
    left_out = (found[:place] + found[place + 1 :] for place in range(len(found)))
    return [THEN.join(rest) for rest in left_out if rest]


def with_plainer_step(value: str, place: int) -> Iterator[str]:
    """Give the histories in which the step at a place is a plainer one, the plainest first; none of a single one."""
    found = steps(value)
    further = [one for one in AXES["history"] if one != PLAIN["history"]] if len(found) > 1 else []
    for plainer in itertools.takewhile(lambda one: one != found[place], further):
        yield THEN.join([*found[:place], plainer, *found[place + 1 :]])


def is_value(axis: str, value: str) -> bool:
    """Whether an axis has a value, or all histories of which one follows the other."""
    plain = PLAIN[axis]
    return value in AXES[axis] or (
        axis == "history" and all(one in AXES[axis] and one != plain for one in steps(value))
    )


def meaning(axis: str, value: str) -> str:
    """Say what a value of an axis means."""
    return ", then ".join(AXES[axis][one] for one in steps(value))


_PADDED = ("left", "right", "gaps", "mixed", "boolean", "rewritten")
_AFTER_A_CACHE = ("chunk", "token", "cropped")

CONSTRAINTS: Sequence[Constraint] = [
    Constraint(
        values={"past": ("generation",), "tokens": ("embeddings",)},
        reason="Adapters are not given embeddings for a generation.",
    ),
    Constraint(
        values={"past": ("generation",), "labels": ("given", "some")},
        reason="Adapters are not given labels for a generation, which has no loss.",
    ),
    Constraint(
        values={"past": ("generation",), "positions": ("given", "far")},
        reason="Adapters are not given positions for a generation.",
    ),
    Constraint(
        values={"past": ("generation",), "mask": ("right", "mixed")},
        reason="A generation goes on from the last token of each row, which must not be masked.",
    ),
    Constraint(
        values={"past": ("generation",), "mask": ("additive",)},
        reason="Hugging Face's generation refuses a mask of four dimensions.",
    ),
    Constraint(
        values={"past": ("generation",), "mask": ("gaps", "rewritten")},
        reason="Dear, and a generation leaves masked tokens in the middle out as it does padding on the left.",
    ),
    Constraint(
        values={"past": ("generation",), "length": ("beyond",)},
        reason="A generation beyond the config's maximum is dear, and one call there is looked at without it.",
    ),
    Constraint(
        values={"positions": ("given", "far"), "mask": ("none",)},
        reason="Without a mask most of Hugging Face's models take a jump in the positions for a packed sequence.",
    ),
    Constraint(
        values={"positions": ("far",), "length": ("beyond",)}, reason="No position is left up to the config's maximum."
    ),
    Constraint(
        values={"checkpointing": ("on",), "past": ("asked", *_AFTER_A_CACHE, "generation")},
        reason="Hugging Face turns the cache off under gradient checkpointing.",
    ),
    Constraint(
        values={"checkpointing": ("on",), "grad": ("no_grad", "inference")},
        reason="Without gradients nothing is recomputed.",
    ),
    Constraint(
        values={"checkpointing": ("on",), "mode": ("eval",)},
        reason="Hugging Face checkpoints in training mode alone.",
    ),
    Constraint(
        values={"rows": ("square",), "length": ("one", "multiple", "long", "beyond")},
        reason="As many rows as tokens are one row, or dear: the square of the tokens.",
    ),
    Constraint(
        values={"depth": ("eleven",), "length": ("multiple", "long", "beyond")},
        reason="Many layers of a long text are dear, and every two layers of one are looked at without them.",
    ),
    Constraint(
        values={"length": ("one",), "mask": _PADDED, "past": ("none", "asked", "generation")},
        reason="No token would be left.",
    ),
    Constraint(
        values={"mask": ("additive",), "past": _AFTER_A_CACHE},
        reason="Adapters are given a 4-D mask over one call's tokens, which does not fit the keys of a cache.",
    ),
    Constraint(
        values={"grad": ("autocast",), "dtype": ("float16",)},
        reason="Hugging Face raises: a float16 layer norm is given bfloat16.",
    ),
    Constraint(
        values={"dtype": ("mixed",), "model": ("moved", "cast", "saved")},
        reason="A cast and a loaded checkpoint give every parameter one dtype.",
    ),
    Constraint(
        values={"history": ("trained",), "mode": ("train",)},
        reason="One model has no dropouts of 0 and others.",
    ),
    Constraint(values={"labels": ("given", "some"), "past": ("token", "cropped")}, reason="The shift leaves no label."),
    Constraint(
        values={"labels": ("given", "some"), "length": ("one",), "past": ("none", "asked")},
        reason="The shift leaves no label.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObservableClass:
    """Observables that can be looked at in the same circumstances.

    Attributes:
        name: what it is called.
        observables: what belongs to it, for people.
        needs: by axis, the values with one of which its observables can be looked at.
        axes: the axes whose values meet in its rows; all if empty.
        triples: groups of axes of which every three values meet in its rows.
    """

    name: str
    observables: str
    needs: Mapping[str, Sequence[str]]
    axes: Sequence[str] = ()
    triples: Sequence[Sequence[str]] = ()

    @property
    def groups(self) -> Sequence[tuple[str, ...]]:
        """The two and three axes whose values meet in its rows."""
        triples = (three for axes in self.triples for three in itertools.combinations(axes, 3))
        return [*itertools.combinations(self.axes or tuple(AXES), 2), *triples]

    def can_look(self, circumstance: Circumstance) -> bool:
        """Whether its observables can be looked at in a circumstance, as far as that goes."""
        return all(circumstance.get(axis, values[0]) in values for axis, values in self.needs.items())


DIFFERENTIATING = ("grad", "frozen", "autocast")
"""The values of `grad` in which gradients at hook points can be looked at."""

_WITH_PARAMETERS = ("grad", "autocast")
_GENERATION = {"past": ("generation",), "grad": ("no_grad", "inference"), "labels": ("none",)}
_ONE_CALL = ("none", "asked", *_AFTER_A_CACHE)

CLASSES: Sequence[ObservableClass] = [
    ObservableClass(
        name="values", observables="logits and activations", needs={"past": _ONE_CALL}, triples=(TRIPLES, OF_POSITIONS)
    ),
    ObservableClass(
        name="gradients",
        observables="gradients at hook points",
        needs={"past": _ONE_CALL, "grad": DIFFERENTIATING},
        triples=(TRIPLES,),
    ),
    ObservableClass(
        name="parameter gradients",
        observables="gradients of parameters and of embeddings",
        needs={"past": _ONE_CALL, "grad": _WITH_PARAMETERS},
    ),
    ObservableClass(name="loss", observables="the loss", needs={"labels": ("given", "some")}),
    ObservableClass(
        name="loss gradients",
        observables="gradients of the loss",
        needs={"labels": ("given", "some"), "grad": _WITH_PARAMETERS},
    ),
    ObservableClass(name="edits", observables="effects of edits of activations", needs={"past": _ONE_CALL}),
    ObservableClass(
        name="gradient edits",
        observables="effects of edits of gradients",
        needs={"past": _ONE_CALL, "grad": DIFFERENTIATING},
    ),
    ObservableClass(
        name="float64 values",
        observables="logits and activations to float64's precision",
        needs={"past": _ONE_CALL, "dtype": ("float64",)},
    ),
    ObservableClass(
        name="float64 gradients",
        observables="gradients to float64's precision",
        needs={"past": _ONE_CALL, "dtype": ("float64",), "grad": DIFFERENTIATING},
    ),
    ObservableClass(
        name="generation",
        observables="generated tokens",
        needs=_GENERATION,
        axes=("dtype", "mode", "grad", "rows", "tokens", "mask", "attention", "model", "history", "depth"),
    ),
    # In half precision several tokens may be the likeliest, and which of them is taken is rounding.
    ObservableClass(
        name="exact tokens",
        observables="which tokens are generated",
        needs={**_GENERATION, "dtype": ("float64", "float32")},
        axes=("mode", "grad", "rows", "tokens", "mask", "attention", "model", "history", "depth"),
    ),
]

_SHOWN, _EDITED = ("values",), ("edits",)
_WITH_BOTH = ("gradient edits",)

CLASSES_OF: Mapping[str, Sequence[str]] = {
    "forward.losses": ("loss",),
    "hooks.shown": _SHOWN,
    "hooks.graph": ("gradients",),
    "hooks.kept_values": _SHOWN,
    "hooks.collected": _EDITED,
    "hooks.left": _EDITED,
    "intervene.effects": _EDITED,
    "intervene.one_point": _EDITED,
    "intervene.each_point": _EDITED,
    "intervene.layouts": _EDITED,
    "intervene.nested": _EDITED,
    "backward.weights": ("parameter gradients",),
    "backward.shown": ("gradients",),
    "backward.behind_edits": ("edits", "parameter gradients"),
    "backward.effects": _WITH_BOTH,
    "backward.nested": _WITH_BOTH,
    "backward.repeated": ("gradients",),
    "backward.double": ("parameter gradients",),
    "cache.repeated": _SHOWN,
    "cache.generated": ("generation",),
    "cache.generated_hooks": ("generation",),
    "cache.generated_edits": ("generation",),
}
"""By observable the classes in all of which it is; one that is not named is looked at in every circumstance.

The first class decides in which rows it is looked at, the others what must be possible there.
"""

Meeting = frozenset[tuple[str, str]]
"""Two or three values of different axes, as pairs of axis and value."""


def is_allowed(circumstance: Circumstance) -> bool:
    """Whether no constraint excludes the values of a circumstance, or of a part of one."""
    return not any(constraint.excludes(circumstance) for constraint in CONSTRAINTS)


def complete(part: Circumstance, needs: Mapping[str, Sequence[str]]) -> Circumstance | None:
    """Complete values to an allowed circumstance: as plain as it can be, with the values that a class needs.

    Args:
        part: the values that it must have.
        needs: by axis, values of which it must have one.

    Returns:
        A value for each axis; None if no circumstance has these values.
    """
    if not is_allowed(part) or any(part[axis] not in values for axis, values in needs.items() if axis in part):
        return None
    if len(part) == len(AXES):
        return {axis: part[axis] for axis in AXES}
    # What a class needs comes first: it leaves least choice.
    axis = next(axis for axis in (*needs, *AXES) if axis not in part)
    found = (complete({**part, axis: value}, needs) for value in needs.get(axis, AXES[axis]))
    return next((circumstance for circumstance in found if circumstance is not None), None)


@functools.cache
def wanted_meetings(kind: ObservableClass) -> frozenset[Meeting]:
    """List the meetings of values that some circumstance has in which a class can be looked at."""
    candidates = (
        frozenset(zip(group, values, strict=True))
        for group in kind.groups
        for values in itertools.product(*(AXES[axis] for axis in group))
    )
    return frozenset(meeting for meeting in candidates if complete(dict(meeting), kind.needs) is not None)


def read_rows() -> tuple[Circumstance, ...]:
    """Read the covering array: the circumstances in which cases are looked at, the single values first."""
    return tuple({**PLAIN, **dict(row)} for row in _looks())


def classes_in(circumstance: Circumstance) -> frozenset[ObservableClass]:
    """Choose the classes that are looked at in a circumstance: those that need it.

    A circumstance that is not in the array is looked at in every way that it allows.
    """
    able = {kind.name: kind for kind in CLASSES if kind.can_look(circumstance)}
    needed = _looks().get(frozenset(differences(circumstance).items()))
    return frozenset(kind for name, kind in able.items() if needed is None or name in needed)


@functools.cache
def _looks() -> Mapping[frozenset[tuple[str, str]], frozenset[str]]:
    found = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        looks = frozenset(row.pop("looks"))
        found[frozenset(row.items())] = looks
    return found


def missing_meetings(rows: Sequence[Circumstance], kind: ObservableClass) -> frozenset[Meeting]:
    """Find the wanted meetings of a class that no row has in which it is looked at.

    Args:
        rows: the circumstances that are looked at, with a value for each axis.
        kind: the class.
    """
    looked_at = [set(row.items()) for row in rows if kind in classes_in(row)]
    return frozenset(meeting for meeting in wanted_meetings(kind) if not any(meeting <= row for row in looked_at))


def is_looked_at(observable: str, circumstance: Circumstance) -> bool:
    """Whether an observable is looked at in a circumstance, which has a value for each axis."""
    kinds = [kind for name in CLASSES_OF.get(observable, ()) for kind in CLASSES if kind.name == name]
    return not kinds or (kinds[0] in classes_in(circumstance) and all(kind.can_look(circumstance) for kind in kinds))


def needs_of(observable: str) -> Mapping[str, Sequence[str]]:
    """Give by axis the values of which a circumstance needs one for an observable to be looked at."""
    kinds = [kind for name in CLASSES_OF.get(observable, ()) for kind in CLASSES if kind.name == name]
    found: dict[str, Sequence[str]] = {}
    for kind in kinds:
        for axis, values in kind.needs.items():
            found[axis] = [value for value in values if value in found.get(axis, values)]
    return found


def has_met(observable: str, circumstances: Iterable[Circumstance], wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether an observable is looked at in a circumstance that has one of the wanted values on each axis.

    Args:
        observable: the id of the check.
        circumstances: those of a case, each with a value for every axis that is not plain.
        wanted: by axis, values of which one is needed.
    """
    whole = [{**PLAIN, **one} for one in circumstances]
    return any(
        is_looked_at(observable, one) and all(has_one_of(one[axis], values) for axis, values in wanted.items())
        for one in whole
    )


def differences(circumstance: Circumstance) -> Circumstance:
    """Select the values that are not the plainest."""
    return {axis: value for axis, value in circumstance.items() if value != PLAIN[axis]}
