"""Faults of the forward: adapters whose logits or loss are wrong, always or only in some calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier.adapter import Inputs, Modes, Output, Subject
from verifier.cases.inputs import NO_LABEL
from verifier.faults.altered_hooks import in_shown
from verifier.faults.mutants import (
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_eight_bits,
    in_forward,
    in_inputs,
    in_method,
    in_model,
    in_output,
    in_values,
    replacing,
    rounding_to,
    slightly_scaled,
)
from verifier.judging.outcome import NotApplicable

WINDOW = 64  # positions that the shortsighted mutant remembers


def _slightly_off_where(condition: Callable[[Inputs], bool]) -> Plant:
    """Plant logits that are slightly off where the function is true of the inputs."""
    return in_output(lambda inputs, output: slightly_scaled(output) if condition(inputs) else output)


def _in_mask(change: Callable[[Tensor], Tensor]) -> Plant:
    """Plant a change of the mask `[batch, pos]`, where there is one."""

    def masked(inputs: Inputs) -> Inputs:
        mask = inputs.attention_mask
        return inputs if mask is None else replace(inputs, attention_mask=change(mask))

    return in_inputs(masked)


def _rounded(coarse: torch.dtype, dtype: torch.dtype) -> Mutation:
    """Let every activation go through a coarser dtype, in models of one dtype."""
    points = ("hook_resid_pre", "hook_normalized", "hook_q", "hook_k", "hook_v", "hook_z", "hook_post", "hook_mlp_out")
    return Mutation(edits=dict.fromkeys(points, rounding_to(coarse, dtype)))


def see_next_key(scores: Tensor) -> Tensor:
    """Let each query see the next key too: scores `[batch, head, query, key]`, whose last query sees every key."""
    queries, keys = scores.shape[-2:]
    here = torch.arange(queries - 1)
    changed = scores.clone()
    changed[..., here, keys - queries + here + 1] = scores[..., here, keys - queries + here]
    return changed


@torch.no_grad()
def _lose_bias(model: nn.Module, kind: type[nn.Module]) -> None:
    for module in model.modules():
        if isinstance(module, kind) and isinstance(module.bias, nn.Parameter):
            module.bias.zero_()
            return
    raise NotApplicable(f"no {kind.__name__} has a bias")


@fault("forward.logits", plant=in_forward)
def padding_guessed(subject: Subject, inputs: Inputs) -> Output:
    """Where no mask is given, token 0 at the end of a row is taken for padding."""
    ids = inputs.input_ids
    if ids is None or inputs.attention_mask is not None or inputs.cache is not None:
        return subject.forward(inputs)
    real = (ids != 0).flip(1).cumsum(1).flip(1) > 0
    return subject.forward(inputs if bool(real.all()) else replace(inputs, attention_mask=real.long()))


@fault("forward.losses", circumstances=[{"labels": "some"}], plant=in_output)
def loss_per_row(inputs: Inputs, output: Output) -> Output:
    """The loss is the mean of each row's mean."""
    if inputs.labels is None:
        return output
    each = [F.cross_entropy(row[:-1], wanted[1:]) for row, wanted in zip(output.logits, inputs.labels, strict=True)]
    return replace(output, loss=torch.stack(each).mean())


@fault("backward.weights", circumstances=[{"labels": "given", "grad": "grad"}], plant=in_output)
def loss_detached(_inputs: Inputs, output: Output) -> Output:
    """The loss is detached from the graph."""
    return output if output.loss is None else replace(output, loss=output.loss.detach())


@fault("forward.logits", plant=_slightly_off_where)
def logits_scaled(_inputs: Inputs) -> bool:
    """The logits are off by one in ten thousand."""
    return True


@fault("forward.logits", plant=in_values("attn.hook_attn_scores"))
def scores_doubled(scores: Tensor) -> Tensor:
    """The scale of the attention scores is wrong."""
    return torch.where(scores > torch.finfo(scores.dtype).min / 4, scores * 2, scores)  # those that are not masked


@fault("forward.logits", plant=in_model)
def bias_dropped(model: nn.Module) -> None:
    """A linear layer has lost its bias."""
    _lose_bias(model, nn.Linear)


@fault("forward.logits", plant=in_model)
def norm_bias_dropped(model: nn.Module) -> None:
    """A norm has lost its bias."""
    _lose_bias(model, nn.LayerNorm)


