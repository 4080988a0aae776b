"""A live case: the reference, the subject and what both computed, each built once and only when asked for."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verifier.adapter import Adapter, Edit, Inputs, Output, Subject
from verifier.canonical import LOGIT_AXES, Point
from verifier.cases.inputs import INPUT_MAKERS, NO_LABEL, ScenarioInputs, copied
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, CaseSpec, Scenario
from verifier.errors import Unrunnable
from verifier.family import Family
from verifier.judging.comparison import Comparison
from verifier.judging.numerics import (
    Judge,
    Noise,
    float64_judge,
    noise_from_float32,
    position_noise,
    precision_judge,
    rms,
    unit,
)
from verifier.judging.outcome import NotApplicable, Verdict
from verifier.observing import activations as traces
from verifier.observing import reuse, working_gradients
from verifier.observing.capabilities import require
from verifier.output.text import nearest
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, SEEDS, Perturbation
from verifier.reference.random_weights import rescale
from verifier.reference.snapshots import changed_since_first
from verifier.reference.wrapping import Wrapping

# Bytes of parameters from which on a case keeps no more copies than the check at hand needs.
LARGE_MODEL = 2**28
_MODELS = ("reference", "truth", "subject")

# Which check says that no row's logits are HF's; of padding in any place that of the first place.
_REPORTED_BY = {
    Scenario.PLAIN: "forward.logits",
    Scenario.ONE_TOKEN: "forward.lengths",
    Scenario.LONG: "forward.lengths",
    Scenario.PADDED: "forward.left_padding",
    Scenario.POSITION_IDS: "forward.position_ids",
    Scenario.PADDED_POSITION_IDS: "forward.padded_position_ids",
    Scenario.INPUTS_EMBEDS: "forward.inputs_embeds",
    Scenario.LABELS: "forward.loss",
    Scenario.PADDED_LABELS: "forward.loss",
}

T = TypeVar("T")


class Blocked(Exception):
    """What a check rests on already failed, and is reported there: its message names the check."""


class Case:
    """One case under one adapter. What checks share is remembered here; a check keeps nothing."""

    def __init__(self, spec: CaseSpec, family: Family, adapter: Adapter) -> None:
        self.spec = spec
        self.family = family
        self.adapter = adapter
        self._kept: dict[Hashable, Any] = {}
        self._subjects: list[Subject] = []
        self.unrunnable: Unrunnable | None = None  # why HF's model cannot be had here, once that is known

    def memoize(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, or the exception that it raised, made at most once."""
        if key not in self._kept:
            try:
                self._kept[key] = (make(), None)
            except Exception as error:
                self._kept[key] = (None, error)
        value: T
        value, raised = self._kept[key]
        if raised is not None:
            raise raised
        return value

    def shared_reference(self, key: Hashable, make: Callable[[], T]) -> T:
        """The same, of what hangs on HF's model and on the inputs alone: it may have been made for another case, whose
        model is one and the same to HF (`alike`). It is not to be written into."""

        def find() -> T:
            shelf = self._shelf
            if key not in shelf:
                shelf[key] = make()
            value: T = shelf[key]
            return value

        return self.memoize(key, find)

    def run_key(self, scenario: Scenario) -> tuple[Scenario, bytes]:
        """The scenario, and what tells this case's run of it: on other inputs than `alike` has looked at two models
        may differ, as where positions are scaled beyond a length."""
        if scenario in reuse.SEEN_ON:
            return scenario, b""

        def make() -> bytes:
            return hashlib.blake2b(self.expected(scenario).logits.cpu().numpy().tobytes()).digest()

        return scenario, self.memoize(("run", scenario), make)

    @cached_property
    def _shelf(self) -> dict[Hashable, Any]:
        return {} if self._is_large else reuse.cache_for(self)

    @cached_property
    def _is_large(self) -> bool:
        return _is_large(self.reference())

    def went_through_subject(self, error: BaseException) -> bool:
        """Whether the exception came out of a method of the adapter or of one of its subjects."""
        theirs = {id(self.adapter), *map(id, self._subjects)}
        trace = error.__traceback__
        while trace is not None:
            if id(trace.tb_frame.f_locals.get("self")) in theirs:
                return True
            trace = trace.tb_next
        return False

    def trim(self) -> None:
        """Between two checks, let go of a large model's copies: all but the reference and what was computed.

        Tiny ones are kept, because building them again costs more than they do.
        """
        kept = ("reference", SEMANTIC_DTYPE, self.family.reference_attention)
        model, _ = self._kept.get(kept, (None, None))
        if model is None or not self._is_large:
            return
        for key in [key for key in self._kept if isinstance(key, tuple) and key[0] in _MODELS and key != kept]:
            del self._kept[key]
        wrapped = self.__dict__.get("wrapping")
        for subject in [one for one in self._subjects if wrapped is None or one is not wrapped.subject]:
            self._subjects.remove(subject)
            _close(subject)

    def close(self) -> None:
        """Let go of every model."""
        for subject in self._subjects:
            _close(subject)
        self._subjects.clear()
        self._kept.clear()

    # --- the reference -------------------------------------------------------------------------------------------

    def build(self, dtype: str = SEMANTIC_DTYPE, *, attention: str | None = None, **config: Any) -> Any:
        """A new model of HF's, with the case's weights; further config values on top of the case's.

        Raises:
            Unrunnable: there is no such attention implementation, or the case's checkpoint cannot be loaded.
            Exception: whatever HF raises for a config that it refuses.
        """
        try:
            return self._built(dtype, attention, config)
        except Unrunnable as error:
            self.unrunnable = error
            raise

    def _built(self, dtype: str, attention: str | None, config: Mapping[str, Any]) -> Any:
        if attention is not None and attention not in self.family.attentions:
            known = self.family.attentions
            raise Unrunnable(
                f"the case {self.spec.id} asks for attention {attention!r}, which is none of {', '.join(known)}"
                f"{nearest(attention, known)}"
            )
        loaded = {} if self.spec.checkpoint is None else {"checkpoint": self.spec.checkpoint}
        model = self.family.build(
            {**self.spec.config, **config},
            dtype=getattr(torch, dtype),
            device=self.spec.device,
            attention=attention or self.family.reference_attention,
            seed=self.spec.seed,
            **loaded,
        )
        if self.spec.scale != 1.0:
            rescale(model, self.spec.scale)
        return model

    def reference(self, dtype: str = SEMANTIC_DTYPE, *, attention: str | None = None) -> Any:
        """HF's model, untouched, in that dtype and with that attention implementation."""
        attention = attention or self.family.reference_attention
        usual = (dtype, attention) == (SEMANTIC_DTYPE, self.family.reference_attention)
        build = self._accepted if usual else lambda: self.build(dtype, attention=attention)
        return self.memoize(("reference", dtype, attention), build)

    def for_adapter(self, dtype: str = SEMANTIC_DTYPE, **config: Any) -> Any:
        """A new model of HF's as the adapter is to be given one: with the case's attention implementation."""
        return self.build(dtype, attention=self.spec.attention, **config)

    def _accepted(self, attention: str | None = None) -> Any:
        """A new model of HF's in float64.

        Raises:
            Blocked: HF refuses a config that the family says it accepts, which `reference.acceptance` reports.
        """
        try:
            return self.build(attention=attention)
        except Unrunnable:
            raise
        except Exception as error:
            if self.spec.valid:
                raise Blocked("reference.acceptance") from error
            raise

    def truth(self, dtype: str) -> Any:
        """HF's model in float64 with the weights that a model in `dtype` has; until it is asked for another dtype."""
        if dtype == SEMANTIC_DTYPE:
            return self.reference()

        # One model serves every dtype in turn, with the reference's weights rounded anew.
        model = self.memoize(("truth",), self.build)
        with torch.no_grad():
            for rounded, working in zip(model.parameters(), self.reference(dtype).parameters(), strict=True):
                rounded.copy_(working)
        return model

    def scenario(self, name: Scenario) -> ScenarioInputs:
        """The inputs of that name."""

        def make() -> ScenarioInputs:
            model = self.reference()
            vocab, d_model = model.get_input_embeddings().weight.shape
            return INPUT_MAKERS[name](self._filled_in, vocab, d_model)

        return self.memoize(("scenario", name), make)

    @cached_property
    def _filled_in(self) -> CaseSpec:
        """The case with all that HF adds to its config: the tokens that have a role are there."""
        return replace(self.spec, config={**self.reference().config.to_dict(), **self.spec.config})

    def inputs(self, scenario: Scenario, dtype: str = SEMANTIC_DTYPE) -> Inputs:
        """The inputs for a model in that dtype: fresh tensors each time, because a subject may write into its own."""
        return copied(self.scenario(scenario).in_dtype(getattr(torch, dtype)))

    def any_tokens(self) -> Inputs:
        """Inputs for a model that may not have been built before: the token that every vocabulary has."""
        ids = torch.zeros(self.spec.batch, self.spec.length, dtype=torch.long, device=self.spec.device)
        return Inputs(input_ids=ids)

    def expected(self, scenario: Scenario, dtype: str = SEMANTIC_DTYPE, *, attention: str | None = None) -> Output:
        """What HF's model in that dtype gives."""

        def make() -> Output:
            model, inputs = self.reference(dtype, attention=attention), self.inputs(scenario, dtype)
            try:
                with torch.no_grad():
                    return models.forward(model, inputs)
            except Exception as error:
                if (scenario, dtype, attention) == (Scenario.PLAIN, SEMANTIC_DTYPE, None):
                    raise Blocked("reference.acceptance") from error
                raise

        return self.memoize(("expected", scenario, dtype, attention), make)

    def true(self, scenario: Scenario, dtype: str) -> Output:
        """What float64 makes of the weights of a model in that dtype."""
        if dtype == SEMANTIC_DTYPE:
            return self.expected(scenario)

        def make() -> Output:
            if scenario == working_gradients.SCENARIO:
                # Gradients are taken of that run too, and one that is perturbed costs several others.
                return Output(logits=working_gradients.measure_gradients(self, dtype).logits[0])
            with torch.no_grad():
                return models.forward(self.truth(dtype), self.inputs(scenario))

        return self.memoize(("true", scenario, dtype), make)

    def tapped(self, scenario: Scenario) -> Mapping[str, Tensor]:
        """HF's activations at every canonical point, in float64, and its `logits` under the taps."""
        return traces.reference_trace(self, scenario).values

    @property
    def traced(self) -> tuple[Scenario, ...]:
        """The scenarios in which every activation and gradient is looked at: what padding does to them hangs on the
        mask alone, and is looked at where the case is one of the spread ones."""
        return (Scenario.PLAIN, Scenario.PADDED) if self.spec.spread else (Scenario.PLAIN,)

    @property
    def points(self) -> Sequence[Point]:
        """The canonical points that the family declares."""
        return self.family.points(self.spec.config)

    # --- noise ---------------------------------------------------------------------------------------------------

    def noise(self, scenario: Scenario, dtype: str = SEMANTIC_DTYPE) -> float:
        """The noise of HF's logits in that dtype."""

        def make() -> float:
            truth, real = self.true(scenario, dtype).logits, self.scenario(scenario).real[..., None]
            if dtype == SEMANTIC_DTYPE:
                return noise_from_float32(truth, self.expected(scenario, SINGLE).logits, real)
            own, moved = self._errors(scenario, dtype)
            # A tensor's thousands of elements make the rms of one run steady: it varies by a few parts in a hundred.
            return Noise(
                own=rms(own, real), perturbed=rms(moved, real), unit=unit(truth, getattr(torch, dtype), real)
            ).total

        return self.shared_reference(("noise", self.run_key(scenario), dtype), make)

    def steadiness(self, scenario: Scenario) -> float:
        """What HF's float64 logits themselves move by when every result is moved by a unit."""
        truth, real = self.expected(scenario).logits, self.scenario(scenario).real[..., None]
        return rms(self._perturbed(scenario, SEMANTIC_DTYPE).logits - truth, real)

    def noise_by_position(self, scenario: Scenario, dtype: str) -> Tensor:
        """`[pos]`: the noise in a working dtype at each position, but nowhere less than it is over all."""

        def make() -> Tensor:
            real, least = self.scenario(scenario).real[..., None], self.noise(scenario, dtype)
            return position_noise(self._errors(scenario, dtype), real, least=least)

        return self.shared_reference(("noise by position", self.run_key(scenario), dtype), make)

    def noise_again(self, scenario: Scenario, dtype: str) -> float:
        """The noise of HF's logits in a working dtype, the farthest of several perturbations."""
        return self._noise_again(scenario, dtype)[0]

    def noise_by_position_again(self, scenario: Scenario, dtype: str) -> Tensor:
        """`[pos]`: the same at each position."""
        return self._noise_again(scenario, dtype)[1]

    def _noise_again(self, scenario: Scenario, dtype: str) -> tuple[float, Tensor]:
        def make() -> tuple[float, Tensor]:
            truth, real = self.true(scenario, dtype).logits, self.scenario(scenario).real[..., None]
            own, _ = self._errors(scenario, dtype)
            moved = [self._perturbed(scenario, dtype, seed).logits.double() - truth for seed in SEEDS]
            farthest = Noise(
                own=rms(own, real),
                perturbed=max(rms(one, real) for one in moved),
                unit=unit(truth, getattr(torch, dtype), real),
            ).total
            by_position = [position_noise((own, one), real, least=farthest) for one in moved]
            return farthest, torch.stack(by_position).amax(0)

        return self.shared_reference(("noise again", self.run_key(scenario), dtype), make)

    def _errors(self, scenario: Scenario, dtype: str) -> tuple[Tensor, Tensor]:
        """What HF's logits are off by in a working dtype, `[batch, pos, d_vocab]`: as they are, and perturbed."""

        def make() -> tuple[Tensor, Tensor]:
            if scenario == working_gradients.SCENARIO:
                truth, own, moved = working_gradients.measure_gradients(self, dtype).logits
            else:
                truth, own = self.true(scenario, dtype).logits, self.expected(scenario, dtype).logits
                moved = self._perturbed(scenario, dtype).logits
            return own.double() - truth, moved.double() - truth

        return self.shared_reference(("errors", self.run_key(scenario), dtype), make)

    def _perturbed(self, scenario: Scenario, dtype: str, seed: int = PERTURBATION_SEED) -> Output:
        model, inputs = self.reference(dtype), self.inputs(scenario, dtype)
        with torch.no_grad(), Perturbation(getattr(torch, dtype), seed):
            return models.forward(model, inputs)

    def point_noise(self, scenario: Scenario) -> Mapping[str, float]:
        """The noise at every canonical point in float64."""
        return traces.noise(self, scenario).values

    def loss_noise(self, dtype: str = SEMANTIC_DTYPE, scenario: Scenario = Scenario.LABELS) -> float:
        """The noise of HF's loss: of a mean over tokens, so at most the rms of what each token's loss moves by."""

        def make() -> float:
            truth, own = self.true(scenario, dtype), self.expected(scenario, dtype)
            wanted = self.inputs(scenario).labels
            assert truth.loss is not None
            assert own.loss is not None
            assert wanted is not None
            each = _token_losses(truth.logits, wanted)
            if dtype == SEMANTIC_DTYPE:
                single = _token_losses(self.expected(scenario, SINGLE).logits, wanted)
                return math.hypot(noise_from_float32(each, single), unit(truth.loss, torch.float64))
            return Noise(
                own=rms(own.loss.double() - truth.loss),
                perturbed=rms(_token_losses(self._perturbed(scenario, dtype).logits, wanted) - each),
                unit=unit(truth.loss, getattr(torch, dtype)),
            ).total

        return self.shared_reference(("loss noise", self.run_key(scenario), dtype), make)

    def judge(self, scenario: Scenario) -> Judge:
        """Judges logits of a float64 run."""
        return float64_judge(self.noise(scenario), lambda: self.noise(scenario, SINGLE))

    def precision_judge(self, scenario: Scenario, dtype: str) -> Judge:
        """Judges logits of a run in a working dtype."""
        return precision_judge(self.noise(scenario, dtype), lambda: self.noise_again(scenario, dtype))

    def compare_logits(
        self, where: str, logits: object, scenario: Scenario, *, truth: Tensor | None = None
    ) -> Comparison:
        """Judge logits `[batch, pos, d_vocab]` of a float64 run on the scenario's real tokens."""
        chosen = self.scenario(scenario)
        return self.judge(scenario).compare(
            where,
            logits,
            self.expected(scenario).logits if truth is None else truth,
            defined=chosen.real[..., None],
            rows=chosen.rows,
            axes=LOGIT_AXES,
        )

    def agreeing_rows(self, scenario: Scenario) -> Tensor:
        """`[batch]`: where the subject's float64 logits are HF's. What is judged further is judged there only: a
        difference is told once.

        Raises:
            Blocked: nowhere.
        """

        def make() -> Tensor:
            real, judge = self.scenario(scenario).real, self.judge(scenario)
            truth, logits = self.expected(scenario).logits, self.actual(scenario).logits
            agreeing = torch.zeros(len(real), dtype=torch.bool, device=real.device)
            for row in range(len(real)):
                here = torch.zeros_like(real)
                here[row] = real[row]
                judged = judge.compare(scenario, logits, truth, defined=here[..., None])
                agreeing[row] = judged.verdict is not Verdict.FAIL
            return agreeing

        rows: Tensor = self.memoize(("agreeing rows", scenario), make)
        if not rows.any():
            raise Blocked(_REPORTED_BY[scenario])
        return rows

    def agrees(self, scenario: Scenario) -> bool:
        """Whether every row of the subject's float64 logits is HF's there; where one is not another check tells it."""
        try:
            return bool(self.agreeing_rows(scenario).all())
        except Exception:  # it cannot be called so, or no row is
            return False

    def dtypes_that_agree(self) -> list[str]:
        """The working dtypes that were asked for in which the subject's logits on plain tokens are as near to the truth
        as HF's: a subject that is coarse is told of once.

        Raises:
            NotApplicable: none was asked for.
            Blocked: there is none; `forward.…` reports it.
        """
        if not self.spec.dtypes:
            raise NotApplicable("no working dtype was asked for")

        def agrees(dtype: str) -> bool:
            logits, truth = self.actual(Scenario.PLAIN, dtype).logits, self.true(Scenario.PLAIN, dtype).logits
            return self.precision_judge(Scenario.PLAIN, dtype).compare(dtype, logits, truth).verdict is not Verdict.FAIL

        found = [dtype for dtype in self.spec.dtypes if agrees(dtype)]
        if not found:
            raise Blocked(f"forward.{self.spec.dtypes[0]}")
        return found

    def defined(self, axes: Sequence[str], scenario: Scenario) -> Tensor:
        """What is defined of a tensor with these axes, `[batch, …]` broadcasting to it: real tokens; of attention,
        real queries' view of what they may see."""
        of_attention = "query" in axes

        def make() -> Tensor:
            real = self.scenario(scenario).real
            if not of_attention:
                return real.reshape(*real.shape, *[1] * (len(axes) - 2))
            length = real.shape[1]
            causal = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
            return (real[:, None, :, None] & real[:, None, None, :]) & causal

        return self.memoize(("defined", scenario, of_attention or len(axes)), make)

    # --- the subject ---------------------------------------------------------------------------------------------

    @cached_property
    def given(self) -> Any:
        """The model that the adapter is given: untouched until `wrapping`."""
        return self._accepted(self.spec.attention)

    @cached_property
    def contamination(self) -> list[str]:
        """What of HF's own code is not as it was before any adapter, once this model is wrapped: the reference is
        made of it too, so nothing that is compared proves anything."""
        _ = self.wrapping
        return changed_since_first(self.family)

    @property
    def is_wrapped(self) -> bool:
        """Whether the adapter has had it."""
        return "wrapping" in self.__dict__

    @cached_property
    def wrapping(self) -> Wrapping:
        """What happened when the adapter was given the case's model in float64."""
        found = Wrapping(self.adapter, self.given)
        if found.subject is not None:
            self._subjects.append(found.subject)
        return found

    def subject(self, dtype: str = SEMANTIC_DTYPE) -> Subject:
        """The wrapped model.

        Raises:
            Blocked: it could not be built, which `build.adapter` reports, or HF's own code was changed, which
                `build.surroundings` does.
        """
        if dtype == SEMANTIC_DTYPE:
            if not self.wrapping.is_subject:
                raise Blocked("build.adapter")
            assert self.wrapping.subject is not None
            if self.contamination:
                raise Blocked("build.surroundings")
            return self.wrapping.subject
        return self.memoize(("subject", dtype), lambda: self.wrap(self.for_adapter(dtype)))

    def wrap(self, model: nn.Module) -> Subject:
        """A further subject, closed with the case.

        Raises:
            Blocked: the case's model itself could not be wrapped, which `build.adapter` reports.
        """
        if self.spec.valid:
            self.subject()
        return self.keep(self.adapter.wrap(model))

    def keep(self, subject: Subject) -> Subject:
        """The same subject, closed with the case."""
        self._subjects.append(subject)
        return subject

    def actual(self, scenario: Scenario, dtype: str = SEMANTIC_DTYPE) -> Output:
        """What the subject gives.

        Raises:
            Blocked: it cannot even run on plain tokens, which `build.forward` reports.
        """
        self.require_forward()
        return self._run_subject(scenario, dtype)

    def first_forward(self) -> Output:
        """What the subject gives on plain tokens, or what it raises."""
        return self._run_subject(Scenario.PLAIN, SEMANTIC_DTYPE)

    def _run_subject(self, scenario: Scenario, dtype: str) -> Output:
        def make() -> Output:
            subject = self.subject(dtype)  # wrapped outside `no_grad`, as its users do
            with torch.no_grad():
                return _kept(subject.forward(self.inputs(scenario, dtype)))

        return self.memoize(("actual", scenario, dtype), make)

    def require_forward(self) -> None:
        """Make sure that the subject runs on plain tokens.

        Raises:
            Blocked: it does not.
        """
        try:
            self.first_forward()
        except Blocked:
            raise
        except Exception as error:
            raise Blocked("build.forward") from error

    def activations(
        self,
        names: Sequence[str],
        scenario: Scenario,
        *,
        edits: Mapping[str, Edit] | None = None,
        inputs: Inputs | None = None,
    ) -> Mapping[str, Tensor]:
        """What the subject's hooks show at these points (those of them that fire), and its `logits`."""
        self.require_forward()
        seen: dict[str, Tensor] = {}
        hooks: Any = require(self.subject().hooks)

        def reading(name: str) -> Edit:
            def read(value: Tensor) -> Tensor | None:
                seen.setdefault(name, value.detach().clone())
                return edits[name](value) if edits and name in edits else None

            return read

        wanted = {name: reading(name) for name in (*names, *(edits or {}))}
        with torch.no_grad(), hooks.switched(frozenset(wanted)), hooks.hooked(wanted, {}):
            output = self.subject().forward(inputs or self.inputs(scenario))
        return {**seen, "logits": output.logits}


def _kept(output: Output) -> Output:
    """What can be remembered: the subject may give the same memory again, with other values."""

    def own(value: Any) -> Any:
        return value.detach().clone() if isinstance(value, Tensor) else value

    return replace(output, logits=own(output.logits), loss=own(output.loss))


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each token that has a label, in float64: that of the next token, as HF's causal loss shifts them."""
    shifted = labels[:, 1:].flatten()
    losses = F.cross_entropy(logits[:, :-1].double().flatten(0, 1), shifted, reduction="none", ignore_index=NO_LABEL)
    return losses[shifted != NO_LABEL]


def _is_large(model: nn.Module) -> bool:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) > LARGE_MODEL


def _close(subject: Subject) -> None:
    with contextlib.suppress(Exception):  # `build.close` reports what closing raises
        subject.close()
