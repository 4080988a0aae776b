"""Adapters that compute something else, always or only in one way of calling them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier.adapter import Inputs, Output, Subject
from verifier.cases.inputs import NO_LABEL
from verifier.faults.mutants import SLIGHTLY, Fault, Mutation, in_adapter, in_eight_bits
from verifier.judging.outcome import NotApplicable
from verifier.observing.capabilities import require

WINDOW = 64  # positions that the shortsighted mutant remembers


def _scaled(output: Output) -> Output:
    return replace(output, logits=output.logits * (1 + SLIGHTLY))


def _when(condition: Callable[[Inputs], bool]) -> Mutation:
    """Slightly off, for some inputs only."""

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return _scaled(output) if condition(inputs) else output

    return Mutation(forward=forward)


def _with_inputs(change: Callable[[Inputs], Inputs]) -> Mutation:
    """Right, of other inputs."""
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


def _unshifted_loss(subject: Subject, inputs: Inputs) -> Output:
    output = subject.forward(inputs)
    if inputs.labels is None:
        return output
    return replace(output, loss=F.cross_entropy(output.logits.flatten(0, 1), inputs.labels.flatten()))


def _diluted_loss(subject: Subject, inputs: Inputs) -> Output:
    output = subject.forward(inputs)
    if inputs.labels is None or inputs.attention_mask is None:
        return output
    wanted = inputs.labels[:, 1:]
    assert output.loss is not None
    return replace(output, loss=output.loss * (wanted != NO_LABEL).double().mean())


def _keeps_a_table() -> Mutation:
    kept: list[Tensor] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if not kept:
            kept.append(torch.ones(output.logits.shape[-1], dtype=output.logits.dtype, device=output.logits.device))
        return replace(output, logits=output.logits * kept[0])

    return Mutation(forward=forward)


def _coarse_embeds(inputs: Inputs) -> Inputs:
    embeds = inputs.inputs_embeds
    return inputs if embeds is None else replace(inputs, inputs_embeds=in_eight_bits(embeds))


def _coarse_loss(model: Any) -> Mutation:
    dtype: torch.dtype = model.dtype  # HF's losses are in float32, whatever the model's is

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return output if output.loss is None else replace(output, loss=in_eight_bits(output.loss.to(dtype)))

    return Mutation(forward=forward)


def _first_row_for_all(mask: Tensor) -> Tensor:
    """The batch is given the mask of its last row."""
    return mask[-1:].expand_as(mask)


def _drifting() -> Mutation:
    calls: list[Inputs] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        calls.append(inputs)
        output = subject.forward(inputs)
        return _scaled(output) if len(calls) > 1 else output

    return Mutation(forward=forward)


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


def _overwrites(subject: Subject, inputs: Inputs) -> Output:
    """The mask of the caller's is written into."""
    output = subject.forward(inputs)
    if inputs.attention_mask is not None:
        inputs.attention_mask.fill_(1)
    return output


def _rounded_to(coarse: torch.dtype, only_in: torch.dtype) -> Mutation:
    """Every activation goes through a coarser dtype, in models of one dtype."""

    def through(value: Tensor) -> Tensor:
        return value.to(coarse).to(value.dtype) if value.dtype == only_in else value

    points = ("hook_resid_pre", "hook_normalized", "hook_q", "hook_k", "hook_v", "hook_z", "hook_post", "hook_mlp_out")
    return Mutation(edits=dict.fromkeys((f"{name}" for name in points), through))


def _halved_scale(scores: Tensor) -> Tensor:
    """The scale of the scores is lost: they are twice as large, where they can be seen."""
    return torch.where(scores > torch.finfo(scores.dtype).min / 4, scores * 2, scores)


def _drop_one_bias(model: nn.Module) -> None:
    """A linear layer loses its bias."""
    _lose_bias(model, nn.Linear)


def _forget_norm_bias(model: nn.Module) -> None:
    """A norm loses its bias."""
    _lose_bias(model, nn.LayerNorm)


@torch.no_grad()
def _lose_bias(model: nn.Module, kind: type[nn.Module]) -> None:
    for module in model.modules():
        if isinstance(module, kind) and isinstance(module.bias, nn.Parameter):
            module.bias.zero_()
            return
    raise NotApplicable(f"no {kind.__name__} has a bias")


def _causal_only(inputs: Inputs) -> Inputs:
    return replace(inputs, attention_mask=None)


