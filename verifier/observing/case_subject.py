"""The adapter's side of a case: the subjects that it makes of Hugging Face's models, and their outputs."""

from __future__ import annotations

import traceback
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Output, Subject
from verifier.cases.spec import SEMANTIC_DTYPE, Scenario
from verifier.errors import all_but_interrupts, traceback_of
from verifier.judging.outcome import Blocked, NotApplicable, Verdict
from verifier.observing.case_noise import CaseNoise
from verifier.observing.case_reference import CaseReference
from verifier.observing.closing import close_quietly
from verifier.observing.memo import memoized
from verifier.reference.snapshots import Wrapping, changed_since_first


class CaseSubject:
    """The subjects of a case, and their outputs.

    Invariant: the adapter gets a model that never ran before and shares nothing with the reference. Each output is
    computed once and copied. Every subject is closed with the case.
    """

    def __init__(self, adapter: Adapter, reference: CaseReference, noise: CaseNoise) -> None:
        self.adapter = adapter
        self._reference = reference
        self._noise = noise
        self.memo = reference.memo
        self._subjects: list[Subject] = []

    # --- wrapping -------------------------------------------------------------------------------------------------

    @cached_property
    def given(self) -> Any:
        """The float64 model for the adapter, untouched until `wrapping`."""
        return self._reference.build_accepted(self._reference.spec.attention)

    @cached_property
    def wrapping(self) -> Wrapping:
        """What happened when the adapter wrapped the case's float64 model."""
        result = Wrapping(self.adapter, self.given)
        if result.subject is not None:
            self._subjects.append(result.subject)
        return result

    @property
    def is_wrapped(self) -> bool:
        """Whether the adapter has wrapped the case's model."""
        return "wrapping" in self.__dict__

    @cached_property
    def contamination(self) -> list[str]:
        """The names of what adapters changed in HF's own code, once this model is wrapped; empty where nothing changed.

        The reference runs the same code, so after such a change no comparison proves anything.
        """
        _ = self.wrapping
        return changed_since_first(self._reference.family)

    def wrapped(self, dtype: str = SEMANTIC_DTYPE) -> Subject:
        """Wrap a model in a dtype, once for each dtype.

        Raises:
            Blocked: wrapping failed, which `build.adapter` reports, or changed HF's own code, which
                `build.surroundings` reports.
        """
        if dtype != SEMANTIC_DTYPE:
            return self.memo.memoize(
                ("subject", dtype), lambda: self.wrap(self._reference.build_for_adapter(dtype)), is_model=True
            )
        if not self.wrapping.is_subject:
            raise Blocked("build.adapter")
        assert self.wrapping.subject is not None
        if self.contamination:
            raise Blocked("build.surroundings")
        return self.wrapping.subject

    def wrap(self, model: nn.Module) -> Subject:
        """Wrap a further model; the subject is closed with the case.

        Raises:
            Blocked: the adapter cannot wrap the case's own model; `build.adapter` reports it.
        """
        if self._reference.spec.valid:
            self.wrapped()
        return self.keep(self.adapter.wrap(model))

    def keep(self, subject: Subject) -> Subject:
        """Remember a subject, so that it is closed with the case."""
        self._subjects.append(subject)
        return subject

    def close_further(self) -> None:
        """Close every subject but the one around the case's own model."""
        first = self.wrapping.subject if self.is_wrapped else None
        for subject in [one for one in self._subjects if first is None or one is not first]:
            self._subjects.remove(subject)
            close_quietly(subject)

    def close(self) -> None:
        """Close every subject."""
        for subject in self._subjects:
            close_quietly(subject)
        self._subjects.clear()

    def raised(self, error: BaseException) -> bool:
        """Whether an exception came out of a method of the adapter or of one of its subjects."""
        theirs = {id(self.adapter), *map(id, self._subjects)}
        return any(id(frame.f_locals.get("self")) in theirs for frame, _ in traceback.walk_tb(traceback_of(error)))

    # --- outputs --------------------------------------------------------------------------------------------------

    def output(self, scenario: Scenario = Scenario.PLAIN, dtype: str = SEMANTIC_DTYPE) -> Output:
        """Run the subject on a scenario, without gradients.

        Args:
            scenario: of the run.
            dtype: of the model that the subject wraps, and of the embeddings.

        Returns:
            The output, with logits `[batch, pos, d_vocab]`.

        Raises:
            Blocked: the subject does not run on plain tokens; `build.forward` reports it.
        """
        self.require_forward()
        return self._run(scenario, dtype)

    def first_output(self) -> Output:
        """Run the subject on plain tokens, and raise whatever it raises."""
        return self._run(Scenario.PLAIN, SEMANTIC_DTYPE)

    @memoized
    def _run(self, scenario: Scenario, dtype: str) -> Output:
        subject = self.wrapped(dtype)  # wrapped outside `no_grad`, as its users do
        with torch.no_grad():
            output = subject.forward(self._reference.inputs(scenario))
        # The subject may use the same memory for its next output.
        return replace(output, logits=_copied(output.logits), loss=_copied(output.loss))

    def require_forward(self) -> None:
        """Make sure that the subject runs on plain tokens.

        Raises:
            Blocked: it does not run; `build.forward` reports it.
        """
        try:
            self.first_output()
        except Blocked:
            raise
        except all_but_interrupts() as error:
            raise Blocked("build.forward") from error

    # --- agreement ------------------------------------------------------------------------------------------------

    @memoized
    def agreeing_rows(self, scenario: Scenario = Scenario.PLAIN) -> Tensor:
        """Find the rows in which the subject's float64 logits are HF's: booleans `[batch]`.

        Other checks compare these rows only, so that one difference is reported once.

        Raises:
            Blocked: no row agrees; its message names the check that reports it.
        """
        real, judge = self._reference.scenario(scenario).real, self._noise.judge(scenario)
        truth, logits = self._reference.output(scenario).logits, self.output(scenario).logits
        agreeing = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        for row in range(len(real)):
            in_row = torch.zeros_like(real)
            in_row[row] = real[row]
            finding = judge.compare(scenario, logits, truth, defined=in_row[..., None])
            agreeing[row] = finding.verdict is not Verdict.FAIL
        if not agreeing.any():
            raise Blocked("forward.logits" if scenario is Scenario.PLAIN else "forward.outputs")
        return agreeing

    def agrees(self, scenario: Scenario) -> bool:
        """Whether the subject's float64 logits are HF's in every row of a scenario."""
        try:
            return bool(self.agreeing_rows(scenario).all())
        except all_but_interrupts():  # the scenario cannot be run, or no row agrees: another check reports it
            return False

    def agreeing_dtypes(self) -> list[str]:
        """List the working dtypes in which the subject's logits on plain tokens are as exact as HF's.

        Other checks of precision use these dtypes only, so that an inexact subject is reported once.

        Raises:
            NotApplicable: the case has no working dtype.
            Blocked: the subject is inexact in all of them; `forward.outputs` reports it.
        """
        dtypes = self._reference.spec.dtypes
        if not dtypes:
            raise NotApplicable("no working dtype was asked for")

        def agrees(dtype: str) -> bool:
            logits, truth = self.output(dtype=dtype).logits, self._noise.truth(Scenario.PLAIN, dtype).logits
            judge = self._noise.precision_judge(Scenario.PLAIN, dtype)
            return judge.compare(dtype, logits, truth).verdict is not Verdict.FAIL

        found = [dtype for dtype in dtypes if agrees(dtype)]
        if not found:
            raise Blocked("forward.outputs")
        return found


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
