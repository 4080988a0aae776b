"""Adapters with a component that, run alone, computes something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier.canonical import template_of
from verifier.faults.mutants import Mutation, Plant, fault, in_adapter, replacing
from verifier.judging.outcome import NotApplicable

Run = Callable[[Any, str, tuple[Any, ...], Mapping[str, Any]], Tensor]
"""`run` of the right components, which come first."""


def _of(template: str, run: Run) -> Mutation:
    """Components of that kind run so, and the others as they should."""

    def either(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        if template_of(name) == template:
            return run(right, name, args, kwargs)
        output: Tensor = right.run(name, args, kwargs)
        return output

    return Mutation(parts={"components": replacing(run=either)})


def _scaled(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    embedded: Tensor = right.run(name, args, kwargs)
    scale: float = embedded.shape[-1] ** 0.5
    return embedded * scale


def _next_positions(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    def later(value: Any) -> Any:
        return value + 1 if isinstance(value, Tensor) and not value.is_floating_point() else value

    output: Tensor = right.run(name, tuple(map(later, args)), {key: later(value) for key, value in kwargs.items()})
    return output


def _larger_epsilon(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """A tenth of the input is normalised to the same, but for an epsilon that is a hundred times as large."""
    output: Tensor = right.run(name, (args[0] / 10, *args[1:]), kwargs)
    return output


def _values_for_keys(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    output: Tensor = right.run(f"{name.rpartition('.')[0]}.v", args, kwargs)
    return output


def _without_mask(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    output: Tensor = right.run(name, args, {**kwargs, "attention_mask": None})
    return output


def _other_activation(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    modules = right.modules()
    if f"{name}.gate" in modules or not {f"{name}.in", f"{name}.out"} <= modules.keys():
        raise NotApplicable("its MLP is not two matrices around an activation")
    output: Tensor = right.run(f"{name}.out", (F.silu(right.run(f"{name}.in", args, kwargs)),), {})
    return output


def _without_residual(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    output: Tensor = right.run(name, args, kwargs)
    stream: Tensor = args[0]
    return output - stream


def _in_half(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    output: Tensor = right.run(name, args, kwargs)
    return output.to(torch.bfloat16).to(output.dtype) if output.dtype == torch.float32 else output


def _upcast(right: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    output: Tensor = right.run(name, args, kwargs)
    return output.to(torch.promote_types(output.dtype, torch.float32))


def _hidden(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    return {name: module for name, module in modules.items() if template_of(name) != "blocks.{i}.mlp.out"}


@fault("component.names")
def component_hidden() -> Plant:
    """The MLP's output matrix is no component, only a part of the MLP."""
    return in_adapter(Mutation(modules=_hidden))


@fault("component.embeddings")
def component_embedding_scaled() -> Plant:
    """The embedding alone is scaled by the root of its width, as other families do."""
    return in_adapter(_of("embed", _scaled))


@fault("component.positions")
def component_positions_later() -> Plant:
    """The table of positions alone starts at position one."""
    return in_adapter(_of("rotary_emb", _next_positions))


@fault("component.norms")
def component_norm_epsilon() -> Plant:
    """A norm alone has another epsilon."""
    return in_adapter(_of("blocks.{i}.ln1", _larger_epsilon))


@fault("component.projections")
def component_keys_values() -> Plant:
    """The key projection alone gives values."""
    return in_adapter(_of("blocks.{i}.attn.k", _values_for_keys))


@fault("component.attention")
def component_attention_unmasked() -> Plant:
    """The attention alone does not look at its mask."""
    return in_adapter(_of("blocks.{i}.attn", _without_mask))


@fault("component.mlp")
def component_mlp_activation() -> Plant:
    """The MLP alone has another activation."""
    return in_adapter(_of("blocks.{i}.mlp", _other_activation))


@fault("component.blocks")
def component_block_without_residual() -> Plant:
    """A block alone gives what it adds to the residual stream, not the stream."""
    return in_adapter(_of("blocks.{i}", _without_residual))


@fault("component.dtypes")
def component_mlp_in_half() -> Plant:
    """The MLP alone goes through bfloat16 in a float32 model."""
    return in_adapter(_of("blocks.{i}.mlp", _in_half))


@fault("component.dtypes")
def component_norm_upcast() -> Plant:
    """A norm alone gives float32 in a half-precision model."""
    return in_adapter(_of("ln_final", _upcast))
