"""Activations in a working dtype: what they must be, and how noisy Hugging Face's own are there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.cases.spec import SEMANTIC_DTYPE, Scenario
from verifier.judging.numerics import working_noise
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, SEEDS, Perturbation

if TYPE_CHECKING:
    from verifier.observing.case import Case

SCENARIO = Scenario.PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingPoints:
    """By canonical point.

    Attributes:
        truth: in float64, of the weights that a model in that dtype has.
        noise: of HF's own in that dtype.
    """

    truth: Mapping[str, Tensor]
    noise: Mapping[str, float]


def measure_activations(case: Case, dtype: str) -> WorkingPoints:
    """What HF's activations are in that dtype."""
    return case.shared_reference(("working points", dtype), lambda: _measured(case, dtype, (PERTURBATION_SEED,)))


def resampled_activation_noise(case: Case, dtype: str, name: str) -> float:
    """The noise at a point, of several perturbations the farthest."""
    found = case.shared_reference(("working points' noise", dtype), lambda: _measured(case, dtype, SEEDS))
    return found.noise[name]


def _measured(case: Case, dtype: str, seeds: Sequence[int]) -> WorkingPoints:
    working = getattr(torch, dtype)
    truth = _run(case, case.truth(dtype), SEMANTIC_DTYPE)
    own = _run(case, case.reference(dtype), dtype)
    moved = (_run(case, case.reference(dtype), dtype, Perturbation(working, seed)) for seed in seeds)
    defined = {point.name: case.defined(point.axes, SCENARIO) for point in case.points}
    noise = working_noise(truth, own, moved, working, defined)
    return WorkingPoints(truth=truth, noise=noise)


def _run(
    case: Case, model: Any, dtype: str, around: contextlib.AbstractContextManager[Any] | None = None
) -> dict[str, Tensor]:
    with torch.no_grad(), case.family.taps(model) as taps, around or contextlib.nullcontext():
        models.forward(model, case.inputs(SCENARIO, dtype))
    return dict(taps.values)
