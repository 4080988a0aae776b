"""Faults of the backward: adapters whose gradients are wrong, lost, or cannot be taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Edit, Inputs, Output, Subject
from verifier.faults.altered_hooks import altered, at, edited_as, only_read, shown_as
from verifier.faults.mutants import SLIGHTLY, Mutation, Plant, fault, in_adapter, in_forward, replacing


class _Gradient(torch.autograd.Function):
    """The identity, whose gradient is changed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradients[0]), None


def _with_gradient(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def act(value: Tensor) -> Tensor:
        changed: Tensor = _Gradient.apply(value, change)  # type: ignore[no-untyped-call]
        return changed

    return act


def _scaled(gradient: Tensor) -> Tensor:
    return gradient * (1 + SLIGHTLY)


def _lost(_edit: Edit) -> Edit:
    return lambda _gradient: None


def _twice(edit: Edit) -> Edit:
    def act(gradient: Tensor) -> Tensor | None:
        edit(gradient)
        return edit(gradient)

    return act


def _raises(_edit: Edit) -> Edit:
    """What torch says where a module's backward hook meets an in-place addition."""

    def act(_gradient: Tensor) -> Tensor:
        raise RuntimeError(
            "Output 0 of BackwardHookFunctionBackward is a view and is being modified inplace. This view was created "
            "inside a custom Function (or because an input was returned as-is)"
        )

    return act


def _reading_scales(edit: Edit) -> Edit:
    """A gradient that is only read goes on slightly scaled."""

    def act(gradient: Tensor) -> Tensor:
        edited = edit(gradient)
        return gradient * (1 + SLIGHTLY) if edited is None else edited

    return act


def _in_checkpointing(breaks: Callable[[Callable[[], bool]], Mutation]) -> Mutation:
    """Make a mutation of a function that is given a way to ask whether the subject checkpoints now."""
    on = {"checkpointing": False}

    def checkpointing(modes: Any, enabled: bool) -> None:
        on["checkpointing"] = enabled
        modes.checkpointing(enabled)

    made = breaks(lambda: on["checkpointing"])
    return replace(made, parts={**made.parts, "modes": replacing(checkpointing=checkpointing)})


def _checkpoints_wrongly(now: Callable[[], bool]) -> Mutation:
    """Where it checkpoints, what is recomputed has another gradient."""
    act = _with_gradient(lambda gradient: gradient * 2 if now() else gradient)
    return Mutation(edits={"mlp.hook_pre": act})


def _past_the_edit(while_: Callable[[], bool] = lambda: True) -> Callable[[Edit], Edit]:
    """The forward goes on with what the edit made, the backward as if it had made nothing."""
    return edited_as(lambda value, edited: value + (edited - value).detach() if while_() else edited)


def _checkpoints_forget_edits(now: Callable[[], bool]) -> Mutation:
    """Where it checkpoints, an edit is made once and not when the block is computed again."""
    return altered(forward=at("", _past_the_edit(now)))


def _only_reads_beside_edits(hooked: Callable[..., Any], forward: Any, backward: Any) -> Any:
    """What a backward hook gives back is dropped where a hook of values is too."""
    return hooked(forward, {name: only_read(edit) if name in forward else edit for name, edit in backward.items()})


def _none_in(*dtypes: torch.dtype) -> Mutation:
    """In models of these dtypes no weight has a gradient."""

    def gradients(weights: Any) -> Any:
        found = weights.gradients()
        return {} if any(one.dtype in dtypes for one in found.values()) else found

    return Mutation(parts={"weights": replacing(gradients=gradients)})


def _rounded(coarse: torch.dtype, only_in: torch.dtype) -> Mutation:
    """Gradients go through a coarser dtype, in models of one dtype."""

    def change(gradient: Tensor) -> Tensor:
        return gradient.to(coarse).to(gradient.dtype) if gradient.dtype == only_in else gradient

    points = ("hook_resid_pre", "hook_normalized", "hook_q", "hook_k", "hook_v", "hook_z", "hook_pre", "hook_post")
    return Mutation(edits=dict.fromkeys((*points, "hook_attn_out", "hook_mlp_out"), _with_gradient(change)))


@fault("backward.hooks", "backward.parameters", "backward.gradcheck")
def gradient_detached() -> Plant:
    """The MLP's hidden units are cut off from the graph."""
    return in_adapter(Mutation(edits={"mlp.hook_post": lambda value: value.detach()}))


@fault("backward.hooks", "backward.alone")
def gradient_doubled() -> Plant:
    """A backward hook at hook_attn_out is shown twice the gradient."""
    return in_adapter(altered(backward=at("hook_attn_out", shown_as(lambda gradient: gradient * 2))))


@fault("backward.hooks")
def gradient_shown_twice() -> Plant:
    """A backward hook at hook_resid_post is called twice."""
    return in_adapter(altered(backward=at("hook_resid_post", _twice)))


@fault("backward.hooks", "backward.alone")
def gradient_never_shown() -> Plant:
    """A backward hook at hook_pattern is accepted and never called."""
    return in_adapter(altered(backward=at("attn.hook_pattern", _lost)))


@fault("backward.hooks", "backward.alone")
def backward_in_place() -> Plant:
    """Autograd refuses a backward hook at hook_mlp_out, a view that is added to in place."""
    return in_adapter(altered(backward=at("hook_mlp_out", _raises)))


@fault("backward.alone", plant=in_adapter)
def backward_alone_silent(_model: nn.Module) -> Mutation:
    """A backward hook is called only where a forward hook is attached too."""

    def hooked(hooks: Any, forward: Any, backward: Any) -> Any:
        return hooks.hooked(forward, {name: edit for name, edit in backward.items() if name in forward})

    return Mutation(parts={"hooks": replacing(hooked=hooked)})


@fault("backward.identity")
def gradient_reading_scales() -> Plant:
    """A gradient that a hook only reads goes on slightly scaled."""
    return in_adapter(altered(backward=at("hook_resid_post", _reading_scales)))


@fault("backward.replace")
def gradient_edit_ignored() -> Plant:
    """What a backward hook gives back is dropped."""
    return in_adapter(altered(backward=at("attn.hook_z", only_read)))


@fault("backward.parameters", "backward.gradcheck", plant=in_forward)
def weight_gradient_scaled(subject: Subject, inputs: Inputs) -> Output:
    """With gradients enabled the logits' own gradient is slightly scaled."""
    output = subject.forward(inputs)
    return output if not torch.is_grad_enabled() else replace(output, logits=_with_gradient(_scaled)(output.logits))


@fault("backward.parameters", plant=in_adapter)
def weight_gradient_of_hooked(_model: nn.Module) -> Mutation:
    """With hooks in place the gradients of weights are slightly scaled."""
    scaled = edited_as(lambda _value, edited: _with_gradient(_scaled)(edited))
    return altered(forward=at("ln_final.hook_normalized", scaled))


@fault("backward.in_place")
def shown_what_is_needed() -> Plant:
    """A hook is given a tensor that the backward needs, and may write into it."""
    return in_adapter(altered(forward=at("hook_scale", shown_as(lambda value: value.log().exp()))))


@fault("backward.checkpointing")
def checkpoint_recomputes_otherwise() -> Plant:
    """Under gradient checkpointing the MLP's gradient is doubled."""
    return in_adapter(lambda _model: _in_checkpointing(_checkpoints_wrongly))


@fault("backward.float32")
def gradient_single_in_half() -> Plant:
    """Gradients of a float32 model go through bfloat16."""
    return in_adapter(_rounded(torch.bfloat16, torch.float32))


@fault("backward.bfloat16")
def gradient_bfloat16_in_eight_bits() -> Plant:
    """Gradients go through eight bits, in bfloat16 alone."""
    return in_adapter(_rounded(torch.float8_e4m3fn, torch.bfloat16))


@fault("backward.float16")
def gradient_float16_in_eight_bits() -> Plant:
    """Gradients go through eight bits, in float16 alone."""
    return in_adapter(_rounded(torch.float8_e4m3fn, torch.float16))


@fault("backward.edited")
def gradient_past_an_edit() -> Plant:
    """The forward uses an edited value, and the backward ignores the edit."""
    return in_adapter(altered(forward=at("attn.hook_z", _past_the_edit())))


@fault("backward.edited")
def gradient_edit_beside_edit() -> Plant:
    """An edit of a gradient is dropped at a point where the value is edited too."""
    return in_adapter(altered(hooked=_only_reads_beside_edits))


@fault("backward.checkpointing")
def checkpoint_forgets_edits() -> Plant:
    """Under gradient checkpointing the backward ignores edits."""
    return in_adapter(lambda _model: _in_checkpointing(_checkpoints_forget_edits))


@fault("backward.bfloat16", "backward.float16")
def gradient_none_in_half() -> Plant:
    """In models of half precision no weight has a gradient."""
    return in_adapter(_none_in(torch.bfloat16, torch.float16))


@fault("backward.inputs_embeds", plant=in_forward)
def gradient_not_to_embeddings(subject: Subject, inputs: Inputs) -> Output:
    """Embeddings in the place of tokens are cut out of the graph."""
    embeds = inputs.inputs_embeds
    return subject.forward(inputs if embeds is None else replace(inputs, inputs_embeds=embeds.detach()))


@fault("backward.interleaved", plant=in_adapter)
def gradient_of_the_newest_forward(_model: nn.Module) -> Mutation:
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
