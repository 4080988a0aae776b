"""Sense the circumstance that a subject is called in, from what it is given alone: arguments, modes, its own calls.

Generated mutants learn by this when they are to be wrong. Nothing here asks the harness: a circumstance that a row
claims and does not establish is not sensed. What cannot be told apart is given together: one token that is masked is
padding on the left and on the right.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Inputs
from verifier.reference.models import dtype_of

Sensed = Mapping[str, frozenset[str]]
"""By axis the values that the circumstance may have."""

_SINGLE = {torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_FAR = 513
_SHORT = 7


@dataclass(slots=True)
class Life:
    """What happened to a subject so far.

    Attributes:
        model: Hugging Face's model, as it was given to the adapter.
        reference_attention: the attention implementation that is the reference.
        training: whether it is in training mode.
        checkpointing: whether gradient checkpointing is on.
        copied: whether it is a deep copy.
        casts: the dtypes in which its matrices were, in order.
        loaded: whether a state dict was loaded.
        events: what it was used for so far: values of the axis `history`, each with the circumstances it happened in.
        masks: the masks of earlier calls with what was in them first.
        running: how many of its forwards are running.
        dropped: whether it ran in training mode with dropouts.
        parameters: what its parameters were when it was wrapped.
        lengths: by the identity of a cache, how many positions it has, and whether it was cropped.
    """

    model: Any
    reference_attention: str
    training: bool
    checkpointing: bool = False
    copied: bool = False
    casts: list[torch.dtype] = field(default_factory=list)
    loaded: bool = False
    events: dict[str, set[Hashable]] = field(default_factory=dict)
    masks: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    running: int = 0
    dropped: bool = False
    parameters: list[tuple[Tensor, int, int, Tensor]] = field(default_factory=list)
    lengths: dict[int, tuple[Any, int, bool]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, reference_attention: str) -> Life:
        """Begin the life of a subject of this model."""
        life = cls(model=model, reference_attention=reference_attention, training=model.training)
        life.casts.append(dtype_of(model))
        life.remember_parameters()
        return life

    def remember_parameters(self) -> None:
        """Note the parameters' versions, memories and values, against which later writes are seen."""
        self.parameters = [(one, one._version, one.data_ptr(), one.detach().clone()) for one in self.model.parameters()]

    def happened(self, event: str, sensed: Sensed | None = None) -> None:
        """Remember what the subject was used for.

        Args:
            event: a value of the axis `history`.
            sensed: the circumstance of the call in which it was; None where it belongs to no call.
        """
        self.events.setdefault(event, set()).add(None if sensed is None else _alike(sensed))

    def drops(self) -> bool:
        """Whether the config has a dropout that is not 0."""
        values = self.model.config.to_dict()
        return any(name.endswith("dropout") and isinstance(one, float) and one > 0 for name, one in values.items())

    def most(self) -> int | None:
        """The config's most positions; None where it names none."""
        found = getattr(self.model.config, "max_position_embeddings", None)
        return found if isinstance(found, int) else None


# Calls that are alike in these are calls in one circumstance. In the rest a prompt and what follows it may differ.
_ALIKE = ("dtype", "mode", "grad", "length", "mask", "checkpointing")


def _alike(sensed: Mapping[str, Collection[str]]) -> Hashable:
    return tuple(frozenset(sensed.get(axis, ())) for axis in _ALIKE)


def sense(life: Life, inputs: Inputs | None, *, prompt: Tensor | None = None) -> Sensed:
    """Sense the circumstance of a call.

    Args:
        life: of the subject.
        inputs: of the call; None outside of calls.
        prompt: `[batch, pos]`, what a generation goes on from; None where the call is none.
    """
    found = {**_of_model(life), **_of_modes(life)}
    if inputs is not None and prompt is None:
        found |= _of_inputs(life, inputs)
    if prompt is not None:
        found |= _of_inputs(
            life, Inputs(input_ids=prompt, attention_mask=None if inputs is None else inputs.attention_mask)
        )
        found["past"] = {"generation"}
    # What happened in this very circumstance cannot be told from what a fresh subject's own calls do.
    fresh = all(where == {_alike(found)} for where in life.events.values())
    found["history"] = {*life.events, *(["fresh"] if fresh else [])}
    return {axis: frozenset(values) for axis, values in found.items()}


def _of_model(life: Life) -> dict[str, set[str]]:
    model = life.model
    config = model.config
    dtypes = {one.dtype for one in model.parameters()}
    dtype = "mixed" if len(dtypes) > 1 else _SINGLE.get(dtype_of(model), "float32")
    attention = "reference" if config._attn_implementation == life.reference_attention else "other"
    depth = {2: "two", 3: "three", 11: "eleven"}.get(config.num_hidden_layers, "two")
    return {
        "dtype": {dtype},
        "attention": {attention},
        "depth": {depth},
        "dims": {_dims(model)},
        "model": {_treatment(life)},
    }


def _dims(model: Any) -> str:
    heads = model.config.num_attention_heads
    head_dim = model.config.hidden_size // heads
    embedding = model.get_input_embeddings().weight
    # At fan-in scale a matrix's rms is one over the root of its width.
    if float(embedding.detach().double().square().mean().sqrt()) * embedding.shape[1] ** 0.5 > 4:
        return "extreme"
    if head_dim > 32:
        return "wide"
    if heads > 16:
        return "many"
    return "even" if embedding.shape[0] > 256 and head_dim & (head_dim - 1) == 0 else "usual"


