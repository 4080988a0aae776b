"""Faults of components: adapters with a component that computes something else when it is run alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier.adapter import Components
from verifier.canonical import template_of
from verifier.faults.mutants import Mutation, Plant, fault, in_adapter, replacing
from verifier.judging.outcome import NotApplicable

Run = Callable[[Components, str, tuple[Any, ...], Mapping[str, Any]], Tensor]
"""`Components.run`, whose first argument is the right components."""


def _running(template: str, run: Run) -> Mutation:
    """Components of one kind run so, and the others as they should."""

    def either(right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        if template_of(name) == template:
            return run(right, name, args, kwargs)
        return right.run(name, args, kwargs)

    return Mutation(parts={"components": replacing(run=either)})


def _giving(template: str, change: Callable[[Tensor], Tensor]) -> Mutation:
    """What components of one kind give is changed."""
    return _running(template, lambda right, name, args, kwargs: change(right.run(name, args, kwargs)))


def _next_positions(right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    def later(value: Any) -> Any:
        return value + 1 if isinstance(value, Tensor) and not value.is_floating_point() else value

    return right.run(name, tuple(map(later, args)), {key: later(value) for key, value in kwargs.items()})


def _other_activation(right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    modules = right.modules()
    if f"{name}.gate" in modules or not {f"{name}.in", f"{name}.out"} <= modules.keys():
        raise NotApplicable("its MLP is not two matrices around an activation")
    return right.run(f"{name}.out", (F.silu(right.run(f"{name}.in", args, kwargs)),), {})


def _hidden(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    return {name: module for name, module in modules.items() if template_of(name) != "blocks.{i}.mlp.out"}


@fault("component.names")
def component_hidden() -> Plant:
    """The MLP's output matrix is no component, only a part of the MLP."""
    return in_adapter(Mutation(modules=_hidden))


@fault("component.embeddings")
def component_embedding_scaled() -> Plant:
    """The embedding alone is scaled by the root of its width, as other families do."""
    return in_adapter(_giving("embed", lambda embedded: embedded * embedded.shape[-1] ** 0.5))


@fault("component.positions")
def component_positions_later() -> Plant:
    """The table of positions alone starts at position one."""
    return in_adapter(_running("rotary_emb", _next_positions))


@fault("component.norms")
def component_norm_epsilon() -> Plant:
    """A norm alone has another epsilon."""
    # A tenth of the input is normalised to the same, but for an epsilon that is a hundred times as large.
    return in_adapter(
        _running("blocks.{i}.ln1", lambda right, name, args, kwargs: right.run(name, (args[0] / 10, *args[1:]), kwargs))
    )


@fault("component.projections")
def component_keys_values() -> Plant:
    """The key projection alone gives values."""
    return in_adapter(
        _running("blocks.{i}.attn.k", lambda right, name, *given: right.run(f"{name.rpartition('.')[0]}.v", *given))
    )


@fault("component.attention")
def component_attention_unmasked() -> Plant:
    """The attention alone ignores its mask."""
    return in_adapter(
        _running(
            "blocks.{i}.attn",
            lambda right, name, args, kwargs: right.run(name, args, {**kwargs, "attention_mask": None}),
        )
    )


@fault("component.mlp")
def component_mlp_activation() -> Plant:
    """The MLP alone has another activation."""
    return in_adapter(_running("blocks.{i}.mlp", _other_activation))


@fault("component.blocks")
def component_block_without_residual() -> Plant:
    """A block alone gives only what it adds to the residual stream."""
    return in_adapter(_running("blocks.{i}", lambda right, name, args, kwargs: right.run(name, args, kwargs) - args[0]))


@fault("component.dtypes")
def component_mlp_in_half() -> Plant:
    """The MLP alone goes through bfloat16 in a float32 model."""
    return in_adapter(
        _giving(
            "blocks.{i}.mlp",
            lambda output: output.to(torch.bfloat16).to(output.dtype) if output.dtype == torch.float32 else output,
        )
    )


@fault("component.dtypes")
def component_norm_upcast() -> Plant:
    """A norm alone gives float32 in a half-precision model."""
    return in_adapter(_giving("ln_final", lambda output: output.to(torch.promote_types(output.dtype, torch.float32))))
