"""Make the inputs of a case: one batch for each scenario, which is one way of calling a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Inputs
from verifier.cases.spec import CaseSpec, Scenario
from verifier.reference.random_weights import generator

NO_LABEL = -100  # the label that HF's losses ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioInputs:
    """The inputs of one scenario, and which outputs are defined.

    Attributes:
        inputs: the same for every dtype.
        real: `[batch, pos]`, true at a real token; the outputs at padding are undefined and never compared.
        rows: a name for each row of the batch, for people.
    """

    inputs: Inputs
    real: Tensor
    rows: tuple[str, ...]


def copy_inputs(inputs: Inputs) -> Inputs:
    """Copy every tensor of the inputs."""
    return _each(inputs, lambda value: value.clone())


def _each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    changed: dict[str, Any] = {
        field.name: change(value)
        for field in fields(inputs)
        if field.name != "cache" and isinstance(value := getattr(inputs, field.name), Tensor)
    }
    return replace(inputs, **changed)


def _tokens(spec: CaseSpec, vocab: int, batch: int, length: int, scenario: Scenario) -> Tensor:
    draw = torch.randint(0, vocab, (batch, length), generator=generator("inputs", spec.seed, scenario.value))
    return draw.to(spec.device)


def _special(spec: CaseSpec, vocab: int) -> list[int]:
    """List the ids that a library may treat as special: 0, the last one, and every `…_token_id` of the config."""
    roles = [value for name, value in sorted(spec.config.items()) if name.endswith("_token_id")]
    return list(dict.fromkeys([0, vocab - 1, *(one for one in roles if isinstance(one, int) and 0 <= one < vocab)]))


def _scenario_inputs(inputs: Inputs, real: Tensor | None = None, rows: tuple[str, ...] = ()) -> ScenarioInputs:
    """Describe the inputs; every token is real if `real` is not given, and the rows have numbers for names."""
    if real is None:
        assert inputs.input_ids is not None
        real = torch.ones_like(inputs.input_ids, dtype=torch.bool)
    return ScenarioInputs(inputs=inputs, real=real, rows=rows or tuple(f"row {row}" for row in range(real.shape[0])))


def make_plain(spec: CaseSpec, vocab: int) -> ScenarioInputs:
    """Make a batch of tokens without a mask; every row but the first starts and ends in a special token.

    Args:
        spec: the case: its batch, length, seed and device, and the special tokens of its config.
        vocab: how many token ids there are; every id is below it.

    Returns:
        Token ids `[batch, pos]`.
    """
    ids = _tokens(spec, vocab, spec.batch, spec.length, Scenario.PLAIN)
    for row, token in zip(range(1, spec.batch), itertools.cycle(_special(spec, vocab)), strict=False):
        ids[row, 0] = ids[row, -1] = ids[row, -2] = token
    return _scenario_inputs(Inputs(input_ids=ids))


PADDINGS = ("no padding", "left padding", "right padding", "gaps", "left, right and gaps")


def make_padded(spec: CaseSpec, vocab: int) -> ScenarioInputs:
    """Make a batch with a row for each way of padding.

    Args:
        spec: the case: its length, seed and device; masks are random if its `padding` is not 0.
        vocab: how many token ids there are; every id is below it.

    Returns:
        Token ids and a mask, `[row, pos]` each, with five rows.
    """
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
    """Make a row without padding, and others with random masks that keep at least one token."""
    draw = generator("padding", spec.padding, spec.seed)
    share = torch.rand(len(PADDINGS), 1, generator=draw)
    mask = (torch.rand(ids.shape, generator=draw) >= share).long()
    mask[torch.arange(len(mask)), torch.randint(0, spec.length, (len(mask),), generator=draw)] = 1
    mask[0] = 1
    mask = mask.to(ids.device)
    rows = ("no padding", *(f"random mask {number}" for number in range(1, len(PADDINGS))))
    return _scenario_inputs(Inputs(input_ids=ids, attention_mask=mask), mask.bool(), rows)


INPUT_MAKERS: Mapping[Scenario, Callable[[CaseSpec, int], ScenarioInputs]] = {
    Scenario.PLAIN: make_plain,
    Scenario.PADDED: make_padded,
}
