"""Faults of the forward: adapters whose logits or loss are wrong, always or only in some calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier.adapter import Inputs, Output, Subject
from verifier.cases.inputs import NO_LABEL
from verifier.faults.mutants import (
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_eight_bits,
    in_forward,
    in_model,
    in_output,
    slightly_scaled,
)
from verifier.judging.outcome import NotApplicable
from verifier.observing.capabilities import require

WINDOW = 64  # positions that the shortsighted mutant remembers


def _when(condition: Callable[[Inputs], bool]) -> Mutation:
    """Logits that are slightly off for some inputs only."""

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return slightly_scaled(output) if condition(inputs) else output

    return Mutation(forward=forward)


def _with_inputs(change: Callable[[Inputs], Inputs]) -> Mutation:
    """A right forward that is given other inputs."""
    return Mutation(forward=lambda subject, inputs: subject.forward(change(inputs)))


def _with_mask(change: Callable[[Tensor], Tensor | None]) -> Mutation:
    def masked(inputs: Inputs) -> Inputs:
        return (
            inputs if inputs.attention_mask is None else replace(inputs, attention_mask=change(inputs.attention_mask))
        )

    return _with_inputs(masked)


def _without_gaps(mask: Tensor) -> Tensor:
    """Everything from the first token to the last is taken for real."""
    started = mask.cumsum(-1) > 0
    unfinished = mask.flip(-1).cumsum(-1).flip(-1) > 0
    return (started & unfinished).to(mask.dtype)


def _one_side_only(mask: Tensor) -> Tensor:
    """A row that is padded on the right is not looked at for padding on the left."""
    padded_right = mask[:, -1:] == 0
    before_first = mask.cumsum(-1) == 0
    return torch.where(padded_right & before_first, torch.ones_like(mask), mask)


def _shortsighted(scores: Tensor) -> Tensor:  # [batch, head, query, key]
    lowest = torch.finfo(scores.dtype).min
    far = torch.ones_like(scores, dtype=torch.bool).tril(-WINDOW)
    return scores.masked_fill(far, lowest)


def _leaky(scores: Tensor) -> Tensor:  # [batch, head, query, key]
    """The mask is off by one: each query sees the next key too."""
    length = scores.shape[-1]
    if length < 2:
        return scores
    here = torch.arange(length - 1)
    changed = scores.clone()
    changed[..., here, here + 1] = scores[..., here, here]
    return changed


def _coarse_embeds(inputs: Inputs) -> Inputs:
    embeds = inputs.inputs_embeds
    return inputs if embeds is None else replace(inputs, inputs_embeds=in_eight_bits(embeds))


def _first_row_for_all(mask: Tensor) -> Tensor:
    """The batch is given the mask of its last row."""
    return mask[-1:].expand_as(mask)


def _training(dropping: bool) -> Mutation:
    """In training mode it drops of its own accord, or it never enters training mode."""
    mode = {"training": False}

    def train(subject: Subject, on: bool) -> None:
        mode["training"] = on
        if dropping:
            require(subject.modes).train(on)

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if not dropping:
            return output
        return replace(output, logits=F.dropout(output.logits, 0.1, training=mode["training"]))

    return Mutation(train=train, forward=forward)


def _rounded_to(coarse: torch.dtype, only_in: torch.dtype) -> Mutation:
    """Every activation goes through a coarser dtype, in models of one dtype."""

    def through(value: Tensor) -> Tensor:
        return value.to(coarse).to(value.dtype) if value.dtype == only_in else value

    points = ("hook_resid_pre", "hook_normalized", "hook_q", "hook_k", "hook_v", "hook_z", "hook_post", "hook_mlp_out")
    return Mutation(edits=dict.fromkeys((f"{name}" for name in points), through))


def _halved_scale(scores: Tensor) -> Tensor:
    """The scale of the scores is lost: they are twice as large, where they can be seen."""
    return torch.where(scores > torch.finfo(scores.dtype).min / 4, scores * 2, scores)


@torch.no_grad()
def _lose_bias(model: nn.Module, kind: type[nn.Module]) -> None:
    for module in model.modules():
        if isinstance(module, kind) and isinstance(module.bias, nn.Parameter):
            module.bias.zero_()
            return
    raise NotApplicable(f"no {kind.__name__} has a bias")


def _causal_only(inputs: Inputs) -> Inputs:
    return replace(inputs, attention_mask=None)


@fault("forward.logits", plant=in_forward)
def padding_guessed(subject: Subject, inputs: Inputs) -> Output:
    """Where no mask is given, token 0 at the end of a row is taken for padding."""
    ids = inputs.input_ids
    if ids is None or inputs.attention_mask is not None or inputs.cache is not None:
        return subject.forward(inputs)
    real = (ids != 0).flip(1).cumsum(1).flip(1) > 0
    return subject.forward(inputs if bool(real.all()) else replace(inputs, attention_mask=real.long()))


@fault("forward.loss", plant=in_output)
def loss_per_row(inputs: Inputs, output: Output) -> Output:
    """The loss is the mean of each row's mean."""
    if inputs.labels is None:
        return output
    each = [F.cross_entropy(row[:-1], wanted[1:]) for row, wanted in zip(output.logits, inputs.labels, strict=True)]
    return replace(output, loss=torch.stack(each).mean())


