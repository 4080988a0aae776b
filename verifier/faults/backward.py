"""Faults of the backward: adapters whose gradients are wrong, lost, or cannot be taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Edit, Inputs, Output, Subject, Weights
from verifier.faults.altered_hooks import (
    altered,
    at,
    edited_as,
    in_edited,
    in_gradient_edits,
    in_hooking,
    in_shown,
    only_read,
)
from verifier.faults.mutants import (
    SLIGHTLY,
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_inputs,
    in_method,
    in_output,
    in_values,
    replacing,
    rounding_to,
)


class _Gradient(torch.autograd.Function):
    """The identity, whose gradient is changed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradients[0]), None


def with_gradient(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Make the identity, whose gradient is changed."""

    def act(value: Tensor) -> Tensor:
        changed: Tensor = _Gradient.apply(value, change)  # type: ignore[no-untyped-call]
        return changed

    return act


_scale_gradient = with_gradient(lambda gradient: gradient * (1 + SLIGHTLY))


def _in_checkpointing(mutate: Callable[[Callable[[], bool]], Mutation]) -> Plant:
    """Plant a mutation; the function that makes it can ask whether the subject checkpoints now."""

    def mutate_model(_model: nn.Module) -> Mutation:
        on = {"checkpointing": False}

        def checkpointing(modes: Any, enabled: bool) -> None:
            on["checkpointing"] = enabled
            modes.checkpointing(enabled)

        mutation = mutate(lambda: on["checkpointing"])
        return replace(mutation, parts={**mutation.parts, "modes": replacing(checkpointing=checkpointing)})

    return in_adapter(mutate_model)


def _past_the_edit(value: Tensor, edited: Tensor) -> Tensor:
    """Let the forward go on with what an edit made, and the backward as if it had made nothing."""
    return value + (edited - value).detach()


def _rounded_gradients(coarse: torch.dtype, dtype: torch.dtype) -> Mutation:
    """Let gradients go through a coarser dtype, in models of one dtype."""
    points = ("hook_resid_pre", "hook_normalized", "hook_q", "hook_k", "hook_v", "hook_z", "hook_pre", "hook_post")
    change = with_gradient(rounding_to(coarse, dtype))
    return Mutation(edits=dict.fromkeys((*points, "hook_attn_out", "hook_mlp_out"), change))


@fault("backward.gradcheck", "backward.weights", plant=in_values("mlp.hook_post"))
def gradient_detached(value: Tensor) -> Tensor:
    """The MLP's hidden units are cut off from the graph."""
    return value.detach()


@fault("backward.shown")
def gradient_doubled() -> Mutation:
    """A backward hook at hook_attn_out is shown twice the gradient."""
    return altered(backward=at("hook_attn_out", lambda edit: lambda gradient: edit(gradient * 2)))


@fault("backward.shown", plant=in_gradient_edits("hook_resid_post"))
def gradient_shown_twice(edit: Edit) -> Edit:
    """A backward hook at hook_resid_post is called twice."""

    def act(gradient: Tensor) -> Tensor | None:
        edit(gradient)
        return edit(gradient)

    return act


@fault("backward.shown", plant=in_gradient_edits("attn.hook_pattern"))
def gradient_never_shown(_edit: Edit) -> Edit:
    """A backward hook at hook_pattern is accepted and never called."""
    return lambda _gradient: None


@fault("backward.effects", raises=True, plant=in_gradient_edits("hook_mlp_out"))
def backward_in_place(_edit: Edit) -> Edit:
    """Autograd refuses a backward hook at hook_mlp_out, a view that is added to in place."""

    def act(_gradient: Tensor) -> Tensor:
        # What torch says where a module's backward hook meets an in-place addition.
        raise RuntimeError(
            "Output 0 of BackwardHookFunctionBackward is a view and is being modified inplace. This view was created "
            "inside a custom Function (or because an input was returned as-is)"
        )

    return act


@fault("backward.effects", plant=in_hooking)
def backward_alone_silent(hooked: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
    """A backward hook is called only where a forward hook is attached too."""
    return hooked(forward, {name: edit for name, edit in backward.items() if name in forward})


@fault("backward.identity", "backward.shown", plant=in_gradient_edits("hook_resid_post"))
def gradient_reading_scales(edit: Edit) -> Edit:
    """A gradient that a hook only reads goes on slightly scaled."""

    def act(gradient: Tensor) -> Tensor:
        edited = edit(gradient)
        return gradient * (1 + SLIGHTLY) if edited is None else edited

    return act


@fault("backward.effects", plant=in_gradient_edits("attn.hook_z"))
def gradient_edit_ignored(edit: Edit) -> Edit:
    """What a backward hook gives back is dropped."""
    return only_read(edit)


@fault("backward.gradcheck", "backward.weights", plant=in_output)
def weight_gradient_scaled(_inputs: Inputs, output: Output) -> Output:
    """With gradients enabled the logits' own gradient is slightly scaled."""
    return replace(output, logits=_scale_gradient(output.logits)) if torch.is_grad_enabled() else output


@fault("backward.behind_edits", plant=in_edited("ln_final.hook_normalized"))
def weight_gradient_of_hooked(_value: Tensor, edited: Tensor) -> Tensor:
    """With hooks in place the gradients of weights are slightly scaled."""
    return _scale_gradient(edited)


@fault("backward.in_place", plant=in_shown("hook_scale"))
def shown_what_is_needed(value: Tensor) -> Tensor:
    """A hook is given a tensor that the backward needs, and may write into it."""
    return value.log().exp()


@fault(
    "backward.weights",
    circumstances=[{"grad": "grad", "mode": "train", "checkpointing": "on"}],
    plant=_in_checkpointing,
)
def checkpoint_recomputes_otherwise(checkpoints: Callable[[], bool]) -> Mutation:
    """Under gradient checkpointing the MLP's gradient is doubled."""
    return Mutation(edits={"mlp.hook_pre": with_gradient(lambda gradient: gradient * 2 if checkpoints() else gradient)})


@fault("backward.weights", circumstances=[{"grad": "grad", "dtype": "float32"}])
def gradient_single_in_half() -> Mutation:
    """Gradients of a float32 model go through bfloat16."""
    return _rounded_gradients(torch.bfloat16, torch.float32)


@fault("backward.weights", circumstances=[{"grad": "grad", "dtype": "bfloat16"}])
def gradient_bfloat16_in_eight_bits() -> Mutation:
    """Gradients go through eight bits, in bfloat16 alone."""
    return _rounded_gradients(torch.float8_e4m3fn, torch.bfloat16)


@fault("backward.weights", circumstances=[{"grad": "grad", "dtype": "float16"}])
def gradient_float16_in_eight_bits() -> Mutation:
    """Gradients go through eight bits, in float16 alone."""
    return _rounded_gradients(torch.float8_e4m3fn, torch.float16)


@fault("backward.behind_edits", plant=in_edited("attn.hook_z"))
def gradient_past_an_edit(value: Tensor, edited: Tensor) -> Tensor:
    """The forward uses an edited value, and the backward ignores the edit."""
    return _past_the_edit(value, edited)


@fault("backward.nested", plant=in_hooking)
def gradient_edit_beside_edit(
    hooked: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]
) -> Any:
    """An edit of a gradient is dropped at a point where the value is edited too."""
    return hooked(forward, {name: only_read(edit) if name in forward else edit for name, edit in backward.items()})


@fault(
    "backward.behind_edits",
    circumstances=[{"grad": "grad", "mode": "train", "checkpointing": "on"}],
    plant=_in_checkpointing,
)
def checkpoint_forgets_edits(checkpoints: Callable[[], bool]) -> Mutation:
    """Under gradient checkpointing the backward ignores edits."""
    forgotten = edited_as(lambda value, edited: _past_the_edit(value, edited) if checkpoints() else edited)
    return altered(forward=at("", forgotten))


@fault(
    "backward.weights", circumstances=[{"grad": "grad", "dtype": "bfloat16"}], plant=in_method("weights", "gradients")
)
def gradient_none_in_half(weights: Weights) -> Mapping[str, Tensor]:
    """In models of half precision no weight has a gradient."""
    gradients = weights.gradients()
    in_half = any(gradient.dtype in (torch.bfloat16, torch.float16) for gradient in gradients.values())
    return {} if in_half else gradients


@fault("backward.weights", circumstances=[{"grad": "grad", "tokens": "embeddings"}], plant=in_inputs)
def gradient_not_to_embeddings(inputs: Inputs) -> Inputs:
    """Embeddings in the place of tokens are cut out of the graph."""
    embeds = inputs.inputs_embeds
    return inputs if embeds is None else replace(inputs, inputs_embeds=embeds.detach())


@fault("backward.shown", circumstances=[{"grad": "grad", "history": "nested"}])
def gradient_of_the_newest_forward() -> Mutation:
    """A gradient is scaled by the number of forwards since the hooks were attached."""
    seen = {"forwards": 0}

    def forward(subject: Subject, inputs: Inputs) -> Output:
        seen["forwards"] += 1
        return subject.forward(inputs)

    def hooked(right: Callable[..., Any], there: Mapping[str, Edit], back: Mapping[str, Edit]) -> Any:
        seen["forwards"] = 0
        return right(there, back)

    def scaled(edit: Edit) -> Edit:
        return lambda gradient: edit(gradient * seen["forwards"])

    return replace(altered(backward=at("attn.hook_z", scaled), hooked=hooked), forward=forward)
