"""A live case: what a check is given."""

from __future__ import annotations

from torch import Tensor

from verifier.adapter import Adapter
from verifier.canonical import LOGIT_AXES
from verifier.cases.spec import CaseSpec, Scenario
from verifier.family import Family
from verifier.judging.outcome import Finding
from verifier.observing.case_noise import CaseNoise
from verifier.observing.case_reference import CaseReference
from verifier.observing.case_subject import CaseSubject
from verifier.observing.memo import Memo
from verifier.observing.reuse import SharedReference


class Case:
    """One case under one adapter.

    Invariant: nothing is built before it is asked for, and what checks share is kept here. A check keeps nothing.

    Attributes:
        spec: the case as plain data.
        family: the family of its reference.
        memo: what is kept of this case alone.
        reference: Hugging Face's models, the inputs, and what the models give for them.
        shared_reference: what is kept of HF's side for every case with the same model.
        noise: what rounding does to HF's results.
        subject: the adapter's side.
    """

    def __init__(self, spec: CaseSpec, family: Family, adapter: Adapter) -> None:
        self.spec = spec
        self.family = family
        self.memo = Memo()
        self.reference = CaseReference(spec, family, self.memo)
        self.shared_reference = SharedReference(self.reference, self.memo)
        self.noise = CaseNoise(self.shared_reference, self.memo)
        self.subject = CaseSubject(adapter, self.reference, self.noise, self.memo)

    def compare_logits(
        self, where: str, logits: object, scenario: Scenario = Scenario.PLAIN, *, truth: Tensor | None = None
    ) -> Finding:
        """Judge logits of a float64 run on the scenario's real tokens.

        Args:
            where: the place, for people and fingerprints.
            logits: `[batch, pos, d_vocab]`, what the adapter gave.
            scenario: of the run.
            truth: what they must be; HF's if not given.
        """
        chosen = self.reference.scenario(scenario)
        return self.noise.judge(scenario).compare(
            where,
            logits,
            self.reference.output(scenario).logits if truth is None else truth,
            defined=chosen.real[..., None],
            rows=chosen.rows,
            axes=LOGIT_AXES,
        )

    def trim(self) -> None:
        """Between two checks, let go of a large model's copies: all but the reference and what was computed."""
        if self.reference.trim():
            self.subject.close_further()

    def close(self) -> None:
        """Let go of every model."""
        self.subject.close()
        self.memo.clear()
