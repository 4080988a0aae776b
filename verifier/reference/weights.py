"""Give Hugging Face's own parameters, or their gradients, canonical names and shapes, as an adapter must.

The family says which module is which component, and which row of a projection belongs to which head's query, key or
value. Here they are only put into the canonical order of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from verifier.family import Family, Projection

Value = Callable[[nn.Parameter], Tensor | None]
"""Gives a tensor of a parameter's shape: the parameter itself, or its gradient; None where there is none."""


def canonical_of(family: Family, model: nn.Module, value: Value) -> dict[str, Tensor]:
    """Apply `value` to each of HF's parameters, and give the results canonical names and shapes, in causal order.

    A weight that the model lacks, or whose `value` is None, is left out. Tied weights appear under both names.

    Args:
        family: says which module is which component, and which rows of a projection are whose.
        model: HF's model.
        value: gives a tensor of a parameter's shape, or None.
    """
    return {name: tensor for name, tensor in _each(family, model, value) if tensor is not None}


def canonical_weights(family: Family, model: nn.Module) -> dict[str, Tensor]:
    """Give HF's parameters canonical names and shapes.

    Args:
        family: says which module is which component, and which rows of a projection are whose.
        model: HF's model.

    Returns:
        Detached tensors by canonical name.
    """
    return canonical_of(family, model, lambda parameter: parameter.detach())


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
    blocks = {name.split(".")[1] for name in family.components(model) if name.startswith("blocks.")}
    return len(blocks)


def _each(family: Family, model: nn.Module, value: Value) -> Iterator[tuple[str, Tensor | None]]:
    components = family.components(model)

    def vector(owner: str, name: str = "bias") -> Tensor | None:
        return _of(components.get(owner), name, value)

    def matrix(owner: str) -> Tensor | None:  # [d_in, d_out]
        return _matrix(components.get(owner), value)

    yield "embed.W_E", vector("embed", "weight")
    for layer in range(n_layers_of(family, model)):
        here = f"blocks.{layer}"
        rows = family.qkv_rows(model, layer)
        n_heads, d_head = rows.q.rows.shape
        out = matrix(f"{here}.attn.o")
        yield f"{here}.ln1.w", vector(f"{here}.ln1", "weight")
        yield f"{here}.ln1.b", vector(f"{here}.ln1")
        for letter in "qkv":
            weight, bias = _heads(model, getattr(rows, letter), value)
            yield f"{here}.attn.W_{letter.upper()}", weight
            yield f"{here}.attn.b_{letter.upper()}", bias
        # [head * d_head, d_model] → [head, d_head, d_model]
        yield f"{here}.attn.W_O", None if out is None else out.unflatten(0, (n_heads, d_head))
        yield f"{here}.attn.b_O", vector(f"{here}.attn.o")
        yield f"{here}.ln2.w", vector(f"{here}.ln2", "weight")
        yield f"{here}.ln2.b", vector(f"{here}.ln2")
        yield f"{here}.mlp.W_in", matrix(f"{here}.mlp.in")
        yield f"{here}.mlp.W_gate", matrix(f"{here}.mlp.gate")
        yield f"{here}.mlp.b_in", vector(f"{here}.mlp.in")
        yield f"{here}.mlp.b_gate", vector(f"{here}.mlp.gate")
        yield f"{here}.mlp.W_out", matrix(f"{here}.mlp.out")
        yield f"{here}.mlp.b_out", vector(f"{here}.mlp.out")
    yield "ln_final.w", vector("ln_final", "weight")
    yield "ln_final.b", vector("ln_final")
    yield "unembed.W_U", matrix("unembed")
    yield "unembed.b_U", vector("unembed")


def _of(module: Any, name: str, value: Value) -> Tensor | None:
    parameter = getattr(module, name, None)
    return None if parameter is None else value(parameter)


def _matrix(module: Any, value: Value) -> Tensor | None:
    """Read the matrix of a linear module as `[d_in, d_out]`; `Conv1D` stores it so, `Linear` transposed."""
    weight = _of(module, "weight", value)
    return weight if weight is None or isinstance(module, Conv1D) else weight.T


def _heads(model: nn.Module, projection: Projection, value: Value) -> tuple[Tensor | None, Tensor | None]:
    """Gather the weight `[head, d_model, d_head]` and the bias `[head, d_head]` of a projection."""
    module = model.get_submodule(projection.module)
    matrix, bias = _matrix(module, value), _of(module, "bias", value)
    rows = projection.rows

    def gathered(tensor: Tensor) -> Tensor:  # [..., rows of the module] → [..., head, d_head]
        return torch.unflatten(tensor[..., rows.flatten().to(tensor.device)], -1, rows.shape)

    weight = None if matrix is None else gathered(matrix).movedim(1, 0)  # [d_model, head, d_head] → heads first
    return weight, None if bias is None else gathered(bias)
