"""Measure Hugging Face's activations and gradients in a working dtype: the float64 truth, and HF's own noise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verifier.cases.spec import SEMANTIC_DTYPE
from verifier.judging.numerics import working_noise
from verifier.observing.case_reference import CaseReference
from verifier.observing.reuse import SharesReference, memoized_for_equal_models
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, SEEDS, Perturbation

Values = tuple[Mapping[str, Tensor], Tensor]
"""The tensors of a run by name, and its logits `[batch, pos, d_vocab]`."""
_Run = Callable[[CaseReference, Any, str, contextlib.AbstractContextManager[Any]], Values]
"""Runs a model in a dtype on plain tokens, inside a context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingPrecision:
    """Tensors of Hugging Face's runs on plain tokens, by canonical name.

    Attributes:
        truth: the tensors in float64, of the rounded weights that a model in the dtype has.
        noise: of HF's tensors in the dtype.
        logits: `[batch, pos, d_vocab]` each: in float64, in the dtype, and perturbed in the dtype.
    """

    truth: Mapping[str, Tensor]
    noise: Mapping[str, float]
    logits: tuple[Tensor, Tensor, Tensor]


@memoized_for_equal_models
def measure_activations(case: SharesReference, dtype: str) -> WorkingPrecision:
    """Measure HF's activations in a dtype, by canonical point.

    Args:
        case: the case.
        dtype: the working dtype.
    """
    return _measure(case, dtype, _activations)


@memoized_for_equal_models
def measure_gradients(case: SharesReference, dtype: str) -> WorkingPrecision:
    """Measure HF's gradients in a dtype: by canonical weight, and at the model's first point by its name.

    Args:
        case: the case.
        dtype: the working dtype.
    """
    return _measure(case, dtype, _gradients)


def resampled_activation_noise(case: SharesReference, dtype: str, name: str) -> float:
    """Measure the noise of HF's activation at a point, the largest of several perturbations.

    Args:
        case: the case.
        dtype: the working dtype.
        name: of the canonical point.
    """
    return _resampled_noise(case, dtype, _activations)[name]


def resampled_gradient_noise(case: SharesReference, dtype: str, name: str) -> float:
    """Measure the noise of one of HF's gradients, the largest of several perturbations.

    One perturbation is not enough to fail a subject. Its noise varies where one token dominates a gradient, and it may
    miss a kink that rounding crosses once in three times, such as a ReLU's near zero.

    Args:
        case: the case.
        dtype: the working dtype.
        name: of the canonical weight, or of the model's first point.
    """
    return _resampled_noise(case, dtype, _gradients)[name]


@memoized_for_equal_models
def _resampled_noise(case: SharesReference, dtype: str, run: _Run) -> Mapping[str, float]:
    return _measure(case, dtype, run, SEEDS).noise


def _measure(
    case: SharesReference, dtype: str, run: _Run, seeds: Sequence[int] = (PERTURBATION_SEED,)
) -> WorkingPrecision:
    reference, working, unperturbed = case.shared_reference.reference, getattr(torch, dtype), contextlib.nullcontext()
    defined = {point.name: reference.defined(point.axes) for point in reference.points}
    truth, right = run(reference, reference.rounded_model(dtype), SEMANTIC_DTYPE, unperturbed)
    own, theirs = run(reference, reference.model(dtype), dtype, unperturbed)
    perturbed = theirs

    def moved() -> Iterator[Mapping[str, Tensor]]:
        nonlocal perturbed
        for seed in seeds:
            values, perturbed = run(reference, reference.model(dtype), dtype, Perturbation(working, seed))
            yield values

    noise = working_noise(truth, own, moved(), working, defined)
    return WorkingPrecision(truth=truth, noise=noise, logits=(right, theirs, perturbed))


def _activations(
    reference: CaseReference, model: Any, dtype: str, around: contextlib.AbstractContextManager[Any]
) -> Values:
    with torch.no_grad(), reference.family.taps(model) as taps, around:
        logits = models.forward(model, reference.inputs(dtype=dtype)).logits
    return dict(taps.values), logits


def _gradients(
    reference: CaseReference, model: Any, dtype: str, around: contextlib.AbstractContextManager[Any]
) -> Values:
    first = reference.points[0].name
    with torch.enable_grad(), reference.family.taps(model, names=[first]) as taps, around:
        logits = models.forward(model, reference.inputs(dtype=dtype)).logits
        at, weights = reference.gradients(model, logits, taps.values)
    return {**at, **weights}, logits.detach()
