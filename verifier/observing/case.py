"""One case under one adapter: both models, and what checks share of them."""

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
from verifier.reference.process_state import ProcessState


class Case:
    """One case under one adapter.

    Invariant: nothing is built before a check asks for it, and all that checks share is kept here. A check keeps
    nothing.

    Attributes:
        spec: the case as plain data.
        family: the family of its reference.
        memo: the results kept for this case alone.
        reference: Hugging Face's models, the inputs, and HF's outputs.
        shared_reference: the results of HF's side kept for every case with the same model.
        noise: of HF's results.
        subject: the adapter's side: the wrapped models and their outputs.
        process: what all cases of the process share, as it was before this one.
    """

    def __init__(self, spec: CaseSpec, family: Family, adapter: Adapter) -> None:
        self.spec = spec
        self.family = family
        self.memo = Memo()
        self.reference = CaseReference(spec, family, self.memo)
        self.shared_reference = SharedReference(self.reference)
        self.noise = CaseNoise(self.shared_reference)
        self.subject = CaseSubject(adapter, self.reference, self.noise)
        self.process = ProcessState()

    def compare_logits(
        self, where: str, logits: object, scenario: Scenario = Scenario.PLAIN, *, truth: Tensor | None = None
    ) -> Finding:
        """Judge the logits of a float64 run on the scenario's real tokens.

        Args:
            where: the place, for people and fingerprints.
            logits: `[batch, pos, d_vocab]`, the adapter's.
            scenario: of the run.
            truth: `[batch, pos, d_vocab]`, the right logits; HF's if not given.
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
        """Free the copies of a large model between two checks; the reference and all results stay."""
        if self.reference.trim():
            self.subject.close_further()

    def close(self) -> None:
        """Close every subject and free every model."""
        self.subject.close()
        self.memo.clear()