def _loss_per_row(subject: Subject, inputs: Inputs) -> Output:
    output = subject.forward(inputs)
    if inputs.labels is None:
        return output
    each = [F.cross_entropy(row[:-1], wanted[1:]) for row, wanted in zip(output.logits, inputs.labels, strict=True)]
    return replace(output, loss=torch.stack(each).mean())


def _detached_loss(subject: Subject, inputs: Inputs) -> Output:
    output = subject.forward(inputs)
    return output if output.loss is None else replace(output, loss=output.loss.detach())


def _guessed_padding(subject: Subject, inputs: Inputs) -> Output:
    """Tokens of number 0 at the end of a row are taken for padding where no mask is given."""
    ids = inputs.input_ids
    if ids is None or inputs.attention_mask is not None or inputs.cache is not None:
        return subject.forward(inputs)
    real = (ids != 0).flip(1).cumsum(1).flip(1) > 0
    return subject.forward(inputs if bool(real.all()) else replace(inputs, attention_mask=real.long()))


FAULTS = (
    Fault(
        name="padding-guessed",
        what="where no mask is given, token 0 at the end of a row is taken for padding",
        caught_by=["forward.logits"],
        plant=in_adapter(Mutation(forward=_guessed_padding)),
    ),
    Fault(
        name="loss-per-row",
        what="the loss is the mean of each row's mean",
        caught_by=["forward.loss"],
        plant=in_adapter(Mutation(forward=_loss_per_row)),
    ),
    Fault(
        name="loss-detached",
        what="the loss is in no graph",
        caught_by=["forward.loss"],
        plant=in_adapter(Mutation(forward=_detached_loss)),
    ),
    Fault(
        name="logits-scaled",
        what="the logits are off by one in ten thousand",
        caught_by=["forward.logits"],
        plant=in_adapter(_when(lambda _inputs: True)),
    ),
    Fault(
        name="scores-doubled",
        what="the scale of the attention scores is wrong",
        caught_by=["forward.logits"],
        plant=in_adapter(Mutation(edits={"attn.hook_attn_scores": _halved_scale})),
    ),
    Fault(
        name="bias-dropped",
        what="a linear layer has lost its bias",
        caught_by=["forward.logits"],
        plant=in_adapter(Mutation(model=_drop_one_bias)),
    ),
    Fault(
        name="norm-bias-dropped",
        what="a norm has lost its bias",
        caught_by=["forward.logits"],
        plant=in_adapter(Mutation(model=_forget_norm_bias)),
    ),
    Fault(
        name="shortsighted",
        what=f"attention ends after {WINDOW} positions",
        caught_by=["forward.lengths"],
        plant=in_adapter(Mutation(edits={"attn.hook_attn_scores": _shortsighted})),
    ),
    Fault(
        name="one-token-wrong",
        what="a single token goes through another path, slightly off",
        caught_by=["forward.lengths"],
        plant=in_adapter(_when(lambda inputs: inputs.input_ids is not None and inputs.input_ids.shape[1] == 1)),
    ),
    Fault(
        name="mask-ignored",
        what="the attention mask is not passed on",
        caught_by=["forward.left_padding", "forward.gaps", "forward.mixed_padding"],
        plant=in_adapter(_with_inputs(_causal_only)),
    ),
    Fault(
        name="mask-flipped",
        what="padding is looked for on the wrong side",
        caught_by=["forward.right_padding", "forward.left_padding"],
        plant=in_adapter(_with_mask(lambda mask: mask.flip(-1))),
    ),
    Fault(
        name="mask-gaps-filled",
        what="only the ends of the mask are looked at",
        caught_by=["forward.gaps"],
        plant=in_adapter(_with_mask(_without_gaps)),
    ),
    Fault(
        name="mask-one-side",
        what="a row that is padded on both sides is masked on one",
        caught_by=["forward.mixed_padding"],
        plant=in_adapter(_with_mask(_one_side_only)),
    ),
    Fault(
        name="mask-of-one-row",
        what="every row of a batch gets one row's mask",
        caught_by=["forward.batch"],
        plant=in_adapter(_with_mask(_first_row_for_all)),
    ),
    Fault(
        name="position-ids-ignored",
        what="the caller's position ids are not passed on",
        caught_by=["forward.position_ids"],
        plant=in_adapter(_with_inputs(lambda inputs: replace(inputs, position_ids=None))),
    ),
    Fault(
        name="position-ids-or-mask",
        what="position ids are not passed on where there is padding",
        caught_by=["forward.padded_position_ids"],
        plant=in_adapter(
            _with_inputs(
                lambda inputs: (
                    inputs
                    if inputs.attention_mask is None or bool(inputs.attention_mask.all())
                    else replace(inputs, position_ids=None)
                )
            )
        ),
    ),
    Fault(
        name="embeds-or-mask",
        what="the mask is not passed on beside embeddings",
        caught_by=["forward.inputs_embeds"],
        plant=in_adapter(
            _with_inputs(
                lambda inputs: inputs if inputs.inputs_embeds is None else replace(inputs, attention_mask=None)
            )
        ),
    ),
    Fault(
        name="gradients-change-it",
        what="with gradients enabled it goes through another path, slightly off",
        caught_by=["forward.gradients"],
        plant=in_adapter(_when(lambda _inputs: torch.is_grad_enabled())),
    ),
    Fault(
        name="inputs-overwritten",
        what="the caller's mask is written into",
        caught_by=["forward.inputs"],
        plant=in_adapter(Mutation(forward=_overwrites)),
    ),
    Fault(
        name="embeds-scaled",
        what="embeddings of the caller's are slightly scaled",
        caught_by=["forward.inputs_embeds"],
        plant=in_adapter(_when(lambda inputs: inputs.inputs_embeds is not None)),
    ),
    Fault(
        name="loss-unshifted",
        what="the loss compares each token with itself",
        caught_by=["forward.loss"],
        plant=in_adapter(Mutation(forward=_unshifted_loss)),
    ),
    Fault(
        name="pattern-transposed",
        what="the pattern is shown with queries and keys exchanged",
        caught_by=["forward.patterns"],
        plant=in_adapter(Mutation(shows={"attn.hook_pattern": lambda pattern: pattern.transpose(-1, -2)})),
    ),
    Fault(
        name="pattern-heads-permuted",
        what="the pattern is shown with its heads in another order",
        caught_by=["forward.patterns"],
        plant=in_adapter(Mutation(shows={"attn.hook_pattern": lambda pattern: pattern.flip(1)})),
    ),
    Fault(
        name="mask-off-by-one",
        what="each position sees the next one",
        caught_by=["forward.causality", "forward.logits"],
        plant=in_adapter(Mutation(edits={"attn.hook_attn_scores": _leaky})),
    ),
    Fault(
        name="second-call-wrong",
        what="it is right only the first time",
        caught_by=["forward.twice"],
        plant=in_adapter(lambda _model: _drifting()),
    ),
    Fault(
        name="dropout-of-its-own",
        what="in training mode it drops what HF does not",
        caught_by=["forward.training", "forward.dropout"],
        plant=in_adapter(lambda _model: _training(dropping=True)),
    ),
    Fault(
        name="dropouts-missing",
        what="training mode does not reach the dropouts",
        caught_by=["forward.dropout"],
        plant=in_adapter(lambda _model: _training(dropping=False)),
    ),
    Fault(
        name="single-in-half",
        what="a float32 model is computed in bfloat16",
        caught_by=["forward.float32"],
        plant=in_adapter(_rounded_to(torch.bfloat16, torch.float32)),
    ),
    Fault(
        name="bfloat16-in-eight-bits",
        what="wrong only in bfloat16: activations go through eight bits",
        caught_by=["forward.bfloat16"],
        plant=in_adapter(_rounded_to(torch.float8_e4m3fn, torch.bfloat16)),
    ),
    Fault(
        name="float16-in-bfloat16",
        what="wrong only in float16: activations go through bfloat16",
        caught_by=["forward.float16"],
        plant=in_adapter(_rounded_to(torch.bfloat16, torch.float16)),
    ),
    Fault(
        name="loss-of-all-beside-a-mask",
        what="beside a mask the loss is the mean over all tokens, those without a label among them",
        caught_by=["forward.loss"],
        plant=in_adapter(Mutation(forward=_diluted_loss)),
    ),
    Fault(
        name="table-of-inference-mode",
        what="a table that the first forward makes is kept, also where that was in inference mode",
        caught_by=["forward.inference_mode"],
        plant=in_adapter(lambda _model: _keeps_a_table()),
        raises=True,
    ),
    Fault(
        name="embeddings-coarse-in-half",
        what="embeddings in the place of tokens go through eight bits, in models of half precision",
        caught_by=["forward.float16"],
        plant=in_adapter(_with_inputs(_coarse_embeds)),
    ),
    Fault(
        name="loss-coarse-in-half",
        what="the loss goes through eight bits, in models of half precision",
        caught_by=["forward.float16"],
        plant=in_adapter(_coarse_loss),
    ),
)