@fault("forward.loss", plant=in_output)
def loss_detached(inputs: Inputs, output: Output) -> Output:
    """The loss is detached from the graph."""
    return output if output.loss is None else replace(output, loss=output.loss.detach())


@fault("forward.logits")
def logits_scaled() -> Plant:
    """The logits are off by one in ten thousand."""
    return in_adapter(_when(lambda _inputs: True))


@fault("forward.logits")
def scores_doubled() -> Plant:
    """The scale of the attention scores is wrong."""
    return in_adapter(Mutation(edits={"attn.hook_attn_scores": _halved_scale}))


@fault("forward.logits", plant=in_model)
def bias_dropped(model: nn.Module) -> None:
    """A linear layer has lost its bias."""
    _lose_bias(model, nn.Linear)


@fault("forward.logits", plant=in_model)
def norm_bias_dropped(model: nn.Module) -> None:
    """A norm has lost its bias."""
    _lose_bias(model, nn.LayerNorm)


@fault("forward.lengths")
def shortsighted() -> Plant:
    """Attention ends after 64 positions."""
    return in_adapter(Mutation(edits={"attn.hook_attn_scores": _shortsighted}))


@fault("forward.lengths")
def one_token_wrong() -> Plant:
    """A single token goes through another path, slightly off."""
    return in_adapter(_when(lambda inputs: inputs.input_ids is not None and inputs.input_ids.shape[1] == 1))


@fault("forward.left_padding", "forward.gaps", "forward.mixed_padding")
def mask_ignored() -> Plant:
    """The attention mask is not passed on."""
    return in_adapter(_with_inputs(_causal_only))


@fault("forward.right_padding", "forward.left_padding")
def mask_flipped() -> Plant:
    """The mask is reversed: padding is taken to be on the other side."""
    return in_adapter(_with_mask(lambda mask: mask.flip(-1)))


@fault("forward.gaps")
def mask_gaps_filled() -> Plant:
    """Only padding at the ends of a row is masked; gaps inside it are not."""
    return in_adapter(_with_mask(_without_gaps))


@fault("forward.mixed_padding")
def mask_one_side() -> Plant:
    """A row that is padded on both sides is masked on the right side only."""
    return in_adapter(_with_mask(_one_side_only))


@fault("forward.batch")
def mask_of_one_row() -> Plant:
    """Every row of a batch gets the mask of the last row."""
    return in_adapter(_with_mask(_first_row_for_all))


@fault("forward.position_ids")
def position_ids_ignored() -> Plant:
    """The caller's position ids are not passed on."""
    return in_adapter(_with_inputs(lambda inputs: replace(inputs, position_ids=None)))


@fault("forward.padded_position_ids")
def position_ids_or_mask() -> Plant:
    """Position ids are not passed on where there is padding."""
    return in_adapter(
        _with_inputs(
            lambda inputs: (
                inputs
                if inputs.attention_mask is None or bool(inputs.attention_mask.all())
                else replace(inputs, position_ids=None)
            )
        )
    )


@fault("forward.inputs_embeds")
def embeds_or_mask() -> Plant:
    """The mask is not passed on when embeddings are given."""
    return in_adapter(
        _with_inputs(lambda inputs: inputs if inputs.inputs_embeds is None else replace(inputs, attention_mask=None))
    )


@fault("forward.gradients")
def gradients_change_it() -> Plant:
    """With gradients enabled the forward takes another path, slightly off."""
    return in_adapter(_when(lambda _inputs: torch.is_grad_enabled()))


