"""The inputs that a case is tried on, by name: each a batch that shows one way of calling a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Inputs
from verifier.cases.spec import CaseSpec, Scenario
from verifier.reference.random_weights import generator

NO_LABEL = -100  # what HF's losses ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioInputs:
    """Inputs, and what of the outputs is defined.

    Attributes:
        inputs: embeddings in float64; `in_dtype` casts them.
        real: `[batch, pos]`, true where a token stands; what padding rows give is nobody's business.
        rows: what each row of the batch shows, for people.
    """

    inputs: Inputs
    real: Tensor
    rows: tuple[str, ...]

    def in_dtype(self, dtype: torch.dtype) -> Inputs:
        """The inputs for a model of that dtype."""
        embeds = self.inputs.inputs_embeds
        return self.inputs if embeds is None else replace(self.inputs, inputs_embeds=embeds.to(dtype))


def copied(inputs: Inputs) -> Inputs:
    """The same in memory of its own."""
    return _each(inputs, lambda value: value.clone())


def one_row(inputs: Inputs, row: int) -> Inputs:
    """A batch of that row alone."""
    return _each(inputs, lambda value: value[row : row + 1].clone())


def _each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    changed: dict[str, Any] = {
        name: change(value)
        for name in ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "labels")
        if (value := getattr(inputs, name)) is not None
    }
    return replace(inputs, **changed)


def _tokens(spec: CaseSpec, vocab: int, batch: int, length: int, scenario: Scenario) -> Tensor:
    draw = torch.randint(0, vocab, (batch, length), generator=generator("inputs", spec.seed, scenario.value))
    return draw.to(spec.device)


def _special(spec: CaseSpec, vocab: int) -> list[int]:
    """The tokens that a library may take for no token: the first, the last, and those to which the config gives a role,
    as it gives one for the end of a text."""
    roles = [value for name, value in sorted(spec.config.items()) if name.endswith("_token_id")]
    return list(dict.fromkeys([0, vocab - 1, *(one for one in roles if isinstance(one, int) and 0 <= one < vocab)]))


def _scenario_inputs(inputs: Inputs, real: Tensor, rows: tuple[str, ...] | None = None) -> ScenarioInputs:
    return ScenarioInputs(inputs=inputs, real=real, rows=rows or tuple(f"row {row}" for row in range(real.shape[0])))


def _everything(ids: Tensor) -> Tensor:
    return torch.ones(ids.shape, dtype=torch.bool, device=ids.device)


def plain(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """Tokens and nothing else: what might be taken for padding stands at both ends of all rows but the first."""
    ids = _tokens(spec, vocab, spec.batch, spec.length, Scenario.PLAIN)
    for row, token in zip(range(1, spec.batch), itertools.cycle(_special(spec, vocab)), strict=False):
        ids[row, 0] = ids[row, -1] = ids[row, -2] = token
    return _scenario_inputs(Inputs(input_ids=ids), _everything(ids))


def one_token(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """A sequence shorter than anything: kernels take other paths for one query."""
    ids = _tokens(spec, vocab, spec.batch, 1, Scenario.ONE_TOKEN)
    return _scenario_inputs(Inputs(input_ids=ids), _everything(ids))


def long(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """A sequence longer than every other dimension of the matrix."""
    ids = _tokens(spec, vocab, 1, spec.long, Scenario.LONG)
    return _scenario_inputs(Inputs(input_ids=ids), _everything(ids))


PADDINGS = ("no padding", "left padding", "right padding", "gaps", "left, right and gaps")


def padded(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """A row for each way of padding."""
    ids = _tokens(spec, vocab, len(PADDINGS), spec.length, Scenario.PADDED)
    if spec.padding:
        return _randomly_padded(spec, ids)
    mask = torch.ones_like(ids)
    third = max(1, spec.length // 3)
    mask[1, :third] = 0
    mask[2, -third:] = 0
    mask[3, third : 2 * third : 2] = 0
    mask[4, : third - 1], mask[4, third + 1], mask[4, -1:] = 0, 0, 0
    return _scenario_inputs(Inputs(input_ids=ids, attention_mask=mask), mask.bool(), PADDINGS)


def _randomly_padded(spec: CaseSpec, ids: Tensor) -> ScenarioInputs:
    """A row without padding, and others whose masks are random: anything may be left out but one token."""
    draw = generator("padding", spec.padding, spec.seed)
    share = torch.rand(len(PADDINGS), 1, generator=draw)
    mask = (torch.rand(ids.shape, generator=draw) >= share).long()
    mask[torch.arange(len(mask)), torch.randint(0, spec.length, (len(mask),), generator=draw)] = 1
    mask[0] = 1
    mask = mask.to(ids.device)
    rows = ("no padding", *(f"random mask {number}" for number in range(1, len(PADDINGS))))
    return _scenario_inputs(Inputs(input_ids=ids, attention_mask=mask), mask.bool(), rows)


def position_ids(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """Positions that start anywhere and leave some out, other ones in each row.

    The mask is full. Without one HF takes positions that jump for sequences packed into one row, which do not see
    each other, but only in some models, and only where there is no cache: what is right would depend on both.
    """
    ids = _tokens(spec, vocab, spec.batch, spec.length, Scenario.POSITION_IDS)
    steps = torch.randint(1, 4, ids.shape, generator=generator("positions", spec.seed)).to(ids.device)
    everything = _everything(ids)
    return _scenario_inputs(
        Inputs(input_ids=ids, position_ids=steps.cumsum(-1), attention_mask=everything.to(ids.dtype)), everything
    )


def padded_position_ids(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """What generation from a padded batch passes: a mask, and positions that count its tokens."""
    chosen = padded(spec, vocab, d_model)
    assert chosen.inputs.attention_mask is not None
    counted = (chosen.inputs.attention_mask.cumsum(-1) - 1).clamp(min=0)
    return replace(chosen, inputs=replace(chosen.inputs, position_ids=counted))


def inputs_embeds(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """Embeddings that are no token's, each row after the first with more padding on the left."""
    shape = (spec.batch, spec.length, d_model)
    draw = torch.randn(shape, generator=generator("embeds", spec.seed), dtype=torch.float64).to(spec.device)
    # Representable in every working dtype, so that all of them are given the same.
    draw = draw.to(torch.float16).to(torch.bfloat16).to(torch.float64)
    padding = torch.arange(spec.batch, device=draw.device).clamp(max=spec.length - 1)
    mask = (torch.arange(spec.length, device=draw.device) >= padding[:, None]).long()
    return _scenario_inputs(Inputs(inputs_embeds=draw, attention_mask=mask), mask.bool())


