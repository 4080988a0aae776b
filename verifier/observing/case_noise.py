"""Measure how far rounding moves Hugging Face's results in a case, and make the judges that use this noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from verifier.adapter import Output
from verifier.cases.inputs import NO_LABEL
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, Scenario
from verifier.judging.numerics import (
    Judge,
    float64_judge,
    measured_noise,
    noise_from_float32,
    position_noise,
    precision_judge,
    rms,
    unit,
)
from verifier.observing.memo import memoized
from verifier.observing.reuse import SharedReference, memoized_for_equal_models
from verifier.observing.working_precision import measure_gradients
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, SEEDS, Perturbation


class CaseNoise:
    """The float64 truth of a working dtype's weights, and the noise of Hugging Face's logits and loss.

    Invariant: every number is measured on the reference alone, with the case's own weights and inputs and with fixed
    seeds, so that a case is judged in the same way in each process.
    """

    def __init__(self, shared_reference: SharedReference) -> None:
        self.shared_reference = shared_reference
        self.memo = shared_reference.memo
        self._reference = shared_reference.reference

    @memoized
    def truth(self, scenario: Scenario, dtype: str) -> Output:
        """Run HF's model in float64, with the rounded weights that a model in that dtype has.

        Args:
            scenario: of the run.
            dtype: that the weights are rounded to.

        Returns:
            The output, with logits `[batch, pos, d_vocab]`.
        """
        if dtype == SEMANTIC_DTYPE:
            return self._reference.output(scenario)
        if scenario is Scenario.PLAIN:
            # The gradients of this run are needed too, and each perturbed run costs as much as several others.
            return Output(logits=measure_gradients(self, dtype).logits[0])
        with torch.no_grad():
            return models.forward(self._reference.rounded_model(dtype), self._reference.inputs(scenario))

    @memoized_for_equal_models
    def logits(
        self, scenario: Scenario = Scenario.PLAIN, dtype: str = SEMANTIC_DTYPE, *, resampled: bool = False
    ) -> float:
        """Measure the noise of HF's logits in a dtype, an rms over all real tokens.

        Args:
            scenario: of the runs.
            dtype: of the model.
            resampled: whether a working dtype's noise is the largest of several perturbations, not that of one.
        """
        if dtype != SEMANTIC_DTYPE:
            return self._working_noise(scenario, dtype, resampled)[0]
        single = self._reference.output(scenario, SINGLE).logits
        return noise_from_float32(self._reference.output(scenario).logits, single, self._real(scenario))

    def by_position(self, scenario: Scenario, dtype: str, *, resampled: bool = False) -> Tensor:
        """Measure the noise of logits in a working dtype at each position: `[pos]`, at least the noise over all.

        Args:
            scenario: of the runs.
            dtype: the working dtype.
            resampled: whether the noise is the largest of several perturbations, not that of one.
        """
        return self._working_noise(scenario, dtype, resampled)[1]

    def float64_perturbation(self, scenario: Scenario = Scenario.PLAIN) -> float:
        """Measure how far HF's float64 logits move, an rms, when every result is moved by a unit in the last place."""
        moved = self._perturbed(scenario, SEMANTIC_DTYPE).logits
        return rms(moved - self._reference.output(scenario).logits, self._real(scenario))

    @memoized_for_equal_models
    def loss(self, dtype: str = SEMANTIC_DTYPE, scenario: Scenario = Scenario.LABELS) -> float:
        """Measure the noise of HF's loss: the rms of each token's noise, which the mean over tokens cannot exceed.

        Args:
            dtype: of the model.
            scenario: of the run; it has labels.

        Returns:
            The noise in the unit of the loss, with the rounding of the loss itself in that dtype.
        """
        truth, own = self.truth(scenario, dtype), self._reference.output(scenario, dtype)
        labels = self._reference.inputs(scenario).labels
        assert truth.loss is not None
        assert own.loss is not None
        assert labels is not None
        each = _token_losses(truth.logits, labels)
        if dtype == SEMANTIC_DTYPE:
            single = _token_losses(self._reference.output(scenario, SINGLE).logits, labels)
            return math.hypot(noise_from_float32(each, single), unit(truth.loss, torch.float64))
        moved = rms(_token_losses(self._perturbed(scenario, dtype).logits, labels) - each)
        return math.hypot(rms(own.loss.double() - truth.loss), moved, unit(truth.loss, getattr(torch, dtype)))

    def judge(self, scenario: Scenario = Scenario.PLAIN) -> Judge:
        """Make the judge of logits of a float64 run."""
        return float64_judge(self.logits(scenario), lambda: self.logits(scenario, SINGLE))

    def precision_judge(self, scenario: Scenario, dtype: str) -> Judge:
        """Make the judge of logits of a run in a working dtype.

        Args:
            scenario: of the run.
            dtype: the working dtype.
        """
        return precision_judge(self.logits(scenario, dtype), lambda: self.logits(scenario, dtype, resampled=True))

    def _real(self, scenario: Scenario) -> Tensor:
        return self._reference.scenario(scenario).real[..., None]

    def _perturbed(self, scenario: Scenario, dtype: str, seed: int = PERTURBATION_SEED) -> Output:
        model, inputs = self._reference.model(dtype), self._reference.inputs(scenario, dtype)
        with torch.no_grad(), Perturbation(getattr(torch, dtype), seed):
            return models.forward(model, inputs)

    @memoized_for_equal_models
    def _runs(self, scenario: Scenario, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
        """Read HF's logits `[batch, pos, d_vocab]` in float64, in a working dtype, and perturbed in that dtype."""
        if scenario is Scenario.PLAIN:
            return measure_gradients(self, dtype).logits
        own = self._reference.output(scenario, dtype).logits
        return self.truth(scenario, dtype).logits, own, self._perturbed(scenario, dtype).logits

    @memoized_for_equal_models
    def _working_noise(self, scenario: Scenario, dtype: str, resampled: bool) -> tuple[float, Tensor]:
        """Measure the noise of logits in a working dtype over all positions, and `[pos]` at each."""
        # One perturbed run is enough at first: over thousands of elements its rms varies by a few hundredths.
        truth, own, moved = self._runs(scenario, dtype)
        runs = [self._perturbed(scenario, dtype, seed).logits for seed in SEEDS] if resampled else [moved]
        real = self._real(scenario)
        total = measured_noise(truth, own, runs, getattr(torch, dtype), real)
        each = [position_noise((own.double() - truth, run.double() - truth), real, least=total) for run in runs]
        return total, torch.stack(each).amax(0)


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the float64 loss of each token whose next token has a label, shifted as in HF's causal loss."""
    shifted = labels[:, 1:].flatten()
    losses = F.cross_entropy(logits[:, :-1].double().flatten(0, 1), shifted, reduction="none", ignore_index=NO_LABEL)
    return losses[shifted != NO_LABEL]
