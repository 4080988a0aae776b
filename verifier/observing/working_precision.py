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
from verifier.observing.reuse import SharedReference
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


def measure_activations(shared: SharedReference, dtype: str) -> WorkingPrecision:
    """Measure HF's activations in a dtype, by canonical point."""
    return shared.memoize(("working points", dtype), lambda: _measure_activations(shared.reference, dtype))


def measure_gradients(shared: SharedReference, dtype: str) -> WorkingPrecision:
    """Measure HF's gradients in a dtype: by canonical weight, and at the model's first point by its name."""
    return shared.memoize(("working gradients", dtype), lambda: _measure(shared.reference, dtype, _gradients))


def resampled_activation_noise(shared: SharedReference, dtype: str, name: str) -> float:
    """Measure the noise of the activation at a point, the largest of several perturbations."""

    def make() -> Mapping[str, float]:
        return _measure_activations(shared.reference, dtype, SEEDS).noise

    return shared.memoize(("working points' noise", dtype), make)[name]


def resampled_gradient_noise(shared: SharedReference, dtype: str, name: str) -> float:
    """Measure the noise of a gradient, the largest of several perturbations.

    One perturbation is not enough to fail a subject. Its noise varies where one token dominates a gradient, and it may
    miss a kink that rounding crosses once in three times, such as a ReLU's near zero.
    """

    def make() -> Mapping[str, float]:
        return _measure(shared.reference, dtype, _gradients, SEEDS).noise

    return shared.memoize(("working gradients' noise", dtype), make)[name]


def _measure_activations(
    reference: CaseReference, dtype: str, seeds: Sequence[int] = (PERTURBATION_SEED,)
) -> WorkingPrecision:
    defined = {point.name: reference.defined(point.axes) for point in reference.points}
    return _measure(reference, dtype, _activations, seeds, defined)


def _measure(
    reference: CaseReference,
    dtype: str,
    run: _Run,
    seeds: Sequence[int] = (PERTURBATION_SEED,),
    defined: Mapping[str, Tensor] | None = None,
) -> WorkingPrecision:
    working, unperturbed = getattr(torch, dtype), contextlib.nullcontext()
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
