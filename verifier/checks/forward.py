"""What the wrapped model computes when it is called most plainly."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from verifier.adapter import Inputs
from verifier.checks import check
from verifier.checks.subjects import compute_logits
from verifier.judging.comparison import summarize
from verifier.judging.outcome import Finding, Verdict
from verifier.observing import localization
from verifier.observing.case import Case


@check("forward.logits")
def logits(case: Case) -> Finding:
    """The wrapped model's logits on plain tokens are HF's.

    A failure says at which hook point it starts, and whether it follows one of HF's other paths. It means that the
    wrapped model is another model; whatever is read off it is of that one.
    """
    truth, actual = case.reference.output().logits, case.subject.output().logits

    def compare(given: object, right: Tensor) -> Finding:
        return case.compare_logits("logits", given, truth=right)

    finding = summarize([compare(actual, truth)])
    if finding.verdict is not Verdict.FAIL:
        return finding
    start = localization.first_divergence(case)
    if start is not None:
        words = f"{finding.where}: {finding.message}; it starts at {start.where}: {start.message}"
        finding = replace(finding, where=start.where, message=words)
    for name in case.family.attentions:
        if name == case.family.reference_attention:
            continue
        try:
            theirs = case.reference.output(attention=name).logits
        except Exception:  # a path that raises explains nothing; `reference.attention` reports it
            continue
        if compare(theirs, truth).verdict is not Verdict.FAIL:
            continue  # that path agrees with the right one, so it explains nothing
        if compare(*_without_shared_nans(actual, theirs)).verdict is not Verdict.FAIL:
            words = f"it agrees with HF's {name} attention, which disagrees with {case.family.reference_attention}"
            if name == case.spec.attention:
                # That is the model that it was given: HF computes what it shows.
                finding = replace(finding, verdict=Verdict.UPSTREAM)
            return replace(finding, message=f"{finding.message}; {words}")
    return finding


def _without_shared_nans(actual: object, other: Tensor) -> tuple[object, Tensor]:
    """Replace elements at which neither of two tensors is a number by 0 in both: they do not differ there."""
    if not isinstance(actual, Tensor) or actual.shape != other.shape:
        return actual, other
    shared = actual.isnan() & other.isnan()
    return actual.masked_fill(shared, 0.0), other.masked_fill(shared, 0.0)


@check("forward.causality")
def causality(case: Case) -> list[Finding]:
    """Changing the last tokens of a text does not change the logits before them.

    A failure means that a position sees what comes after it.
    """
    inputs = case.reference.inputs()
    assert inputs.input_ids is not None
    vocab = case.reference.model().get_input_embeddings().weight.shape[0]
    start = case.spec.length // 2
    ids = inputs.input_ids.clone()
    ids[:, start:] = (ids[:, start:] + 1) % vocab
    before = case.subject.output().logits[:, :start]
    after = compute_logits(case, case.subject.wrapped(), Inputs(input_ids=ids))[:, :start]
    rows = case.reference.scenario().rows
    return [case.noise.judge().compare("logits before the change", after, before, rows=rows)]