@fault("forward.inputs", plant=in_output)
def inputs_overwritten(inputs: Inputs, output: Output) -> Output:
    """The caller's mask is written into."""
    if inputs.attention_mask is not None:
        inputs.attention_mask.fill_(1)
    return output


@fault("forward.inputs_embeds")
def embeds_scaled() -> Plant:
    """The logits are slightly off when the caller gives embeddings."""
    return in_adapter(_when(lambda inputs: inputs.inputs_embeds is not None))


@fault("forward.loss", plant=in_output)
def loss_unshifted(inputs: Inputs, output: Output) -> Output:
    """The loss compares each token with itself."""
    if inputs.labels is None:
        return output
    return replace(output, loss=F.cross_entropy(output.logits.flatten(0, 1), inputs.labels.flatten()))


@fault("forward.patterns")
def pattern_transposed() -> Plant:
    """The pattern is shown with queries and keys exchanged."""
    return in_adapter(Mutation(shows={"attn.hook_pattern": lambda pattern: pattern.transpose(-1, -2)}))


@fault("forward.patterns")
def pattern_heads_permuted() -> Plant:
    """The pattern is shown with its heads in another order."""
    return in_adapter(Mutation(shows={"attn.hook_pattern": lambda pattern: pattern.flip(1)}))


@fault("forward.causality", "forward.logits")
def mask_off_by_one() -> Plant:
    """Each position sees the next one."""
    return in_adapter(Mutation(edits={"attn.hook_attn_scores": _leaky}))


@fault("forward.twice", plant=in_adapter)
def second_call_wrong(_model: nn.Module) -> Mutation:
    """The forward is right only the first time."""
    calls: list[Inputs] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        calls.append(inputs)
        output = subject.forward(inputs)
        return slightly_scaled(output) if len(calls) > 1 else output

    return Mutation(forward=forward)


@fault("forward.training", "forward.dropout")
def dropout_of_its_own() -> Plant:
    """Training mode has a dropout that HF does not have."""
    return in_adapter(lambda _model: _training(dropping=True))


@fault("forward.dropout")
def dropouts_missing() -> Plant:
    """Training mode does not reach the dropouts."""
    return in_adapter(lambda _model: _training(dropping=False))


@fault("forward.float32")
def single_in_half() -> Plant:
    """A float32 model is computed in bfloat16."""
    return in_adapter(_rounded_to(torch.bfloat16, torch.float32))


@fault("forward.bfloat16")
def bfloat16_in_eight_bits() -> Plant:
    """Wrong only in bfloat16: activations go through eight bits."""
    return in_adapter(_rounded_to(torch.float8_e4m3fn, torch.bfloat16))


@fault("forward.float16")
def float16_in_bfloat16() -> Plant:
    """Wrong only in float16: activations go through bfloat16."""
    return in_adapter(_rounded_to(torch.bfloat16, torch.float16))


@fault("forward.loss", plant=in_output)
def loss_of_all_beside_a_mask(inputs: Inputs, output: Output) -> Output:
    """With a mask, the loss is the mean over all tokens, including those without a label."""
    if inputs.labels is None or inputs.attention_mask is None:
        return output
    wanted = inputs.labels[:, 1:]
    assert output.loss is not None
    return replace(output, loss=output.loss * (wanted != NO_LABEL).double().mean())


@fault("forward.inference_mode", raises=True, plant=in_adapter)
def table_of_inference_mode(_model: nn.Module) -> Mutation:
    """The first forward makes a table that is kept, even when it runs in inference mode."""
    kept: list[Tensor] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if not kept:
            kept.append(torch.ones(output.logits.shape[-1], dtype=output.logits.dtype, device=output.logits.device))
        return replace(output, logits=output.logits * kept[0])

    return Mutation(forward=forward)


@fault("forward.float16")
def embeddings_coarse_in_half() -> Plant:
    """Embeddings in the place of tokens go through eight bits, in models of half precision."""
    return in_adapter(_with_inputs(_coarse_embeds))


@fault("forward.float16", plant=in_adapter)
def loss_coarse_in_half(model: Any) -> Mutation:
    """The loss goes through eight bits, in models of half precision."""
    dtype: torch.dtype = model.dtype  # HF's losses are in float32, whatever the model's is

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return output if output.loss is None else replace(output, loss=in_eight_bits(output.loss.to(dtype)))

    return Mutation(forward=forward)