def _treatment(life: Life) -> str:
    if life.copied:
        return "copied"
    if len(life.casts) > 1:
        return "moved" if life.casts[-1] == life.casts[0] else "cast"
    if life.loaded:
        return "loaded"
    for one, version, memory, value in life.parameters:
        if one.data_ptr() != memory:
            return "replaced"
        if not torch.equal(one.detach(), value):
            return "written" if one._version != version else "data"
    return "saved" if getattr(life.model.config, "_name_or_path", "") else "built"


def _of_modes(life: Life) -> dict[str, set[str]]:
    mode = ("dropout" if life.drops() else "train") if life.training else "eval"
    if torch.is_inference_mode_enabled():
        grad = "inference"
    elif not torch.is_grad_enabled():
        grad = "no_grad"
    elif torch.is_autocast_enabled("cpu"):
        grad = "autocast"
    else:
        grad = "grad" if any(one.requires_grad for one in life.model.parameters()) else "frozen"
    return {"mode": {mode}, "grad": {grad}, "checkpointing": {"on" if life.checkpointing else "off"}}


def _of_inputs(life: Life, inputs: Inputs) -> dict[str, set[str]]:
    given = inputs.inputs_embeds if inputs.input_ids is None else inputs.input_ids
    assert given is not None
    rows, new = given.shape[:2]
    _, before, cropped = life.lengths.get(id(inputs.cache), (None, 0, False))
    length = before or new
    return {
        "rows": _rows(rows, new, before),
        "length": {_length(length, life.most())},
        "tokens": _tokens(inputs, given),
        "mask": _mask(life, inputs.attention_mask, before),
        "positions": _positions(inputs.position_ids),
        "labels": _labels(inputs, before),
        "past": {_past(inputs, new, cropped)},
    }


def _rows(rows: int, new: int, before: int) -> set[str]:
    if rows == 1:
        return {"one"}
    square = rows in (new, before) or (new == 1 and rows == _SHORT)
    return ({"square"} if square else set()) | ({"several"} if rows == 3 else set())


def _length(length: int, most: int | None) -> str:
    if length == 1:
        return "one"
    if most is not None and length > most:
        return "beyond"
    if length > 64:
        return "long"
    return "multiple" if length % 16 == 0 else "short"


def _tokens(inputs: Inputs, given: Tensor) -> set[str]:
    if inputs.input_ids is None:
        return {"embeddings"}
    if given.dtype == torch.int32:
        return {"int32"}
    if not given.is_contiguous():
        return {"strided"}
    return {"ids", "strided"} if given.numel() == 1 else {"ids"}


def _mask(life: Life, mask: Tensor | None, before: int) -> set[str]:
    if mask is None:
        return {"none"}
    if mask.ndim == 4:
        return {"additive"}
    if mask.dtype == torch.bool:
        return {"boolean"}
    if any(one is mask and not torch.equal(mask, value) for one, value in life.masks):
        return {"rewritten"}
    if bool(mask.all()):
        return {"ones"}
    end = before or mask.shape[1]
    rows = [row for row in mask.tolist() if 0 in row]
    kinds = [_kinds_of_row(row, end) for row in rows]
    mixed = len(rows) < 2 or not set.intersection(*kinds)
    # A gap of few tokens cannot be told from one of the ends.
    common = set.intersection(*(found | {"gaps"} for found in kinds) if mask.shape[1] < 8 else kinds)
    return common | ({"mixed"} if mixed else set())


def _kinds_of_row(row: list[int], end: int) -> set[str]:
    hidden = [place for place, value in enumerate(row) if not value]
    together = hidden[-1] - hidden[0] + 1 == len(hidden)
    found = set[str]()
    if together and hidden[0] == 0:
        found.add("left")
    if together and hidden[-1] == end - 1:
        found.add("right")
    return found or {"gaps"}


def _positions(positions: Tensor | None) -> set[str]:
    if positions is None:
        return {"default"}
    return {"far"} if int(positions.min()) >= _FAR else {"given"}


def _labels(inputs: Inputs, before: int) -> set[str]:
    if inputs.labels is None:
        return {"none"}
    labels = inputs.labels
    mask = inputs.attention_mask
    wanted = torch.ones_like(labels, dtype=torch.bool)
    if mask is not None and mask.ndim == 2:
        wanted = mask[:, before:].bool()
        wanted[:, 1:] &= wanted[:, :-1].clone()
    return {"given"} if bool(((labels >= 0) == wanted).all()) else {"some", "given"} if mask is not None else {"some"}


def _past(inputs: Inputs, new: int, cropped: bool) -> str:
    if inputs.cache is None:
        return "asked" if inputs.use_cache else "none"
    if cropped:
        return "cropped"
    return "chunk" if new > 1 else "token"


def meets(sensed: Sensed, values: Iterable[tuple[str, str]]) -> bool:
    """Whether a sensed circumstance may have these values.

    Args:
        sensed: by axis.
        values: pairs of axis and value.
    """
    return all(value in sensed.get(axis, ()) for axis, value in values)


def combinations(sensed: Sensed, axes: Iterable[str], size: int) -> Iterable[frozenset[tuple[str, str]]]:
    """List the meetings of so many values that a sensed circumstance may have.

    Args:
        sensed: by axis.
        axes: those that count.
        size: how many values meet.
    """
    known = [[(axis, value) for value in sorted(sensed[axis])] for axis in axes if axis in sensed]
    for group in itertools.combinations(known, size):
        yield from map(frozenset, itertools.product(*group))
