"""What rounding does to Hugging Face's results in a case, and the judges that hold a subject's errors against it."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
from verifier.observing.memo import Memo
from verifier.observing.reuse import SharedReference
from verifier.observing.working_precision import measure_gradients
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, SEEDS, Perturbation


class CaseNoise:
    """The float64 truth of a working dtype's weights, and the noise of Hugging Face's logits and loss.

    Invariant: every number is measured on the reference alone, on the case's own weights and inputs, with seeds that
    never change, so that a case is judged in the same way in each process.
    """

    def __init__(self, shared: SharedReference, memo: Memo) -> None:
        self._shared = shared
        self._reference = shared.reference
        self._memo = memo

    def truth(self, scenario: Scenario, dtype: str) -> Output:
        """What float64 makes of the weights of a model in that dtype."""
        if dtype == SEMANTIC_DTYPE:
            return self._reference.output(scenario)

        def make() -> Output:
            if scenario is Scenario.PLAIN:
                # Gradients are taken of that run too, and one that is perturbed costs several others.
                return Output(logits=measure_gradients(self._shared, dtype).logits[0])
            with torch.no_grad():
                return models.forward(self._reference.rounded_model(dtype), self._reference.inputs(scenario))

        return self._memo.memoize(("truth", scenario, dtype), make)

    def logits(self, scenario: Scenario = Scenario.PLAIN, dtype: str = SEMANTIC_DTYPE) -> float:
        """The noise of HF's logits in that dtype."""

        def make() -> float:
            single = self._reference.output(scenario, SINGLE).logits
            return noise_from_float32(self._reference.output(scenario).logits, single, self._real(scenario))

        if dtype == SEMANTIC_DTYPE:
            return self._shared.memoize(("noise", self._shared.run_key(scenario)), make)
        return self._once_perturbed(scenario, dtype)[0]

    def by_position(self, scenario: Scenario, dtype: str) -> Tensor:
        """`[pos]`: the noise of logits in a working dtype at each position, but nowhere less than over all of them."""
        return self._once_perturbed(scenario, dtype)[1]

    def resampled_logits(self, scenario: Scenario, dtype: str) -> float:
        """The noise of HF's logits in a working dtype, the farthest of several perturbations."""
        return self._often_perturbed(scenario, dtype)[0]

    def resampled_by_position(self, scenario: Scenario, dtype: str) -> Tensor:
        """`[pos]`: the noise of logits in a working dtype at each position, the farthest of several perturbations."""
        return self._often_perturbed(scenario, dtype)[1]

    def float64_perturbation(self, scenario: Scenario = Scenario.PLAIN) -> float:
        """What HF's float64 logits themselves move by when every result is moved by a unit."""
        moved = self._perturbed(scenario, SEMANTIC_DTYPE).logits
        return rms(moved - self._reference.output(scenario).logits, self._real(scenario))

    def loss(self, dtype: str = SEMANTIC_DTYPE, scenario: Scenario = Scenario.LABELS) -> float:
        """The noise of HF's loss: of a mean over tokens, so at most the rms of what each token's loss moves by."""

        def make() -> float:
            truth, own = self.truth(scenario, dtype), self._reference.output(scenario, dtype)
            wanted = self._reference.inputs(scenario).labels
            assert truth.loss is not None
            assert own.loss is not None
            assert wanted is not None
            each = _token_losses(truth.logits, wanted)
            if dtype == SEMANTIC_DTYPE:
                single = _token_losses(self._reference.output(scenario, SINGLE).logits, wanted)
                return math.hypot(noise_from_float32(each, single), unit(truth.loss, torch.float64))
            moved = rms(_token_losses(self._perturbed(scenario, dtype).logits, wanted) - each)
            return math.hypot(rms(own.loss.double() - truth.loss), moved, unit(truth.loss, getattr(torch, dtype)))

        return self._shared.memoize(("loss noise", self._shared.run_key(scenario), dtype), make)

    def judge(self, scenario: Scenario = Scenario.PLAIN) -> Judge:
        """Judges logits of a float64 run."""
        return float64_judge(self.logits(scenario), lambda: self.logits(scenario, SINGLE))

    def precision_judge(self, scenario: Scenario, dtype: str) -> Judge:
        """Judges logits of a run in a working dtype."""
        return precision_judge(self.logits(scenario, dtype), lambda: self.resampled_logits(scenario, dtype))

    def _real(self, scenario: Scenario) -> Tensor:
        return self._reference.scenario(scenario).real[..., None]

    def _perturbed(self, scenario: Scenario, dtype: str, seed: int = PERTURBATION_SEED) -> Output:
        model, inputs = self._reference.model(dtype), self._reference.inputs(scenario, dtype)
        with torch.no_grad(), Perturbation(getattr(torch, dtype), seed):
            return models.forward(model, inputs)

    def _runs(self, scenario: Scenario, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `[batch, pos, d_vocab]` of HF's runs: in float64, in a working dtype, and perturbed there."""

        def make() -> tuple[Tensor, Tensor, Tensor]:
            if scenario is Scenario.PLAIN:
                return measure_gradients(self._shared, dtype).logits
            own = self._reference.output(scenario, dtype).logits
            return self.truth(scenario, dtype).logits, own, self._perturbed(scenario, dtype).logits

        return self._shared.memoize(("runs", self._shared.run_key(scenario), dtype), make)

    def _once_perturbed(self, scenario: Scenario, dtype: str) -> tuple[float, Tensor]:
        def make() -> tuple[float, Tensor]:
            # A tensor's thousands of elements make the rms of one run steady: it varies by a few parts in a hundred.
            truth, own, moved = self._runs(scenario, dtype)
            return self._noise(scenario, dtype, truth, own, [moved])

        return self._shared.memoize(("working noise", self._shared.run_key(scenario), dtype), make)

    def _often_perturbed(self, scenario: Scenario, dtype: str) -> tuple[float, Tensor]:
        def make() -> tuple[float, Tensor]:
            truth, own, _ = self._runs(scenario, dtype)
            moved = [self._perturbed(scenario, dtype, seed).logits for seed in SEEDS]
            return self._noise(scenario, dtype, truth, own, moved)

        return self._shared.memoize(("resampled noise", self._shared.run_key(scenario), dtype), make)

    def _noise(
        self, scenario: Scenario, dtype: str, truth: Tensor, own: Tensor, moved: Sequence[Tensor]
    ) -> tuple[float, Tensor]:
        """The noise over all positions, and `[pos]` at each."""
        real = self._real(scenario)
        total = measured_noise(truth, own, moved, getattr(torch, dtype), real)
        each = [position_noise((own.double() - truth, one.double() - truth), real, least=total) for one in moved]
        return total, torch.stack(each).amax(0)


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each token that has a label, in float64: that of the next token, as HF's causal loss shifts them."""
    shifted = labels[:, 1:].flatten()
    losses = F.cross_entropy(logits[:, :-1].double().flatten(0, 1), shifted, reduction="none", ignore_index=NO_LABEL)
    return losses[shifted != NO_LABEL]
