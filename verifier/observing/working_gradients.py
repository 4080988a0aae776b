"""Gradients in a working dtype: what they must be, and how noisy Hugging Face's own are there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.cases.spec import SEMANTIC_DTYPE, Scenario
from verifier.judging.numerics import working_noise
from verifier.observing import activations
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, SEEDS, Perturbation

if TYPE_CHECKING:
    from verifier.observing.case import Case

SCENARIO = Scenario.PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingGradients:
    """By canonical weight, and of the model's first point by its name.

    Attributes:
        truth: in float64, of the weights that a model in that dtype has.
        noise: of HF's own in that dtype.
        logits: what the forward of each run gave, `[batch, pos, d_vocab]`: in float64, HF's own, and perturbed.
    """

    truth: Mapping[str, Tensor]
    noise: Mapping[str, float]
    logits: tuple[Tensor, Tensor, Tensor]


def measure_gradients(case: Case, dtype: str) -> WorkingGradients:
    """What HF's gradients are in that dtype."""
    return case.shared_reference(("working gradients", dtype), lambda: _measured(case, dtype))


def resampled_gradient_noise(case: Case, dtype: str) -> Mapping[str, float]:
    """The noise of HF's gradients by name, the largest of several perturbations.

    One alone wanders where one token is in all of a gradient, and says nothing of a kink that rounding crosses once in
    three times (a unit of a ReLU near zero): a difference that is a failure must be beyond all of them.
    """
    return case.shared_reference(("working gradients' noise", dtype), lambda: _measured_again(case, dtype))


def _measured_again(case: Case, dtype: str) -> Mapping[str, float]:
    working = getattr(torch, dtype)
    truth, _ = _run(case, case.truth(dtype), SEMANTIC_DTYPE)
    own, _ = _run(case, case.reference(dtype), dtype)
    moved = (_run(case, case.reference(dtype), dtype, Perturbation(working, seed))[0] for seed in SEEDS)
    return working_noise(truth, own, moved, working)


def _measured(case: Case, dtype: str) -> WorkingGradients:
    working = getattr(torch, dtype)
    truth, right = _run(case, case.truth(dtype), SEMANTIC_DTYPE)
    own, theirs = _run(case, case.reference(dtype), dtype)
    moved, perturbed = _run(case, case.reference(dtype), dtype, Perturbation(working, PERTURBATION_SEED))
    noise = working_noise(truth, own, [moved], working)
    return WorkingGradients(truth=truth, noise=noise, logits=(right, theirs, perturbed))


def _run(
    case: Case, model: Any, dtype: str, around: contextlib.AbstractContextManager[Any] | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    first = case.points[0].name
    with (
        torch.enable_grad(),
        case.family.taps(model, names=[first]) as taps,
        around or contextlib.nullcontext(),
    ):
        logits = models.forward(model, case.inputs(SCENARIO, dtype)).logits
        at, weights = activations.gradients_of(case, model, logits, SCENARIO, taps.values)
    return {**at, **weights}, logits.detach()
