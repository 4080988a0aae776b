"""Read and replace activations inside an untouched Hugging Face model.

A tap stands where a tensor is the input or output of a module, or goes into `scaled_dot_product_attention`. It keeps
the original tensor, which is in the autograd graph, and passes a clone on, because a model may add in place to a
module's output. Some activations HF never materialises: a norm's scale, attention scores, the pattern, a head's
result. These are recomputed, and only while they are asked for. The check `reference.taps` shows that the recomputed
model is the same function.

A family's `taps` makes a `TapRecorder` and places taps in the model with the functions of this module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from verifier.adapter import Edit
    from verifier.family import Projection, QKVRows


class TapRecorder(contextlib.ExitStack):
    """The values that one forward passes at chosen points, and the edits made there.

    The functions of this module place taps in a model. When the context is left, they are removed.

    Invariant: `values[name]` is the tensor at the point before any edit, in canonical axes and in the graph, so
    that `torch.autograd.grad` with respect to it is the gradient at the hook point.
    """

    def __init__(self, names: Collection[str], edits: Mapping[str, Edit]) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}
        self._names = frozenset(names) | frozenset(edits)
        self._edits = edits

    def wants(self, *names: str) -> bool:
        """Whether any of these points is read or edited."""
        return not self._names.isdisjoint(names)

    def edits(self, name: str) -> bool:
        """Whether this point is edited."""
        return name in self._edits

    def visit(self, name: str, value: Tensor) -> Tensor:
        """Keep the tensor at a point, and return what goes on from there: its edit, or a clone.

        A point that is neither read nor edited returns the tensor itself.

        Args:
            name: the point.
            value: the tensor there, in canonical axes and in the graph.

        Raises:
            RuntimeError: the point was already visited in this forward.
        """
        if name not in self._names:
            return value
        if name in self.values:
            raise RuntimeError(f"{name} was visited twice in one forward")
        self.values[name] = value
        edited = self._edits[name](value) if name in self._edits else None
        return value.clone() if edited is None else edited


def _on_output(taps: TapRecorder, module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Replace the module's output, or the first of its outputs."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    taps.enter_context(module.register_forward_hook(hook))


def _on_input(taps: TapRecorder, module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Replace the module's first input, wherever it stands in the call."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    taps.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))


def tap_output(taps: TapRecorder, name: str, module: nn.Module) -> None:
    """Place a point at a module's output.

    Args:
        taps: where values are kept.
        name: of the point.
        module: the module; if it gives several outputs, the first is meant.
    """
    _on_output(taps, module, lambda value: taps.visit(name, value))


def tap_input(taps: TapRecorder, name: str, module: nn.Module) -> None:
    """Place a point at a module's input.

    Args:
        taps: where values are kept.
        name: of the point.
        module: the module; its first argument is meant, or `hidden_states` if all are by name.
    """
    _on_input(taps, module, lambda value: taps.visit(name, value))


def tap_norm(
    taps: TapRecorder,
    prefix: str,
    module: nn.Module,
    *,
    eps: float,
    centred: bool,
    computed_in: torch.dtype | None = None,
) -> None:
    """Place the points `hook_scale` and `hook_normalized` of a layer norm (`centred`) or an RMS norm.

    Args:
        taps: where values are kept.
        prefix: of the names, `blocks.0.ln1`.
        module: HF's norm, with `weight [d_model]` and perhaps `bias [d_model]`.
        eps: what the norm adds to the variance.
        centred: whether the norm subtracts the mean first.
        computed_in: the dtype in which HF's code computes the norm; None for the model's.
    """
    scale_name, normalized_name = f"{prefix}.hook_scale", f"{prefix}.hook_normalized"

    def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if not taps.wants(scale_name, normalized_name):
            return output
        x: Tensor = args[0] if computed_in is None else args[0].to(computed_in)
        x = x - x.mean(-1, keepdim=True) if centred else x
        # HF's RMS norms multiply by the inverse. Where they take it in float32, only that very number gives back
        # their output; so the scale is its inverse in float64, which loses nothing on the way back.
        inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        scale = taps.visit(scale_name, inverse.to(torch.float64).reciprocal())
        normalized = taps.visit(normalized_name, (x * scale.reciprocal().to(x.dtype)).to(args[0].dtype))
        weight: Any = module.weight
        result: Tensor = normalized * weight
        bias = getattr(module, "bias", None)
        # A norm that is wider than its model gives back the model's dtype.
        return (result if bias is None else result + bias).to(output.dtype)

    taps.enter_context(module.register_forward_hook(hook))


def tap_projections(taps: TapRecorder, prefix: str, model: nn.Module, rows: QKVRows) -> None:
    """Place `hook_q`, `hook_k` and `hook_v`: gathered from the projections' outputs, their edits scattered back.

    Args:
        taps: where values are kept.
        prefix: of the names, `blocks.0.attn`.
        model: HF's model.
        rows: for queries, keys and values: the path of the projection, and its `rows [head, d_head]`.
    """
    by_module: dict[str, dict[str, Projection]] = {}
    for letter in "qkv":
        projection: Projection = getattr(rows, letter)
        by_module.setdefault(projection.module, {})[f"{prefix}.hook_{letter}"] = projection
    for path, parts in by_module.items():
        _tap_projection(taps, model.get_submodule(path), parts)


def _tap_projection(taps: TapRecorder, module: nn.Module, parts: Mapping[str, Projection]) -> None:
    def change(fused: Tensor) -> Tensor:  # [batch, pos, rows of the module]
        wanted = {name: projection.rows for name, projection in parts.items() if taps.wants(name)}
        if not wanted:
            return fused
        # One gather and one scatter for all of them: each copies the whole tensor.
        index = torch.cat([rows.flatten() for rows in wanted.values()]).to(fused.device)
        pieces = fused.index_select(-1, index).split([rows.numel() for rows in wanted.values()], dim=-1)
        heads = [
            taps.visit(name, piece.unflatten(-1, rows.shape)).flatten(-2)
            for (name, rows), piece in zip(wanted.items(), pieces, strict=True)
        ]
        return fused.index_copy(-1, index, torch.cat(heads, dim=-1))

    _on_output(taps, module, change)


def tap_output_projection(taps: TapRecorder, prefix: str, module: nn.Module, *, n_heads: int) -> None:
    """Place `hook_z`, the input of attention's output projection, and `hook_result`, what each head writes.

    Args:
        taps: where values are kept.
        prefix: of the names, `blocks.0.attn`.
        module: HF's projection, with `weight [d_model, head * d_head]` and perhaps `bias [d_model]`.
        n_heads: the number of query heads.
    """
    z_name, result_name = f"{prefix}.hook_z", f"{prefix}.hook_result"

    def read_z(x: Tensor) -> Tensor:  # [batch, pos, head * d_head]
        return taps.visit(z_name, x.unflatten(-1, (n_heads, -1))).flatten(-2) if taps.wants(z_name) else x

    def recompose(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if not taps.wants(result_name):
            return output
        z = args[0].unflatten(-1, (n_heads, -1))
        matrix: Any = module.weight
        weight = matrix.unflatten(-1, (n_heads, -1))  # [d_model, head, d_head]
        result = taps.visit(result_name, torch.einsum("bphd,mhd->bphm", z, weight))
        bias = getattr(module, "bias", None)
        return result.sum(2) if bias is None else result.sum(2) + bias

    _on_input(taps, module, read_z)
    taps.enter_context(module.register_forward_hook(recompose))


def tap_residual_mid(taps: TapRecorder, name: str, *, block: nn.Module, norm: nn.Module) -> None:
    """Place the point between attention and MLP of a sequential block, after the attention's dropout.

    It is read at the input of the MLP's norm: the block adds the MLP's output to that very tensor. An edit of the
    norm's input does not reach that sum, so what the edit changed is added to the block's output. To be placed before
    a tap of that output.

    Args:
        taps: where values are kept.
        name: of the point.
        block: HF's block, whose first output is the residual stream `[batch, pos, d_model]`.
        norm: the norm that the block's MLP reads through.
    """
    changed: list[Tensor] = []

    def visit(value: Tensor) -> Tensor:
        edited = taps.visit(name, value)
        if not taps.edits(name):
            return value  # and no clone: the block's sum has this very tensor
        changed.append(edited - value)
        return edited

    def add(output: Tensor) -> Tensor:
        return output + changed.pop() if changed else output

    _on_input(taps, norm, visit)
    _on_output(taps, block, add)


class AttentionTaps(TorchFunctionMode):
    """The points of rotated queries and keys, scores and pattern, at the calls of `scaled_dot_product_attention`.

    Every form of the call is handled: keys and values with one entry for each key/value head (`enable_gqa`, or
    broadcast), already expanded to one for each query head, or, for a lone query, the query heads that read one
    key/value head laid out as so many queries (HF's `pack_gqa`).
    """

    def __init__(self, taps: TapRecorder, layers: Mapping[str, tuple[nn.Module, Tensor]]) -> None:
        """Place the points in attention modules.

        Args:
            taps: where values are kept.
            layers: by prefix (`blocks.0.attn`): HF's attention module, and `reads [head]`, which key/value head
                each query head reads.
        """
        super().__init__()
        self._taps = taps
        self._layers = layers
        self._current: list[str] = []
        for prefix, (module, _) in layers.items():
            self._mark(module, prefix)

    def _mark(self, module: nn.Module, prefix: str) -> None:
        """Mark the module as current while it runs: the innermost attention module that runs makes the calls.

        The mode is on only while one runs, because it slows down every torch function.
        """

        def begin(*_: Any) -> None:
            self._current.append(prefix)
            TorchFunctionMode.__enter__(self)

        def end(*_: Any) -> None:
            TorchFunctionMode.__exit__(self, None, None, None)
            self._current.pop()

        self._taps.enter_context(module.register_forward_pre_hook(begin))
        self._taps.enter_context(module.register_forward_hook(end, always_call=True))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return self._attend(self._current[-1], *args, **kwargs)

    def _attend(
        self,
        prefix: str,
        query: Tensor,  # [batch, head, query, d_head]
        key: Tensor,  # [batch, head or kv_head, key, d_head]
        value: Tensor,  # [batch, head or kv_head, key, d_head]
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        taps = self._taps
        names = [f"{prefix}.hook_{what}" for what in ("rot_q", "rot_k", "attn_scores", "pattern")]
        if not taps.wants(*names):
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        reads = self._layers[prefix][1].to(query.device)
        if query.shape[1] != len(reads):
            packed = query.shape[:3]  # [batch, kv_head, head of that kv_head]
            query = query.reshape(query.shape[0], len(reads), 1, -1)
            if attn_mask is not None and attn_mask.shape[1] != 1:
                attn_mask = attn_mask.reshape(attn_mask.shape[0], len(reads), 1, -1)
            mixed = self._attend(prefix, query, key, value, attn_mask, dropout_p, is_causal, scale)
            return mixed.reshape(*packed, -1)
        key, value = _unexpanded(key, reads), _unexpanded(value, reads)
        if taps.wants(names[0]):
            query = taps.visit(names[0], query.transpose(1, 2)).transpose(1, 2)
        if taps.wants(names[1]):
            past = key.shape[2] - query.shape[2]  # the keys of a cache come first; an earlier forward passed them
            new = taps.visit(names[1], key[:, :, past:].transpose(1, 2)).transpose(1, 2)
            key = torch.cat([key[:, :, :past], new], dim=2)
        key, value = key[:, reads], value[:, reads]
        if not taps.wants(*names[2:]):
            return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask
        scores = taps.visit(names[2], scores)
        # A row whose every key is masked gives zeros, as in torch's own kernels.
        blind = (scores == float("-inf")).all(-1, keepdim=True)
        pattern = taps.visit(names[3], scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0))
        return F.dropout(pattern, dropout_p, training=dropout_p > 0) @ value


def _unexpanded(heads: Tensor, reads: Tensor) -> Tensor:
    """Keys or values `[batch, kv_head, key, d_head]`, from those or from ones expanded to every query head."""
    n_kv = int(reads.max()) + 1
    if heads.shape[1] == n_kv:
        return heads
    first = torch.stack([(reads == group).nonzero()[0, 0] for group in range(n_kv)])
    return heads[:, first]