@fault("forward.outputs", circumstances=[{"length": "long"}], plant=in_values("attn.hook_attn_scores"))
def shortsighted(scores: Tensor) -> Tensor:  # [batch, head, query, key]
    """Attention ends after 64 positions."""
    far = torch.ones_like(scores, dtype=torch.bool).tril(-WINDOW)
    return scores.masked_fill(far, torch.finfo(scores.dtype).min)


@fault("forward.outputs", circumstances=[{"length": "one"}], plant=_slightly_off_where)
def one_token_wrong(inputs: Inputs) -> bool:
    """A single token goes through another path, slightly off."""
    return inputs.input_ids is not None and inputs.input_ids.shape[1] == 1


@fault("forward.outputs", circumstances=[{"mask": "left"}], plant=in_inputs)
def mask_ignored(inputs: Inputs) -> Inputs:
    """The attention mask is not passed on."""
    return replace(inputs, attention_mask=None)


@fault("forward.outputs", circumstances=[{"mask": "left"}], plant=_in_mask)
def mask_flipped(mask: Tensor) -> Tensor:
    """The mask is reversed: padding is taken to be on the other side."""
    return mask.flip(-1)


@fault("forward.outputs", circumstances=[{"mask": "gaps"}], plant=_in_mask)
def mask_gaps_filled(mask: Tensor) -> Tensor:
    """Only padding at the ends of a row is masked; gaps inside it are not."""
    started = mask.cumsum(-1) > 0
    unfinished = mask.flip(-1).cumsum(-1).flip(-1) > 0
    return (started & unfinished).to(mask.dtype)


@fault("forward.outputs", circumstances=[{"mask": "mixed"}], plant=_in_mask)
def mask_one_side(mask: Tensor) -> Tensor:
    """A row that is padded on both sides is masked on the right side only."""
    padded_right = mask[:, -1:] == 0
    before_first = mask.cumsum(-1) == 0
    return torch.where(padded_right & before_first, torch.ones_like(mask), mask)


@fault("forward.outputs", circumstances=[{"mask": "mixed"}], plant=_in_mask)
def mask_of_one_row(mask: Tensor) -> Tensor:
    """Every row of a batch gets the mask of the last row."""
    return mask[-1:].expand_as(mask)


@fault("forward.outputs", circumstances=[{"mask": "ones", "positions": "given"}], plant=in_inputs)
def position_ids_ignored(inputs: Inputs) -> Inputs:
    """The caller's position ids are not passed on."""
    return replace(inputs, position_ids=None)


@fault("forward.outputs", circumstances=[{"mask": "left", "positions": "given"}], plant=in_inputs)
def position_ids_or_mask(inputs: Inputs) -> Inputs:
    """Position ids are not passed on where there is padding."""
    mask = inputs.attention_mask
    return inputs if mask is None or bool(mask.all()) else replace(inputs, position_ids=None)


@fault("forward.outputs", circumstances=[{"tokens": "embeddings", "mask": "left"}], plant=in_inputs)
def embeds_or_mask(inputs: Inputs) -> Inputs:
    """The mask is not passed on when embeddings are given."""
    return inputs if inputs.inputs_embeds is None else replace(inputs, attention_mask=None)


@fault("forward.outputs", plant=_slightly_off_where)
def gradients_change_it(_inputs: Inputs) -> bool:
    """With gradients enabled the forward takes another path, slightly off."""
    return torch.is_grad_enabled()


@fault("state.caller", circumstances=[{"mask": "left"}], plant=in_output)
def inputs_overwritten(inputs: Inputs, output: Output) -> Output:
    """The caller's mask is written into."""
    if inputs.attention_mask is not None:
        inputs.attention_mask.fill_(1)
    return output


@fault("forward.outputs", circumstances=[{"tokens": "embeddings"}], plant=_slightly_off_where)
def embeds_scaled(inputs: Inputs) -> bool:
    """The logits are slightly off when the caller gives embeddings."""
    return inputs.inputs_embeds is not None


@fault("forward.losses", circumstances=[{"grad": "grad", "labels": "given"}], plant=in_output)
def loss_unshifted(inputs: Inputs, output: Output) -> Output:
    """The loss compares each token with itself."""
    if inputs.labels is None:
        return output
    return replace(output, loss=F.cross_entropy(output.logits.flatten(0, 1), inputs.labels.flatten()))


