"""Measure what rounding alone can do: move the result of every operation by one unit in the last place.

The perturbation, exactly: inside `Perturbation(dtype, seed)` every operation that torch dispatches and that gives a
floating tensor of `dtype` which is new, or written in place, has each element moved to the next number of that dtype
above or below it in magnitude, by a fair coin from a generator with that seed. Zeros stay zero, and what is finite
stays finite. Views are not results and stay as they are. So do tensors of other dtypes: what HF computes in float32
or bfloat16 in a float64 model (rotary tables, ALiBi) is part of the function, not of its rounding.

Attention runs on torch's math backend, not a fused kernel, so that its scores and its pattern are results too.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

# A floating number's bits, read as an integer of the same size, count its magnitude in units in the last place.
_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}


PERTURBATION_SEED = 20230317  # any number; it is fixed so that a case is judged in the same way each time

# The perturbations over which the noise is measured before a subject fails. Where few numbers carry a result its noise
# has a long tail. The error of a right subject is one more draw from it: the largest of 33 once in 33 times.
SEEDS = range(PERTURBATION_SEED, PERTURBATION_SEED + 32)

# Views whose schema does not say so: their memory is the result of the operation before.
_HIDDEN_VIEWS = (torch.ops.aten._unsafe_view.default,)


class Perturbation(TorchDispatchMode):
    """Inside this context each result of `dtype` is moved by a unit in the last place, up or down at random."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dtype = dtype
        self._generator = torch.Generator().manual_seed(seed)
        self._next = int(torch.randint(0, POOL // 2, (), generator=self._generator))
        self._backend: Any = None

    def __enter__(self) -> Perturbation:
        self._backend = sdpa_kernel(SDPBackend.MATH)
        self._backend.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)  # type: ignore[no-untyped-call]
        self._backend.__exit__(*exc)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or func in _HIDDEN_VIEWS:
            return result
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, Tensor) and one.dtype == self._dtype and one.numel():
                self._move(one)
        return result

    def _move(self, tensor: Tensor) -> None:
        coins, factors = self._deal(tensor.numel())
        farther = tensor * factors.view(tensor.shape).to(tensor.device)
        if farther.sum().isfinite():  # one pass; any NaN or infinity shows in the sum
            torch.nextafter(tensor, farther, out=tensor)
            return
        # Something is masked, or about to overflow. The largest finite number stays too: the next one is infinity.
        movable = (tensor.abs() < torch.finfo(self._dtype).max) & (tensor != 0)
        steps = coins.to(tensor.device, _BITS[self._dtype]).view(tensor.shape)
        tensor.view(_BITS[self._dtype]).add_(steps * movable)

    def _deal(self, size: int) -> tuple[Tensor, Tensor]:
        """Take so many coins from the pool, or toss them where it is too small; give them and their factors."""
        if size > POOL // 2:
            coins = _tossed(size, self._generator)
            return coins, _away(coins, self._dtype)
        if self._next + size > POOL:
            self._next = int(torch.randint(0, POOL // 2, (), generator=self._generator))
        dealt = slice(self._next, self._next + size)
        self._next += size
        return _pool()[dealt], _factors(self._dtype)[dealt]


# Coins are tossed once, and each tensor takes them from a random place on. To toss anew for each of the thousand small
# results of a forward costs more than the forward.
POOL = 2**21


def _tossed(size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)


@functools.cache
def _pool() -> Tensor:
    return _tossed(POOL, torch.Generator().manual_seed(0))


@functools.cache
def _factors(dtype: torch.dtype) -> Tensor:
    return _away(_pool(), dtype)


def _away(coins: Tensor, dtype: torch.dtype) -> Tensor:
    """Make factors that move a number away from zero where the coin is 1, and towards zero where it is -1."""
    return (1 + coins.double() * torch.finfo(dtype).eps).to(dtype)
