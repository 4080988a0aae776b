"""What a norm of Hugging Face's does, found by asking it: centring, epsilon, `1 + weight`, the dtype it computes in."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.errors import VerifierError

_ROWS = 8
_SMALL, _LARGE = 2.0**-13, 2.0**13  # how wide the inputs are that show the epsilon, and those that show only the weight
# Beyond this, relative to the output, a norm is not what is supposed: more than float32's rounding of some operations,
# and far less than another epsilon, centring or weight makes on the inputs that are asked.
_SAME = 100 * torch.finfo(torch.float32).eps


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """What a norm computes: of `x [..., d_model]`, centred or not, `x / sqrt(mean(x²) + eps)`, weighted.

    Attributes:
        eps: what is added to the variance.
        centred: whether the mean is subtracted first.
        offset: whether it multiplies by `1 + weight`.
        computed_in: the dtype in which it takes the mean and the variance; None for the input's.
        multiplied_in_it: whether it also multiplies by the inverse in that dtype.
        weighted_first: whether it weights before it goes back to the input's dtype.
        weight_cast: whether it weights by a weight in `computed_in`.
    """

    eps: float
    centred: bool
    offset: bool
    computed_in: torch.dtype | None
    multiplied_in_it: bool = True
    weighted_first: bool = False
    weight_cast: bool = False

    def _prepared(self, x: Tensor, in_it: bool = True) -> Tensor:
        x = x if self.computed_in is None or not in_it else x.to(self.computed_in)
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def inverse(self, x: Tensor) -> Tensor:
        """Compute what the norm multiplies by, `[..., 1]`, in the dtype that it computes in."""
        return torch.rsqrt(self._prepared(x).pow(2).mean(-1, keepdim=True) + self.eps)

    def normalized(self, x: Tensor, inverse: Tensor) -> Tensor:
        """Multiply what is centred by an inverse: `[..., d_model]` before weight and bias, in the wider dtype.

        Args:
            x: the norm's input, `[..., d_model]`.
            inverse: `[..., 1]`.
        """
        prepared = self._prepared(x, self.multiplied_in_it)
        found = prepared * inverse.to(self.computed_in or x.dtype).to(prepared.dtype)
        return found.to(torch.promote_types(found.dtype, x.dtype) if self.weighted_first else x.dtype)

    def weighted(self, module: nn.Module, normalized: Tensor) -> Tensor:
        """Apply the weight and the bias that a module has.

        Args:
            module: the norm.
            normalized: `[..., d_model]`.
        """
        if self.weighted_first and self.computed_in is not None:
            normalized = normalized.to(self.computed_in)
        weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
        if weight is not None:
            weight = weight.to(normalized.dtype) if self.weight_cast else weight
            normalized = normalized * (1.0 + weight if self.offset else weight)
        return normalized if bias is None else normalized + bias


# Where HF's code casts, the plainest first.
_CASTS: list[dict[str, Any]] = [
    {"computed_in": None},
    *(
        {"computed_in": torch.float32, "multiplied_in_it": multiplied, **weighted}
        for multiplied in (True, False)
        for weighted in ({}, {"weighted_first": True}, {"weighted_first": True, "weight_cast": True})
    ),
]

_FOUND: dict[object, Norm] = {}


def norm_of(module: nn.Module, width: int) -> Norm:
    """Find what a norm does, from its outputs on chosen inputs in float64, with weights of the harness' own.

    Norms of one class with the same settings are asked once.

    Args:
        module: HF's norm, of `[..., d_model]`, perhaps with a weight and a bias; it is left as it is.
        width: `d_model`.

    Raises:
        VerifierError: it is no norm over the last axis of any kind that is known.
    """
    settings = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | tuple)}
    settings.pop("training", None)
    key = (type(module), width, repr(sorted(settings.items())), tuple(dict(module.named_parameters(recurse=False))))
    if key not in _FOUND:
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            _FOUND[key] = _find(module, width, [value for value in settings.values() if isinstance(value, float)])
    return _FOUND[key]


def _find(module: nn.Module, width: int, settings: list[float]) -> Norm:
    asked = _Asked(module, width, torch.float64)
    unit = asked.inputs[1][:1]
    found: list[tuple[float, Norm]] = []
    for centred, offset, casts in itertools.product((False, True), (False, True), _CASTS):
        norm = Norm(eps=0.0, centred=centred, offset=offset, **casts)
        for eps in (*settings, _epsilon(norm, asked.module, unit, settings)):
            one = replace(norm, eps=eps)
            found.append((asked.how_far(one), one))
    least = min(apart for apart, _ in found)
    if not least < _SAME:
        raise VerifierError(
            f"{type(module).__name__} is no norm over its last axis: no centring, epsilon and weight give its outputs"
        )
    # What is the same in float64 may round otherwise in half precision.
    half = _Asked(module, width, torch.bfloat16)
    return min((norm for apart, norm in found if apart <= 2 * least), key=half.how_far)


class _Asked:
    """A norm with weights of the harness' own, inputs, and what it gives."""

    def __init__(self, module: nn.Module, width: int, dtype: torch.dtype) -> None:
        draw = torch.Generator().manual_seed(0)
        self.module: Any = copy.copy(module)  # `forward` runs none of its hooks
        self.module._parameters = {
            name: None if one is None else nn.Parameter(torch.randn(one.shape, generator=draw).to(dtype))
            for name, one in module._parameters.items()
        }
        unit = torch.randn(_ROWS, 1, width, generator=draw, dtype=torch.float64)
        self.inputs = [(unit * size + shift).to(dtype) for size, shift in ((_SMALL, 0.0), (1.0, 0.0), (1.0, 3.0))]
        self.outputs = [self.module.forward(x).double() for x in self.inputs]

    def how_far(self, norm: Norm) -> float:
        """Give how far what is supposed of the norm is from what it gives, relative to that."""

        def apart(x: Tensor, output: Tensor) -> float:
            given = norm.weighted(self.module, norm.normalized(x, norm.inverse(x))).to(x.dtype).double()
            found = float((given - output).abs().max() / output.abs().max())
            return math.inf if math.isnan(found) else found

        return max(apart(x, output) for x, output in zip(self.inputs, self.outputs, strict=True))


def _epsilon(norm: Norm, module: Any, unit: Tensor, settings: list[float]) -> float:
    """Read the epsilon off how much smaller a small input's output is than a large one's.

    A setting of the norm that is near it is meant, or a short number: what is read off float32 has its rounding.

    Args:
        norm: what is supposed but for the epsilon.
        module: HF's norm.
        unit: one input, `[1, 1, d_model]`.
        settings: the module's own numbers.
    """
    zero = module.forward(torch.zeros_like(unit)).double()  # the bias
    large, small = (module.forward(unit * size).double() - zero for size in (_LARGE, _SMALL))
    # With v the variance: small = x / sqrt(v + eps / SMALL²), and large = x / sqrt(v).
    ratio = float((small * large).sum() / (large * large).sum())
    if not 0 < ratio <= 1:
        return 0.0
    variance = float(norm._prepared(unit).double().pow(2).mean())
    found = variance * (ratio**-2 - 1) * _SMALL**2
    likely = [*settings, float(f"{found:.2g}")]
    return next((one for one in likely if abs(one - found) < found / 100), found)  # exact to a part in some hundred