@fault("hooks.values", plant=in_shown("attn.hook_pattern"))
def pattern_transposed(pattern: Tensor) -> Tensor:  # [batch, head, query, key]
    """The pattern is shown with queries and keys exchanged."""
    return pattern.transpose(-1, -2)


@fault("hooks.values", plant=in_shown("attn.hook_pattern"))
def pattern_heads_permuted(pattern: Tensor) -> Tensor:  # [batch, head, query, key]
    """The pattern is shown with its heads in another order."""
    return pattern.flip(1)


@fault("forward.causality", "forward.logits", plant=in_values("attn.hook_attn_scores"))
def mask_off_by_one(scores: Tensor) -> Tensor:  # [batch, head, query, key]
    """Each position sees the next one."""
    return see_next_key(scores)


@fault("forward.repeated")
def second_call_wrong() -> Mutation:
    """The forward is right only the first time."""
    calls: list[Inputs] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        calls.append(inputs)
        output = subject.forward(inputs)
        return slightly_scaled(output) if len(calls) > 1 else output

    return Mutation(forward=forward)


@fault("forward.outputs", circumstances=[{"mode": "train"}])
def dropout_of_its_own() -> Mutation:
    """Training mode has a dropout that HF does not have."""
    mode = {"training": False}

    def train(modes: Modes, on: bool) -> None:
        mode["training"] = on
        modes.train(on)

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return replace(output, logits=F.dropout(output.logits, 0.1, training=mode["training"]))

    return Mutation(forward=forward, parts={"modes": replacing(train=train)})


@fault("forward.outputs", circumstances=[{"mode": "dropout"}], plant=in_method("modes", "train"))
def dropouts_missing(_modes: Modes, _on: bool) -> None:
    """Training mode does not reach the dropouts."""


@fault("forward.outputs", circumstances=[{"dtype": "float32"}])
def single_in_half() -> Mutation:
    """A float32 model is computed in bfloat16."""
    return _rounded(torch.bfloat16, torch.float32)


@fault("forward.outputs", circumstances=[{"dtype": "bfloat16"}])
def bfloat16_in_eight_bits() -> Mutation:
    """Wrong only in bfloat16: activations go through eight bits."""
    return _rounded(torch.float8_e4m3fn, torch.bfloat16)


@fault("forward.outputs", circumstances=[{"dtype": "float16"}])
def float16_in_bfloat16() -> Mutation:
    """Wrong only in float16: activations go through bfloat16."""
    return _rounded(torch.bfloat16, torch.float16)


@fault("forward.losses", circumstances=[{"labels": "some", "mask": "left"}], plant=in_output)
def loss_of_all_beside_a_mask(inputs: Inputs, output: Output) -> Output:
    """With a mask, the loss is the mean over all tokens, including those without a label."""
    if inputs.labels is None or inputs.attention_mask is None:
        return output
    wanted = inputs.labels[:, 1:]
    assert output.loss is not None
    return replace(output, loss=output.loss * (wanted != NO_LABEL).double().mean())


@fault("forward.outputs", circumstances=[{"grad": "grad", "history": "inference"}], raises=True)
def table_of_inference_mode() -> Mutation:
    """The first forward makes a table that is kept, even when it runs in inference mode."""
    kept: list[Tensor] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if not kept:
            kept.append(torch.ones(output.logits.shape[-1], dtype=output.logits.dtype, device=output.logits.device))
        return replace(output, logits=output.logits * kept[0])

    return Mutation(forward=forward)


@fault("forward.outputs", circumstances=[{"dtype": "float16", "tokens": "embeddings"}], plant=in_inputs)
def embeddings_coarse_in_half(inputs: Inputs) -> Inputs:
    """Embeddings in the place of tokens go through eight bits, in models of half precision."""
    embeds = inputs.inputs_embeds
    return inputs if embeds is None else replace(inputs, inputs_embeds=in_eight_bits(embeds))


@fault("forward.losses", circumstances=[{"dtype": "float16", "labels": "given"}], plant=in_adapter)
def loss_coarse_in_half(model: Any) -> Mutation:
    """The loss goes through eight bits, in models of half precision."""
    dtype: torch.dtype = model.dtype  # HF's losses are in float32, whatever the model's is

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return output if output.loss is None else replace(output, loss=in_eight_bits(output.loss.to(dtype)))

    return Mutation(forward=forward)
