"""Hugging Face's side of a case: its models, its inputs, and the models' outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Inputs, Output
from verifier.canonical import Point
from verifier.cases.inputs import INPUT_MAKERS, ScenarioInputs, copy_inputs
from verifier.cases.spec import SEMANTIC_DTYPE, CaseSpec, Scenario
from verifier.errors import Unrunnable, all_but_interrupts
from verifier.family import Family
from verifier.judging.outcome import Blocked
from verifier.observing.memo import Memo, memoized
from verifier.output.text import nearest
from verifier.reference import models
from verifier.reference.process_state import preserve_random_states
from verifier.reference.random_weights import generator, rescale
from verifier.reference.weights import canonical_of

# From this many bytes of parameters on, a case keeps only the model copies that the current check needs.
LARGE_MODEL = 2**28


class CaseReference:
    """Hugging Face's models of a case, its inputs, and their outputs.

    Invariant: the adapter never sees anything here. A model is built from the case's config and seed alone, and nobody
    writes into it. Inputs are new tensors each time, because a subject may write into them.
    """

    def __init__(self, spec: CaseSpec, family: Family, memo: Memo) -> None:
        self.spec = spec
        self.family = family
        self.unrunnable: Unrunnable | None = None  # why HF's model cannot be built here, once that is known
        self.memo = memo
        self._usual = ("reference", SEMANTIC_DTYPE, family.reference_attention)

    @property
    def points(self) -> Sequence[Point]:
        """The canonical points that the family declares, in causal order."""
        return self.family.points(self.spec.config)

    @property
    def traced_scenarios(self) -> tuple[Scenario, ...]:
        """The scenarios in which every activation and gradient is compared.

        The effect of padding depends on the mask alone, so it is compared in the pairwise cases only.
        """
        return (Scenario.PLAIN, Scenario.PADDED) if self.spec.is_pairwise else (Scenario.PLAIN,)

    # --- models ---------------------------------------------------------------------------------------------------

    def build(self, dtype: str = SEMANTIC_DTYPE, *, attention: str | None = None, **config: Any) -> Any:
        """Build a new model with the case's weights.

        Args:
            dtype: of its parameters.
            attention: HF's attention implementation; the family's right one if not given.
            config: values that replace the case's own.

        Raises:
            Unrunnable: the attention implementation does not exist, or the checkpoint cannot be loaded.
            Exception: whatever HF raises for a config that it refuses.
        """
        try:
            return self._build(dtype, attention, config)
        except Unrunnable as error:
            self.unrunnable = error
            raise

    @preserve_random_states()  # a family may let HF draw weights
    def _build(self, dtype: str, attention: str | None, config: Mapping[str, Any]) -> Any:
        spec, known = self.spec, self.family.attentions
        if attention is not None and attention not in known:
            raise Unrunnable(
                f"the case {spec.id} asks for attention {attention!r}, which is none of {', '.join(known)}"
                f"{nearest(attention, known)}"
            )
        loaded = {} if spec.checkpoint is None else {"checkpoint": spec.checkpoint}
        model = self.family.build(
            {**spec.config, **config},
            dtype=getattr(torch, dtype),
            device=spec.device,
            attention=attention or self.family.reference_attention,
            seed=spec.seed,
            **loaded,
        )
        if spec.scale != 1.0:
            rescale(model, spec.scale)
        return model

    def build_for_adapter(self, dtype: str = SEMANTIC_DTYPE, **config: Any) -> Any:
        """Build a new model for the adapter, with the case's attention implementation."""
        return self.build(dtype, attention=self.spec.attention, **config)

    def build_accepted(self, attention: str | None = None) -> Any:
        """Build a new float64 model of a config that HF must accept.

        Raises:
            Blocked: HF refuses a config that the family calls valid; `reference.acceptance` reports it.
        """
        try:
            return self.build(attention=attention)
        except Unrunnable:
            raise
        except all_but_interrupts() as error:
            if self.spec.valid:
                raise Blocked("reference.acceptance") from error
            raise

    def model(self, dtype: str = SEMANTIC_DTYPE, *, attention: str | None = None) -> Any:
        """Build the untouched model in a dtype and with an attention implementation, once for each.

        Args:
            dtype: of its parameters.
            attention: HF's attention implementation; the family's right one if not given.
        """
        key = ("reference", dtype, attention or self.family.reference_attention)
        build = self.build_accepted if key == self._usual else lambda: self.build(dtype, attention=attention)
        return self.memo.memoize(key, build, is_model=True)

    def rounded_model(self, dtype: str) -> Any:
        """Give the float64 model the rounded weights of a model in `dtype`; they stay until the next call."""
        if dtype == SEMANTIC_DTYPE:
            return self.model()

        # One model serves every dtype in turn: each call writes the rounded weights into it.
        model = self.memo.memoize(("rounded",), self.build, is_model=True)
        with torch.no_grad():
            for rounded, working in zip(model.parameters(), self.model(dtype).parameters(), strict=True):
                rounded.copy_(working)
        return model

    @cached_property
    def is_large(self) -> bool:
        """Whether the model takes so much memory that its copies are freed between two checks."""
        return bool(sum(one.nbytes for one in self.model().parameters()) > LARGE_MODEL)

    def trim(self) -> bool:
        """Free every copy of a large model but the float64 one, and return whether the model is large.

        Copies of a tiny model stay, because they cost less than building them again.
        """
        if not self.memo.holds(self._usual) or not self.is_large:
            return False
        self.memo.forget_models(but=self._usual)
        return True

    # --- inputs and outputs ---------------------------------------------------------------------------------------

    @memoized
    def scenario(self, name: Scenario = Scenario.PLAIN) -> ScenarioInputs:
        """Make the inputs of a scenario, and say which outputs are defined; nobody may write into the result."""
        model = self.model()
        vocab = model.get_input_embeddings().weight.shape[0]
        # HF adds the ids of special tokens to the config.
        filled_in = replace(self.spec, config={**model.config.to_dict(), **self.spec.config})
        return INPUT_MAKERS[name](filled_in, vocab)

    def inputs(self, scenario: Scenario = Scenario.PLAIN) -> Inputs:
        """Copy the inputs of a scenario."""
        return copy_inputs(self.scenario(scenario).inputs)

    def any_tokens(self) -> Inputs:
        """Inputs for any model, also one that HF refuses: token 0, which every vocabulary has, `[batch, pos]`."""
        ids = torch.zeros(self.spec.batch, self.spec.length, dtype=torch.long, device=self.spec.device)
        return Inputs(input_ids=ids)

    @memoized
    def output(
        self, scenario: Scenario = Scenario.PLAIN, dtype: str = SEMANTIC_DTYPE, *, attention: str | None = None
    ) -> Output:
        """Run HF's model on a scenario, in a dtype and with an attention implementation, without gradients.

        Args:
            scenario: of the run.
            dtype: of the model and the embeddings.
            attention: HF's attention implementation; the family's right one if not given.

        Returns:
            The output, with logits `[batch, pos, d_vocab]`.

        Raises:
            Blocked: the model does not run on plain tokens in float64; `reference.acceptance` reports it.
        """
        model, inputs = self.model(dtype, attention=attention), self.inputs(scenario)
        try:
            with torch.no_grad():
                return models.forward(model, inputs)
        except all_but_interrupts() as error:
            if (scenario, dtype, attention) == (Scenario.PLAIN, SEMANTIC_DTYPE, None):
                raise Blocked("reference.acceptance") from error
            raise

    @memoized
    def defined(self, axes: tuple[str, ...], scenario: Scenario = Scenario.PLAIN) -> Tensor:
        """Find which elements of a tensor with these axes are defined: booleans `[batch, …]` that broadcast to it.

        An element is defined at a real token; in attention, where a real query may see a real key.

        Args:
            axes: the names of the tensor's axes, the batch first.
            scenario: of the run that the tensor comes from.
        """
        real = self.scenario(scenario).real
        if "query" not in axes:
            return real.reshape(*real.shape, *[1] * (len(axes) - 2))
        length = real.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
        return (real[:, None, :, None] & real[:, None, None, :]) & causal

    # --- gradients ------------------------------------------------------------------------------------------------

    @memoized
    def cotangent(self, scenario: Scenario = Scenario.PLAIN) -> Tensor:
        """Draw the float64 factor `[batch, pos, d_vocab]` of the logits in the sum that is differentiated.

        It is 0 on padding, where no loss would be: outputs there are undefined, and torch's fused attention has wrong
        gradients for queries that see no key. The numbers are the same in every dtype.
        """
        shape, real = self.output(scenario).logits.shape, self.scenario(scenario).real
        source = generator("cotangent", self.spec.seed, scenario.value)
        draw = torch.randn(shape, generator=source, dtype=torch.float64)
        return draw.to(torch.float16).to(torch.bfloat16).double().to(real.device) * real[..., None]

    def gradients(
        self, model: Any, logits: Tensor, at: Mapping[str, Tensor], scenario: Scenario = Scenario.PLAIN
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Differentiate a model's logits along the scenario's cotangent.

        Args:
            model: the model; gradients of its parameters are computed.
            logits: `[batch, pos, d_vocab]`, in the graph.
            at: the values at some points, by name, in the graph.
            scenario: of the forward.

        Returns:
            The gradients at these points, by name, and those of the parameters, by canonical weight. A value of whole
            numbers has no gradient and is left out.
        """
        at = {name: value for name, value in at.items() if value.is_floating_point()}
        parameters = list(model.parameters())
        found = models.differentiate(logits, self.cotangent(scenario), [*at.values(), *parameters])
        of_parameters = {id(one): grad for one, grad in zip(parameters, found[len(at) :], strict=True)}
        weights = canonical_of(self.family, model, lambda parameter: of_parameters[id(parameter)])
        return dict(zip(at, found, strict=False)), weights
