"""Read and replace activations inside an untouched Hugging Face model.

A tap stands where a tensor is the input or output of a module; those inside attention are `attention_taps`'. It keeps
the original tensor, which is in the autograd graph, and passes a clone on, because a model may add in place to a
module's output. Some activations HF never materialises: a norm's scale, attention scores, the pattern, a head's
result. These are recomputed, and only while they are asked for. The check `reference.taps` shows that the recomputed
model is the same function.

A family's `taps` makes a `TapRecorder` and places taps in the model with the functions of this module. A module that
runs several times in a forward (a norm of two places, a block of several layers) has a tap in the `run` that is meant,
counted from 0; without a `run` it is an error that a point is passed twice.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from verifier.reference.probing import norm_of

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
        self.shape: tuple[int, ...] = ()  # [batch, pos], which some blocks flatten
        self.around_edits: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        self._names = frozenset(names) | frozenset(edits)
        self._edits = edits
        self._versions: dict[str, int | None] = {}  # of what is kept, when it was

    def __exit__(self, kind: Any, *error: Any) -> None:
        """Take the taps off.

        Raises:
            RuntimeError: the model, or an edit, wrote into what is kept.
        """
        super().__exit__(kind, *error)
        for name, version in self._versions.items():
            if kind is None and version is not None and self.values[name]._version != version:
                raise RuntimeError(f"the value of {name} was written into after it was kept")

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
        self._versions[name] = None if value.is_inference() else value._version
        edited = None
        if name in self._edits:
            with self.around_edits():
                edited = self._edits[name](value)
        return value.clone() if edited is None else edited

    def visit_stream(self, name: str, value: Tensor) -> Tensor:
        """Visit `[batch, pos, ...]`, which a block may have flattened to `[batch * pos, ...]`.

        Args:
            name: the point.
            value: the tensor there.
        """
        if value.ndim > 2 or not self.shape or not self.wants(name):
            return self.visit(name, value)
        return self.visit(name, value.unflatten(0, self.shape)).reshape(value.shape)


def _in_run(run: int | None) -> Callable[[], bool]:
    """Make a function that tells, each time that a module runs, whether this is the run that is meant."""
    count = itertools.count()
    return lambda: next(count) == run or run is None


def _on_output(
    taps: TapRecorder, module: nn.Module, change: Callable[[Tensor], Tensor], run: int | None = None
) -> None:
    """Replace the module's output, or the first of its outputs."""
    is_meant = _in_run(run)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if not is_meant():
            return output
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    taps.enter_context(module.register_forward_hook(hook))


def _on_input(taps: TapRecorder, module: nn.Module, change: Callable[[Tensor], Tensor], run: int | None = None) -> None:
    """Replace the module's first input, wherever it stands in the call."""
    is_meant = _in_run(run)

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_meant():
            return args, kwargs
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    taps.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadAxes:
    """The axes of what a norm on queries or keys is given: all heads in one, `[batch, pos, head * d_head]`, or apart.

    Attributes:
        heads: how many there are.
        first: whether they stand before the positions, `[batch, head, pos, d_head]`.
    """

    heads: int
    first: bool

    def canonical(self, value: Tensor) -> Tensor:
        """Give `[batch, pos, head, d_head]`, or `[batch, pos, head, 1]`; of all heads in one `[batch, pos, 1, 1]`."""
        if value.ndim == 3:
            return torch.unflatten(value, -1, (min(self.heads, value.shape[-1]), -1))
        return value.transpose(1, 2) if self.first else value

    def original(self, value: Tensor, ndim: int) -> Tensor:
        """Put a canonical value back into the norm's axes, of which there are `ndim`."""
        if ndim == 3:
            return value.flatten(2)
        return value.transpose(1, 2) if self.first else value


def _visit_in(taps: TapRecorder, name: str, value: Tensor, axes: HeadAxes | None) -> Tensor:
    if axes is None:
        return taps.visit_stream(name, value)
    return axes.original(taps.visit(name, axes.canonical(value)), value.ndim)


def tap_output(
    taps: TapRecorder,
    name: str,
    module: nn.Module,
    *,
    factor: float = 1.0,
    run: int | None = None,
    axes: HeadAxes | None = None,
) -> None:
    """Place a point at a module's output.

    Args:
        taps: where values are kept.
        name: of the point.
        module: the module; if it gives several outputs, the first is meant.
        factor: what the model multiplies the output by before it adds it; the point has the product.
        run: of the module in the forward.
        axes: of a norm on queries or keys; None for the stream.
    """
    if not taps.wants(name):
        return

    def visit(value: Tensor) -> Tensor:
        if factor == 1.0:
            return _visit_in(taps, name, value, axes)
        visited = taps.visit_stream(name, value * factor)
        return visited / factor if factor else value

    _on_output(taps, module, visit, run)


def tap_input(taps: TapRecorder, name: str, module: nn.Module, *, run: int | None = None) -> None:
    """Place a point at a module's input.

    Args:
        taps: where values are kept.
        name: of the point.
        module: the module; its first argument is meant, or `hidden_states` if all are by name.
        run: of the module in the forward.
    """
    if taps.wants(name):
        _on_input(taps, module, lambda value: taps.visit_stream(name, value), run)


