"""Bridged components other than attention: each calls Hugging Face's own module, with hook points around it.

Norms are the exception: they have hook points inside, so they are computed here, at least in float32, and rounded once
at the end, as torch's kernels do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from verifier_bridge.errors import BridgeRefusal
from verifier_bridge.hook_point import HookPoint

if TYPE_CHECKING:
    from verifier_bridge.architecture import LinearArithmetic
    from verifier_bridge.qkv import Part, QKVLayout


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """Choose the dtype in which sums over many terms are formed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


class Bridged(nn.Module):
    """A component that calls Hugging Face's module `original` with its own inputs and gives its output."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.training = original.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run Hugging Face's own module on these arguments, and give its output as it is."""
        return self.original(*args, **kwargs)


class BridgedEmbedding(Bridged):
    """Token ids `[batch, pos]` → `[batch, pos, d_model]`."""


class BridgedRotaryEmbedding(Bridged):
    """Hidden states and position ids `[batch, pos]` → cosines and sines, each `[batch, pos, d_head]`."""


class BridgedUnembedding(Bridged):
    """`[batch, pos, d_model]` → logits `[batch, pos, d_vocab]`."""


class BridgedLinear(Bridged):
    """`[…, d_in]` → `[…, d_out]`, with the weight laid out as `nn.Linear`'s."""

    @property
    def weight(self) -> Tensor:
        """`[d_out, d_in]`."""
        weight: Tensor = self.original.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> Tensor | None:
        """`[d_out]`, or None."""
        bias: Tensor | None = self.original.bias  # type: ignore[assignment]
        return bias


class BridgedNorm(nn.Module):
    """A layer norm or an RMS norm: `[batch, pos, d_model]` → `[batch, pos, d_model]`.

    `hook_scale` `[batch, pos, 1]` is what it divides by, `hook_normalized` what its weight and bias are applied to;
    in a model of half precision both are float32.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.training = original.training
        self.centres = isinstance(original, nn.LayerNorm)
        eps = getattr(original, "eps", getattr(original, "variance_epsilon", None))
        if eps is None:
            raise BridgeRefusal(f"{type(original).__name__} is neither a layer norm nor an RMS norm with an epsilon")
        self.eps = float(eps)
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        """Run the norm on `[batch, pos, d_model]`, and give the same shape in the dtype of `x`."""
        wide = x.to(computed_in(x.dtype))
        if self.centres:
            wide = wide - wide.mean(-1, keepdim=True)
        scale: Tensor = self.hook_scale((wide.square().mean(-1, keepdim=True) + self.eps).sqrt())
        out: Tensor = self.hook_normalized(wide / scale)
        weight: Tensor | None = self.original.weight  # type: ignore[assignment]
        bias: Tensor | None = getattr(self.original, "bias", None)
        if weight is not None:
            out = out * weight.to(out.dtype)
        if bias is not None:
            out = out + bias.to(out.dtype)
        return out.to(x.dtype)


class BridgedMLP(nn.Module):
    """An MLP: `[batch, pos, d_model]` → `[batch, pos, d_model]`.

    `hook_pre` and `hook_post` are `[batch, pos, d_mlp]`.
    """

    def __init__(self, original: nn.Module, *, linear_in: nn.Module, act: nn.Module, linear_out: nn.Module) -> None:
        super().__init__()
        self.training = original.training
        self.add_module("in", BridgedLinear(linear_in))  # canonical names, of which one is a word of Python
        self.hook_pre = HookPoint()
        self.act = act
        self.hook_post = HookPoint()
        self.out = BridgedLinear(linear_out)

    def forward(self, x: Tensor) -> Tensor:
        """Run the MLP on `[batch, pos, d_model]`, and give the same shape."""
        hidden = self.hook_pre(self.get_submodule("in")(x))
        out: Tensor = self.out(self.hook_post(self.act(hidden)))
        return out


class SplitProjection(nn.Module):
    """The query, key or value part of a fused projection, as a linear map.

    It owns nothing: weight and bias are copies made of the fused ones as they are now, in the graph of those.
    """

    def __init__(self, fused: BridgedLinear, *, layout: QKVLayout, part: Part, linear: LinearArithmetic) -> None:
        super().__init__()
        self.training = fused.training
        self.part = part
        self._linear = linear
        self._rows = layout.rows_of(part)
        # Not registered: the fused projection is in the tree once, as itself.
        object.__setattr__(self, "_fused", fused)
        self._held: tuple[Tensor, ...] = ()

    @property
    def weight(self) -> Tensor:
        """`[n * d_head, d_model]`, heads in order."""
        weight = self._gather(self._fused.weight)
        # Held on to, so that the next copy, of this part or another, cannot come to lie at its address.
        self._held = (weight,)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """`[n * d_head]`, or None."""
        return None if self._fused.bias is None else self._gather(self._fused.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[…, d_model]` → `[…, n * d_head]`."""
        return self._linear(x, self._gather(self._fused.weight), self.bias)

    def _gather(self, fused: Tensor) -> Tensor:
        return fused.index_select(0, self._rows.to(fused.device))

    _fused: BridgedLinear

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": ()}