def labels(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """The plain tokens with labels, of which each row has another number: at both ends and in the middle some are to be
    ignored."""
    ids = plain(spec, vocab, d_model).inputs.input_ids
    assert ids is not None
    wanted, first = ids.clone(), max(1, spec.length // 4)
    wanted[:, :first] = NO_LABEL
    for row in range(spec.batch):
        left_out = row % max(1, spec.length // 3)
        wanted[row, spec.length - left_out :] = NO_LABEL
        if left_out:
            wanted[row, first + 1] = NO_LABEL
    return _scenario_inputs(Inputs(input_ids=ids, labels=wanted), _everything(ids))


def padded_labels(spec: CaseSpec, vocab: int, d_model: int) -> ScenarioInputs:
    """The padded rows with a label wherever a token stands that another one is right before, as a loss is of those."""
    chosen = padded(spec, vocab, d_model)
    ids, real = chosen.inputs.input_ids, chosen.real
    assert ids is not None
    wanted = torch.full_like(ids, NO_LABEL)
    wanted[:, 1:] = torch.where(real[:, 1:] & real[:, :-1], ids[:, 1:], NO_LABEL)
    return replace(chosen, inputs=replace(chosen.inputs, labels=wanted))


INPUT_MAKERS: Mapping[Scenario, Callable[[CaseSpec, int, int], ScenarioInputs]] = {
    Scenario.PLAIN: plain,
    Scenario.ONE_TOKEN: one_token,
    Scenario.LONG: long,
    Scenario.PADDED: padded,
    Scenario.POSITION_IDS: position_ids,
    Scenario.PADDED_POSITION_IDS: padded_position_ids,
    Scenario.INPUTS_EMBEDS: inputs_embeds,
    Scenario.LABELS: labels,
    Scenario.PADDED_LABELS: padded_labels,
}