def tap_block(taps: TapRecorder, prefix: str, module: nn.Module, *, run: int | None = None) -> None:
    """Place `hook_resid_pre` at a block's input, and remember the stream's batch and positions for what is in it.

    To be placed before the taps of what is in the block.

    Args:
        taps: where values are kept.
        prefix: of the names, `blocks.0`.
        module: the block, whose first argument is the stream `[batch, pos, d_model]`.
        run: of the module in the forward.
    """

    def visit(value: Tensor) -> Tensor:
        taps.shape = tuple(value.shape[:2])
        return taps.visit(f"{prefix}.hook_resid_pre", value)

    _on_input(taps, module, visit, run)


def tap_norm(
    taps: TapRecorder, prefix: str, module: nn.Module, *, run: int | None = None, axes: HeadAxes | None = None
) -> None:
    """Place the points `hook_scale` and `hook_normalized` of a norm, which is asked what it does.

    Args:
        taps: where values are kept.
        prefix: of the names, `blocks.0.ln1`.
        module: HF's norm, of `[..., d_model]`.
        run: of the module in the forward.
        axes: of a norm on queries or keys; None for the stream.
    """
    scale_name, normalized_name = f"{prefix}.hook_scale", f"{prefix}.hook_normalized"
    if not taps.wants(scale_name, normalized_name):
        return
    is_meant = _in_run(run)

    def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if not is_meant():
            return output
        x: Tensor = args[0]
        norm = norm_of(module, x.shape[-1])
        # HF's RMS norms multiply by the inverse. Where they take it in float32, only that very number gives back
        # their output; so the scale is its inverse in float64, which loses nothing on the way back.
        scale = _visit_in(taps, scale_name, norm.inverse(x).to(torch.float64).reciprocal(), axes)
        normalized = norm.normalized(x, scale.reciprocal())
        return norm.weighted(module, _visit_in(taps, normalized_name, normalized, axes)).to(output.dtype)

    taps.enter_context(module.register_forward_hook(hook))


def tap_projections(taps: TapRecorder, prefix: str, model: nn.Module, rows: QKVRows, *, run: int | None = None) -> None:
    """Place `hook_q`, `hook_k` and `hook_v`: gathered from the projections' outputs, their edits scattered back.

    Args:
        taps: where values are kept.
        prefix: of the names, `blocks.0.attn`.
        model: HF's model.
        rows: for queries, keys and values: the path of the projection, and its `rows [head, d_head]`.
        run: of the projections in the forward.
    """
    by_module: dict[str, dict[str, Projection]] = {}
    for letter in "qkv":
        projection: Projection = getattr(rows, letter)
        by_module.setdefault(projection.module, {})[f"{prefix}.hook_{letter}"] = projection
    for path, parts in by_module.items():
        if taps.wants(*parts):
            _tap_projection(taps, model.get_submodule(path), parts, run)


def _tap_projection(taps: TapRecorder, module: nn.Module, parts: Mapping[str, Projection], run: int | None) -> None:
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

    _on_output(taps, module, change, run)


def tap_output_projection(
    taps: TapRecorder, prefix: str, module: nn.Module, *, n_heads: int, run: int | None = None
) -> None:
    """Place `hook_z`, the input of attention's output projection, and `hook_result`, what each head writes.

    Args:
        taps: where values are kept.
        prefix: of the names, `blocks.0.attn`.
        module: HF's projection from `head * d_head` to `d_model`, a `Linear` or a `Conv1D`, perhaps with a bias.
        n_heads: the number of query heads.
        run: of the module in the forward.
    """
    z_name, result_name = f"{prefix}.hook_z", f"{prefix}.hook_result"
    is_meant = _in_run(run)

    def read_z(x: Tensor) -> Tensor:  # [batch, pos, head * d_head]
        return taps.visit(z_name, x.unflatten(-1, (n_heads, -1))).flatten(-2)

    def recompose(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if not is_meant():
            return output
        z = args[0].unflatten(-1, (n_heads, -1))
        matrix: Any = module.weight.T if isinstance(module, Conv1D) else module.weight
        weight = matrix.unflatten(-1, (n_heads, -1))  # [d_model, head, d_head]
        result = taps.visit(result_name, torch.einsum("bphd,mhd->bphm", z, weight))
        bias = getattr(module, "bias", None)
        return result.sum(2) if bias is None else result.sum(2) + bias

    if taps.wants(z_name):
        _on_input(taps, module, read_z, run)
    if taps.wants(result_name):
        taps.enter_context(module.register_forward_hook(recompose))


def tap_residual_mid(
    taps: TapRecorder, name: str, *, block: nn.Module, reader: nn.Module, run: int | None = None
) -> None:
    """Place the point between attention and MLP of a sequential block, after the attention's dropout.

    It is read at the input of the MLP's norm: the block adds the MLP's output to that very tensor. An edit of the
    norm's input does not reach that sum, so what the edit changed is added to the block's output. To be placed before
    a tap of that output.

    Args:
        taps: where values are kept.
        name: of the point.
        block: HF's block, whose first output is the residual stream `[batch, pos, d_model]`.
        reader: the norm that the block's MLP reads through, or the MLP where there is none.
        run: of the block in the forward, and of its reader.
    """
    changed: list[Tensor] = []

    def visit(value: Tensor) -> Tensor:
        edited = taps.visit_stream(name, value)
        if not taps.edits(name):
            return value  # and no clone: the block's sum has this very tensor
        changed.append(edited - value)
        return edited

    def add(output: Tensor) -> Tensor:
        return output + changed.pop().reshape(output.shape) if changed else output

    if taps.wants(name):
        _on_input(taps, reader, visit, run)
        _on_output(taps, block, add, run)
