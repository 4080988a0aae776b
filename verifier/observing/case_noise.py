"""Measure how far rounding moves Hugging Face's results in a case, and make the judges that use this noise."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.adapter import Output
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, Scenario
from verifier.judging.numerics import (
    Judge,
    float64_judge,
    measured_noise,
    noise_from_float32,
    precision_judge,
    rms,
)
from verifier.observing.memo import memoized
from verifier.observing.reuse import SharedReference, memoized_for_equal_models
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, SEEDS, Perturbation


class CaseNoise:
    """The float64 truth of a working dtype's weights, and the noise of Hugging Face's logits.

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
            return self._working_noise(scenario, dtype, resampled)
        single = self._reference.output(scenario, SINGLE).logits
        return noise_from_float32(self._reference.output(scenario).logits, single, self._real(scenario))

    def float64_perturbation(self, scenario: Scenario = Scenario.PLAIN) -> float:
        """Measure how far HF's float64 logits move, an rms, when every result is moved by a unit in the last place."""
        moved = self._perturbed(scenario, SEMANTIC_DTYPE).logits
        return rms(moved - self._reference.output(scenario).logits, self._real(scenario))

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
        model, inputs = self._reference.model(dtype), self._reference.inputs(scenario)
        with torch.no_grad(), Perturbation(getattr(torch, dtype), seed):
            return models.forward(model, inputs)

    @memoized_for_equal_models
    def _working_noise(self, scenario: Scenario, dtype: str, resampled: bool) -> float:
        """Measure the noise of logits in a working dtype over all positions."""
        # One perturbed run is enough at first: over thousands of elements its rms varies by a few hundredths.
        seeds = SEEDS if resampled else (PERTURBATION_SEED,)
        runs = [self._perturbed(scenario, dtype, seed).logits for seed in seeds]
        own, truth = self._reference.output(scenario, dtype).logits, self.truth(scenario, dtype).logits
        return measured_noise(truth, own, runs, getattr(torch, dtype), self._real(scenario))
