"""Faults of components: adapters with a component that computes something else when it is run alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier.adapter import Components
from verifier.canonical import template_of
from verifier.faults.mutants import Plant, fault, in_adapter, in_modules, rounding_to, with_methods
from verifier.judging.outcome import NotApplicable

Run = Callable[[Components, str, tuple[Any, ...], Mapping[str, Any]], Tensor]
"""`Components.run`, whose first argument is the right components."""


def _in_run(template: str) -> Callable[[Run], Plant]:
    """Plant what runs the components of one kind; the others run as they should."""

    def plant(run: Run) -> Plant:
        def either(right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
            if template_of(name) == template:
                return run(right, name, args, kwargs)
            return right.run(name, args, kwargs)

        return in_adapter(with_methods("components", run=either))

    return plant


def _in_result(template: str) -> Callable[[Callable[[Tensor], Tensor]], Plant]:
    """Plant a change of what the components of one kind give."""
    return lambda change: _in_run(template)(lambda right, *call: change(right.run(*call)))


@fault("component.names", plant=in_modules)
def component_hidden(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    """The MLP's output matrix is no component, only a part of the MLP."""
    return {name: module for name, module in modules.items() if template_of(name) != "blocks.{i}.mlp.out"}


@fault("component.embeddings", plant=_in_result("embed"))
def component_embedding_scaled(embedded: Tensor) -> Tensor:
    """The embedding alone is scaled by the root of its width, as other families do."""
    return embedded * float(embedded.shape[-1] ** 0.5)


@fault("component.positions", plant=_in_run("rotary_emb"))
def component_positions_later(right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The table of positions alone starts at position one."""

    def later(value: Any) -> Any:
        return value + 1 if isinstance(value, Tensor) and not value.is_floating_point() else value

    return right.run(name, tuple(map(later, args)), {key: later(value) for key, value in kwargs.items()})


@fault("component.norms", plant=_in_run("blocks.{i}.ln1"))
def component_norm_epsilon(right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """A norm alone has another epsilon."""
    # A tenth of the input is normalised to the same, but for an epsilon that is a hundred times as large.
    return right.run(name, (args[0] / 10, *args[1:]), kwargs)


@fault("component.projections", plant=_in_run("blocks.{i}.attn.k"))
def component_keys_values(right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The key projection alone gives values."""
    return right.run(f"{name.rpartition('.')[0]}.v", args, kwargs)


@fault("component.attention", plant=_in_run("blocks.{i}.attn"))
def component_attention_unmasked(
    right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    """The attention alone ignores its mask."""
    return right.run(name, args, {**kwargs, "attention_mask": None})


@fault("component.mlp", plant=_in_run("blocks.{i}.mlp"))
def component_mlp_activation(right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The MLP alone has another activation."""
    modules = right.modules()
    if f"{name}.gate" in modules or not {f"{name}.in", f"{name}.out"} <= modules.keys():
        raise NotApplicable("its MLP is not two matrices around an activation")
    return right.run(f"{name}.out", (F.silu(right.run(f"{name}.in", args, kwargs)),), {})


@fault("component.blocks", plant=_in_run("blocks.{i}"))
def component_block_without_residual(
    right: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    """A block alone gives only what it adds to the residual stream."""
    return torch.sub(right.run(name, args, kwargs), args[0])


@fault("component.dtypes", plant=_in_result("blocks.{i}.mlp"))
def component_mlp_in_half(output: Tensor) -> Tensor:
    """The MLP alone goes through bfloat16 in a float32 model."""
    return rounding_to(torch.bfloat16, torch.float32)(output)


@fault("component.dtypes", plant=_in_result("ln_final"))
def component_norm_upcast(output: Tensor) -> Tensor:
    """A norm alone gives float32 in a half-precision model."""
    return output.to(torch.promote_types(output.dtype, torch.float32))
