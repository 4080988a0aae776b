"""Give Hugging Face's own parameters, or their gradients, canonical names and shapes, as an adapter must.

The family says which module is which component, and which row of a projection belongs to which head's query, key or
value. Here they are only put into the canonical order of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from verifier.canonical import WEIGHTS, name_in
from verifier.family import Family, Projection, QKVRows
from verifier.reference.probing import norm_of

Value = Callable[[nn.Parameter], Tensor | None]
"""Gives a tensor of a parameter's shape: the parameter itself, or its gradient; None where there is none."""

Read = Callable[[Any, Tensor], Tensor]
"""Puts the value of a module's parameter into canonical axes."""


def canonical_of(family: Family, model: nn.Module, value: Value) -> dict[str, Tensor]:
    """Apply `value` to each of HF's parameters, and give the results canonical names and shapes, in causal order.

    It is for what belongs to the elements of parameters, as gradients do. `canonical_weights` gives the weights, of
    which a norm's `w` may be one more than its parameter.

    A weight that the model lacks, or whose `value` is None, is left out. Tied weights appear under both names.

    Args:
        family: says which module is which component, and which rows of a projection are whose.
        model: HF's model.
        value: gives a tensor of a parameter's shape, or None.
    """
    return dict(_each(family, model, value, _as_it_is))


def canonical_weights(
    family: Family, model: nn.Module, value: Value = lambda parameter: parameter.detach()
) -> dict[str, Tensor]:
    """Give HF's parameters canonical names and shapes.

    Args:
        family: says which module is which component, and which rows of a projection are whose.
        model: HF's model.
        value: gives the tensor of a parameter; a detached one if not given.

    Returns:
        Tensors by canonical name, in causal order.
    """
    return dict(_each(family, model, value, _norm_weight))


def canonical_gradients(family: Family, model: nn.Module) -> dict[str, Tensor]:
    """Give the gradients of HF's parameters canonical names and shapes; a parameter without gradient is left out.

    Args:
        family: says which module is which component, and which rows of a projection are whose.
        model: HF's model.
    """
    return canonical_of(family, model, lambda parameter: parameter.grad)


def n_layers_of(family: Family, model: nn.Module) -> int:
    """Count the model's blocks.

    Args:
        family: says which components the model has.
        model: HF's model.
    """
    return _n_layers(family.components(model))


def attention_layers(family: Family, model: nn.Module) -> list[int]:
    """List the blocks that have an attention, which are those that `Family.qkv_rows` knows, in order.

    Args:
        family: says which components the model has.
        model: HF's model.
    """
    return _attention_layers(family.components(model))


def _n_layers(components: Mapping[str, nn.Module]) -> int:
    return len({name.split(".")[1] for name in components if name.startswith("blocks.")})


def _attention_layers(components: Mapping[str, nn.Module]) -> list[int]:
    paths = [name.split(".") for name in components]
    return sorted({int(path[1]) for path in paths if path[0] == "blocks" and path[2:3] == ["attn"]})


def _each(family: Family, model: nn.Module, value: Value, of_norm: Read) -> Iterator[tuple[str, Tensor]]:
    components = family.components(model)
    rows = {f"blocks.{layer}.attn": family.qkv_rows(model, layer) for layer in _attention_layers(components)}
    for name in _possible_names(components):
        owner, _, accessor = name.rpartition(".")
        if accessor in _HEADS:
            found = _of_heads(model, rows[owner], accessor, value) if owner in rows else None
        elif ".experts." in owner:
            experts, _, expert = owner.rpartition(".")
            found = _of_expert(components[experts], int(expert), accessor, value)
        else:
            part, parameter, read = _SOURCES[accessor]
            module = components.get(f"{owner}.{part}" if part else owner)
            found = _of(module, parameter, value)
            if found is not None:
                found = of_norm(module, found) if accessor == "w" else read(module, found)
        if found is not None:
            # [head * d_head, d_model] → [head, d_head, d_model]
            yield name, found.unflatten(0, rows[owner].q.rows.shape) if accessor == "W_O" else found


def _possible_names(components: Mapping[str, nn.Module]) -> Iterator[str]:
    """List the names that the model's weights may have, in causal order."""
    templates = [weight.template for weight in WEIGHTS]
    inside = [template for template in templates if "{i}" in template]
    first = templates.index(inside[0])
    yield from templates[:first]
    for layer in range(_n_layers(components)):
        experts = components.get(f"blocks.{layer}.mlp.experts")
        for template in inside:
            for expert in range(_n_experts(experts)) if "{e}" in template else (None,):
                yield name_in(template, layer, expert)
    yield from (template for template in templates[first:] if template not in inside)


