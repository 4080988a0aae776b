"""Draw random weights that show bugs: every parameter distinct, at a scale at which each one matters."""

from __future__ import annotations

import functools
import hashlib
import math

import torch
from torch import Tensor, nn

# The standard deviation of biases and norm weights. HF's initial biases of 0 and norm weights of 1 hide lost biases and
# swapped norms; a quarter is far from both, and keeps a norm's weights positive.
SPREAD = 0.25
SMALL = 2**17  # elements of a draw that is cached; the cache stays below a gigabyte


def generator(*key: object) -> torch.Generator:
    """Make a generator whose numbers depend on the key alone, not on the order of calls."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw a parameter by its name, shape and seed, in float64 on the CPU. Nobody may write into the result.

    Matrices have fan-in scale, so that activations stay near 1 at every width and attention is neither uniform nor
    one-hot. Norm weights are about 1, biases about 0.

    Args:
        name: the parameter's name in the model; if it ends in `weight`, a vector is about 1.
        shape: of the parameter.
        seed: another seed gives another draw.
    """
    return (_small_draw if math.prod(shape) <= SMALL else _draw)(name, shape, seed)


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    noise = torch.randn(shape, generator=generator("weights", seed, name), dtype=torch.float64)
    if len(shape) > 1:
        scale: float = max(1, shape[-1]) ** -0.5
        return noise * scale
    return 1 + SPREAD * noise if name.endswith("weight") else SPREAD * noise


_small_draw = functools.lru_cache(maxsize=1024)(_draw)  # a case builds its model in every dtype, from the same draws


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Set every parameter to a value drawn in float64 and rounded to its dtype; tied parameters stay tied.

    Args:
        model: the model, which is changed.
        seed: of the draws.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(draw(name, tuple(parameter.shape), seed))


@torch.no_grad()
def rescale(model: nn.Module, scale: float) -> None:
    """Multiply every matrix by a power of two, which is exact in every dtype.

    Args:
        model: the model, which is changed; vectors such as biases and norm weights stay.
        scale: a power of two.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(scale)
