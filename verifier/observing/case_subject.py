"""The adapter's side of a case: the subjects that it made of Hugging Face's models, and what they give."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Edit, Inputs, Output, Subject
from verifier.cases.spec import SEMANTIC_DTYPE, Scenario
from verifier.judging.outcome import Blocked, NotApplicable, Verdict
from verifier.observing.capabilities import require
from verifier.observing.case_noise import CaseNoise
from verifier.observing.case_reference import CaseReference
from verifier.observing.memo import Memo
from verifier.reference.snapshots import Wrapping, changed_since_first

# Which check reports that no row's logits are HF's; of padding in any place that of the first place.
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


class CaseSubject:
    """The subjects of a case, and their outputs.

    Invariant: a model that the adapter is given was never run before, and shares nothing with the reference. A subject
    is asked once for each output, which is kept in memory of its own. Every subject is closed with the case.
    """

    def __init__(self, adapter: Adapter, reference: CaseReference, noise: CaseNoise, memo: Memo) -> None:
        self.adapter = adapter
        self._reference = reference
        self._noise = noise
        self._memo = memo
        self._subjects: list[Subject] = []

    # --- wrapping -------------------------------------------------------------------------------------------------

    @cached_property
    def given(self) -> Any:
        """The float64 model that the adapter is given: untouched until `wrapping`."""
        return self._reference.build_accepted(self._reference.spec.attention)

    @cached_property
    def wrapping(self) -> Wrapping:
        """What happened when the adapter was given the case's model in float64."""
        found = Wrapping(self.adapter, self.given)
        if found.subject is not None:
            self._subjects.append(found.subject)
        return found

    @property
    def is_wrapped(self) -> bool:
        """Whether the adapter has had the case's model."""
        return "wrapping" in self.__dict__

    @cached_property
    def contamination(self) -> list[str]:
        """What of HF's own code is not as it was before any adapter, once this model is wrapped.

        The reference is made of that code too, so nothing that is compared proves anything.
        """
        _ = self.wrapping
        return changed_since_first(self._reference.family)

    def wrapped(self, dtype: str = SEMANTIC_DTYPE) -> Subject:
        """The subject, wrapped around a model in that dtype once.

        Raises:
            Blocked: it could not be built, which `build.adapter` reports, or HF's own code was changed, which
                `build.surroundings` does.
        """
        if dtype != SEMANTIC_DTYPE:
            return self._memo.memoize(
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
            Blocked: the case's model itself could not be wrapped, which `build.adapter` reports.
        """
        if self._reference.spec.valid:
            self.wrapped()
        return self.keep(self.adapter.wrap(model))

    def keep(self, subject: Subject) -> Subject:
        """Close the subject with the case."""
        self._subjects.append(subject)
        return subject

    def close_further(self) -> None:
        """Close every subject but that of the case's own model."""
        first = self.wrapping.subject if self.is_wrapped else None
        for subject in [one for one in self._subjects if first is None or one is not first]:
            self._subjects.remove(subject)
            _close(subject)

    def close(self) -> None:
        """Close every subject."""
        for subject in self._subjects:
            _close(subject)
        self._subjects.clear()

    def raised(self, error: BaseException) -> bool:
        """Whether an exception came out of a method of the adapter or of one of its subjects."""
        theirs = {id(self.adapter), *map(id, self._subjects)}
        trace = error.__traceback__
        while trace is not None:
            if id(trace.tb_frame.f_locals.get("self")) in theirs:
                return True
            trace = trace.tb_next
        return False

    # --- outputs --------------------------------------------------------------------------------------------------

    def output(self, scenario: Scenario = Scenario.PLAIN, dtype: str = SEMANTIC_DTYPE) -> Output:
        """What the subject gives for a scenario, without gradients.

        Raises:
            Blocked: it cannot even run on plain tokens, which `build.forward` reports.
        """
        self.require_forward()
        return self._run(scenario, dtype)

    def first_output(self) -> Output:
        """What the subject gives on plain tokens, or what it raises."""
        return self._run(Scenario.PLAIN, SEMANTIC_DTYPE)

    def _run(self, scenario: Scenario, dtype: str) -> Output:
        def make() -> Output:
            subject = self.wrapped(dtype)  # wrapped outside `no_grad`, as its users do
            with torch.no_grad():
                output = subject.forward(self._reference.inputs(scenario, dtype))
            # The subject may give the same memory again, with other values.
            return replace(output, logits=_copied(output.logits), loss=_copied(output.loss))

        return self._memo.memoize(("subject's output", scenario, dtype), make)

    def require_forward(self) -> None:
        """Make sure that the subject runs on plain tokens.

        Raises:
            Blocked: it does not, which `build.forward` reports.
        """
        try:
            self.first_output()
        except Blocked:
            raise
        except Exception as error:
            raise Blocked("build.forward") from error

    def capture(
        self,
        names: Sequence[str],
        scenario: Scenario = Scenario.PLAIN,
        *,
        edits: Mapping[str, Edit] | None = None,
        inputs: Inputs | None = None,
    ) -> Mapping[str, Tensor]:
        """Run the subject, and read what its hooks show at these points (those of them that fire), and its `logits`."""
        self.require_forward()
        seen: dict[str, Tensor] = {}
        hooks = require(self.wrapped().hooks)

        def reading(name: str) -> Edit:
            def read(value: Tensor) -> Tensor | None:
                seen.setdefault(name, value.detach().clone())
                return edits[name](value) if edits and name in edits else None

            return read

        wanted = {name: reading(name) for name in (*names, *(edits or {}))}
        with torch.no_grad(), hooks.switched(frozenset(wanted)), hooks.hooked(wanted, {}):
            output = self.wrapped().forward(inputs or self._reference.inputs(scenario))
        return {**seen, "logits": output.logits}

    # --- agreement ------------------------------------------------------------------------------------------------

    def agreeing_rows(self, scenario: Scenario = Scenario.PLAIN) -> Tensor:
        """`[batch]`: the rows in which the subject's float64 logits are HF's.

        What is judged further is judged there only: a difference is reported once.

        Raises:
            Blocked: there is no such row.
        """

        def make() -> Tensor:
            real, judge = self._reference.scenario(scenario).real, self._noise.judge(scenario)
            truth, logits = self._reference.output(scenario).logits, self.output(scenario).logits
            agreeing = torch.zeros(len(real), dtype=torch.bool, device=real.device)
            for row in range(len(real)):
                here = torch.zeros_like(real)
                here[row] = real[row]
                judged = judge.compare(scenario, logits, truth, defined=here[..., None])
                agreeing[row] = judged.verdict is not Verdict.FAIL
            return agreeing

        rows = self._memo.memoize(("agreeing rows", scenario), make)
        if not rows.any():
            raise Blocked(_REPORTED_BY[scenario])
        return rows

    def agrees(self, scenario: Scenario) -> bool:
        """Whether the subject's float64 logits are HF's in every row; where they are not another check reports it."""
        try:
            return bool(self.agreeing_rows(scenario).all())
        except Exception:  # it cannot be called so, or no row is
            return False

    def agreeing_dtypes(self) -> list[str]:
        """The working dtypes in which the subject's logits on plain tokens are as near to the truth as HF's.

        What is judged further is judged in these only: a coarse subject is reported once.

        Raises:
            NotApplicable: no working dtype was asked for.
            Blocked: there is none; `forward.…` reports it.
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
            raise Blocked(f"forward.{dtypes[0]}")
        return found


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _close(subject: Subject) -> None:
    with contextlib.suppress(Exception):  # `build.close` reports what closing raises
        subject.close()