def _of(module: Any, name: str, value: Value) -> Tensor | None:
    parameter = getattr(module, name, None)
    return value(parameter) if isinstance(parameter, nn.Parameter) else None


# --- where the parameter of a weight is, and how it is read ----------------------------------------------------------


def _as_it_is(_module: Any, value: Tensor) -> Tensor:
    return value


def _inputs_first(module: Any, value: Tensor) -> Tensor:
    """Give the matrix of a linear module as `[d_in, d_out]`; `Conv1D` stores it so, `Linear` transposed."""
    return value if isinstance(module, Conv1D) else value.T


def _from_position_0(module: Any, value: Tensor) -> Tensor:
    """Select the rows `[n_ctx, d_model]` that positions use: HF's module may have an `offset` of rows before them."""
    return value[getattr(module, "offset", 0) :]


def _norm_weight(module: Any, value: Tensor) -> Tensor:
    """Give what a norm multiplies its normalized value by, from the value of its parameter `weight`."""
    return 1.0 + value if norm_of(module, value.shape[-1]).offset else value


# By accessor: the component beneath the owner whose module has the parameter (none for the owner itself), the name of
# the parameter there, and how it is read.
_SOURCES: Mapping[str, tuple[str, str, Read]] = {
    "W_E": ("", "weight", _as_it_is),
    "W_pos": ("", "weight", _from_position_0),
    "w": ("", "weight", _norm_weight),
    "b": ("", "bias", _as_it_is),
    "W": ("", "weight", _inputs_first),
    "sinks": ("", "sinks", _as_it_is),
    "W_O": ("o", "weight", _inputs_first),
    "b_O": ("o", "bias", _as_it_is),
    "W_in": ("in", "weight", _inputs_first),
    "b_in": ("in", "bias", _as_it_is),
    "W_gate": ("gate", "weight", _inputs_first),
    "b_gate": ("gate", "bias", _as_it_is),
    "W_out": ("out", "weight", _inputs_first),
    "b_out": ("out", "bias", _as_it_is),
    "W_U": ("", "weight", _inputs_first),
    "b_U": ("", "bias", _as_it_is),
}


# --- heads -----------------------------------------------------------------------------------------------------------

_HEADS = frozenset(f"{kind}_{letter}" for kind in "Wb" for letter in "QKV")


def _of_heads(model: nn.Module, rows: QKVRows, accessor: str, value: Value) -> Tensor | None:
    """Gather the weight `[head, d_model, d_head]` or the bias `[head, d_head]` of queries, keys or values."""
    projection: Projection = getattr(rows, accessor[-1].lower())
    module = model.get_submodule(projection.module)
    whole = _of(module, "bias" if accessor.startswith("b") else "weight", value)
    if whole is None:
        return None
    if whole.ndim == 2:
        whole = _inputs_first(module, whole)
    # [..., rows of the module] → [..., head, d_head]
    rows_of_heads = whole[..., projection.rows.flatten().to(whole.device)]
    return torch.unflatten(rows_of_heads, -1, projection.rows.shape).movedim(-2, 0)  # heads first


# --- experts ---------------------------------------------------------------------------------------------------------


def _n_experts(module: Any) -> int:
    return 0 if module is None else len(module.down_proj)


def _of_expert(module: Any, expert: int, accessor: str, value: Value) -> Tensor | None:
    """Select a weight `[d_in, d_out]`, or a bias `[d_out]`, of one expert.

    HF keeps the matrices of all experts in one parameter `[expert, …]`, gate and up in a joint one. How they lie there
    is said by the attributes with which transformers' own implementations of experts read them.
    """
    is_weight, kind = accessor.startswith("W"), {"in": "up", "gate": "gate", "out": "down"}[accessor[2:]]
    joint = kind != "down" and hasattr(module, "gate_up_proj")
    whole = _of(module, ("gate_up_proj" if joint else f"{kind}_proj") + ("" if is_weight else "_bias"), value)
    if whole is None:
        return None
    found = whole[expert] if not is_weight or _inputs_stand_first(module) else whole[expert].T
    if not joint:
        return found
    if getattr(module, "is_concatenated", True):
        return found.chunk(2, dim=-1)[kind == "up"]
    return found[..., kind == "up" :: 2]


def _inputs_stand_first(module: Any) -> bool:
    """Whether the experts' matrices are `[expert, d_in, d_out]` and not `[expert, d_out, d_in]`."""
    if hasattr(module, "is_transposed"):
        return bool(module.is_transposed)
    # Where transformers has no other implementation of the experts, nothing says so; a joint matrix is 2 * d_mlp wide.
    return bool(module.gate_up_proj.shape[1] == module.down_proj.shape[2])
