"""Make what a model is given in a circumstance: tokens or embeddings, a mask, positions and labels."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Inputs
from verifier.cases.circumstances import Circumstance
from verifier.cases.inputs import NO_LABEL
from verifier.cases.lengths import SHORT, Lengths
from verifier.reference.random_weights import generator

# The axes on which texts depend. Others must not change them: dtypes are compared on the same text.
_AXES = ("rows", "length", "tokens", "mask", "positions", "labels", "past")
_ROWS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a model is given in a circumstance; `prompt` positions go into a cache first, if there are any.

    Attributes:
        d_model: the width of an embedding.
        prompt: how many positions a cache holds before the call that is looked at.
        cropped: how many positions more the cache had before it was cropped.
        ids: `[batch, prompt + pos]`, token ids.
        embeds: `[batch, prompt + pos, d_model]` in float64, in the place of the ids; None where ids are given.
        mask: `[batch, prompt + pos]`, or `[batch, 1, pos, pos]` if it is added to the scores; None where none is given.
        before: the mask's contents in an earlier call with the same tensor; None where there was no such call.
        positions: `[batch, prompt + pos]`; None where the model counts them.
        labels: `[batch, pos]`; None where none are given.
        readable: `[batch, prompt + pos]`, true where a mask hides nothing.
        weighting: `[batch, pos, d_vocab]` in float64, what the logits are multiplied with where there are no labels;
            0 at padding.
    """

    d_model: int
    prompt: int
    cropped: int
    ids: Tensor
    embeds: Tensor | None
    mask: Tensor | None
    before: Tensor | None
    positions: Tensor | None
    labels: Tensor | None
    readable: Tensor
    weighting: Tensor

    @property
    def real(self) -> Tensor:
        """The positions of the call that is looked at which are no padding, `[batch, pos]`."""
        return self.readable[:, self.prompt :]

    @property
    def length(self) -> int:
        """How many positions there are, those in the cache included."""
        return self.ids.shape[1]

    @property
    def attended(self) -> Tensor:
        """Which key a real query of the call that is looked at may read: booleans `[batch, 1, query, key]`."""
        queries, keys = self.real.shape[1], self.length
        causal = torch.ones(queries, keys, dtype=torch.bool, device=self.readable.device).tril(keys - queries)
        return self.real[:, None, :, None] & self.readable[:, None, None, :] & causal

    def repeated(self, rows: int) -> Texts:
        """Give so many rows: the same ones in turn.

        Args:
            rows: how many.
        """
        chosen = torch.arange(rows, device=self.ids.device) % len(self.ids)
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        picked: dict[str, Any] = {name: one[chosen] for name, one in found.items() if isinstance(one, Tensor)}
        return replace(self, **picked)

    def whole(self) -> Inputs:
        """Give everything in one call, without labels and cache."""
        return self.inputs(0, self.length, mask=self.mask)

    def inputs(
        self, first: int, last: int, *, mask: Tensor | None, embeds: Tensor | None = None, **more: Any
    ) -> Inputs:
        """Make the inputs of one call.

        Args:
            first: the first position that is given.
            last: the position after the last one.
            mask: of the call.
            embeds: `[batch, prompt + pos, d_model]` in the model's dtype, in the place of ids.
            more: further fields of `Inputs`.
        """
        return Inputs(
            input_ids=_part(self.ids, first, last) if embeds is None else None,
            inputs_embeds=None if embeds is None else embeds[:, first:last],
            attention_mask=mask,
            position_ids=None if self.positions is None else _part(self.positions, first, last),
            **more,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Give the tensors by name that the caller hands over."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: given[name] for name in ("ids", "mask", "positions", "labels") if given[name] is not None}


def _part(tensor: Tensor, first: int, last: int) -> Tensor:
    """Cut positions out of `[batch, pos]`, as contiguous as the tensor is: a view of some has gaps between its rows."""
    part = tensor[:, first:last]
    return part.contiguous() if tensor.is_contiguous() else part


def make_texts(
    circumstance: Circumstance,
    *,
    seed: int,
    vocab: int,
    d_model: int,
    lengths: Lengths,
    dtype: torch.dtype,
    device: str,
) -> Texts:
    """Make what a model is given in a circumstance.

    Args:
        circumstance: a value for each axis.
        seed: of tokens, masks, positions and weights.
        vocab: how many token ids there are.
        d_model: the width of an embedding.
        lengths: how long the texts are.
        dtype: of a mask that is added to the scores.
        device: of every tensor; the numbers are alike on each.
    """
    draw = generator("texts", seed, [circumstance[axis] for axis in _AXES])
    new = lengths.new
    prompt, total = (lengths.text, lengths.text + new) if new else (0, lengths.text)
    rows = _number_of_rows(circumstance, new or total)
    ids = torch.randint(0, vocab, (rows, total), generator=draw)
    ids[0, -1] = ids[-1, 0] = 0  # which is no padding, unless a mask says so
    readable = _readable(circumstance["mask"], rows, prompt, total, draw)
    embeds = None
    if circumstance["tokens"] == "embeddings":
        # Rounded to what every working dtype can represent, so that all dtypes get the same numbers.
        embeds = torch.randn(rows, total, d_model, generator=draw).half().bfloat16().double()
    positions = None
    if circumstance["positions"] != "default":
        positions = torch.randint(1, 4, (rows, total), generator=draw).cumsum(-1)
        if circumstance["positions"] == "far":
            positions = lengths.first_far + torch.arange(total) + torch.randint(0, 2, (rows, 1), generator=draw)
        elif lengths.most_shift is not None:
            shifts = torch.randint(1, lengths.most_shift + 1, (rows, 1), generator=draw)
            positions = torch.arange(total) + shifts
    real = readable[:, prompt:]
    weighting = torch.randn(rows, total - prompt, vocab, generator=draw, dtype=torch.float64)
    found = Texts(
        d_model=d_model,
        prompt=prompt,
        cropped=lengths.cropped,
        ids=_as_given(ids, circumstance["tokens"]),
        embeds=embeds,
        mask=_mask(circumstance["mask"], readable, dtype),
        before=torch.ones_like(readable, dtype=torch.long) if circumstance["mask"] == "rewritten" else None,
        positions=positions,
        labels=_labels(circumstance["labels"], ids[:, prompt:], readable[:, prompt:], draw),
        readable=readable,
        weighting=weighting * real[..., None] / real.sum().clamp(min=1).sqrt(),
    )
    moved: dict[str, Any] = {
        field.name: value.to(device)
        for field in fields(found)
        if isinstance(value := getattr(found, field.name), Tensor)
    }
    return replace(found, **moved)


def _number_of_rows(circumstance: Circumstance, length: int) -> int:
    # One token is one row's worth of tokens, so more rows than one are as many as the prompt's short text has.
    return {"several": _ROWS, "one": 1, "square": length if length > 1 else SHORT}[circumstance["rows"]]


def _readable(kind: str, rows: int, prompt: int, total: int, draw: torch.Generator) -> Tensor:
    """Mark the tokens that a mask of a kind lets read: booleans `[rows, total]`, some of each row true."""
    found = torch.ones(rows, total, dtype=torch.bool)
    end = prompt or total  # padding on the right ends a prompt, and stands before what comes after a cache
    third = max(1, end // 3)
    for row in range(rows):
        here = kind
        if kind == "mixed":
            here = ("left", "both", "right")[row % 3]
        shift = 1 + row % third
        if here in ("left", "boolean", "additive"):
            found[row, : min(total - 1, shift)] = False
        elif here == "right":
            found[row, max(1 if end == total else 0, end - shift) : end] = False
        elif here == "both":
            found[row, [0, end // 2, end - 1]] = False
            found[row, min(1, total - 1)] = True
        elif here in ("gaps", "rewritten"):
            found[row] = torch.rand(total, generator=draw) > 0.35
            # A gap is between two that are read, whatever was drawn; two tokens have no room for one.
            found[row, :3] = torch.tensor([row % 2 == 1, True, False])[:total]
            found[row, -2:] = True
            if total < 5:
                found[row] = torch.arange(total) != min(1, total - 2)
    return found


def _mask(kind: str, readable: Tensor, dtype: torch.dtype) -> Tensor | None:
    if kind == "none":
        return None
    if kind == "boolean":
        return readable.clone()
    if kind == "additive":
        length = readable.shape[1]
        allowed = readable[:, None, None, :] & torch.ones(length, length, dtype=torch.bool).tril()
        return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
    return readable.long()


def _as_given(ids: Tensor, kind: str) -> Tensor:
    if kind == "int32":
        return ids.int()
    return torch.stack([ids, ids], dim=-1)[..., 0] if kind == "strided" else ids


def _labels(kind: str, ids: Tensor, real: Tensor, draw: torch.Generator) -> Tensor | None:
    """Label each real token that follows a real one, or some of them, so that at least one is left."""
    if kind == "none":
        return None
    wanted = real.clone()
    wanted[:, 1:] &= real[:, :-1]
    if kind == "some":
        left_out = torch.rand(ids.shape, generator=draw) < 0.4
        left_out[0, -1] = True
        # The first label of a row that the shift leaves stays.
        first = wanted[:, 1:].cumsum(-1) == 1
        left_out[:, 1:] &= ~(first & wanted[:, 1:])
        wanted &= ~left_out
    return ids.masked_fill(~wanted, NO_LABEL)
