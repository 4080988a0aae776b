"""Apply a library's weight processings, run the processed subject, and compare with what each promises to keep."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.adapter import LOG_PROBABILITIES, LOGITS, Subject
from verifier.canonical import LOGIT_AXES, Point
from verifier.cases.spec import SINGLE, Scenario
from verifier.checks.canonical_weights import readable_weights
from verifier.checks.subjects import real_logits
from verifier.errors import all_but_interrupts, one_line
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import float64_judge, unit
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations, localization
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.observing.closing import close_quietly
from verifier.observing.memo import memoized

SCENARIO, PADDED = Scenario.PLAIN, Scenario.PADDED


@memoized
def read_promises(case: Case) -> Mapping[str, frozenset[str]]:
    """Read what each processing promises to keep, by its name.

    Raises:
        NotApplicable: no processing promises anything for this model.
    """
    promised = dict(require(case.subject.wrapped().processings).promises())
    if not any(promised.values()):
        raise NotApplicable("the adapter has no weight processing that promises anything for this model")
    return promised


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """The result of one processing: the comparisons, or the exception that it raised."""

    compared: Sequence[Finding] = ()
    raised: BaseException | None = None

    @property
    def kept(self) -> bool:
        """Whether the processing keeps what it promises."""
        return self.raised is None and not any(one.verdict is Verdict.FAIL for one in self.compared)


def judge_processed(
    case: Case, names: frozenset[str], promised: frozenset[str], points: Sequence[Point], *, padded: bool = False
) -> list[Finding]:
    """Process a subject, run it, and judge what is promised to stay as in HF's model.

    Args:
        case: of the subject.
        names: the processings that are applied together.
        promised: what they promise to keep: `LOGITS`, `LOG_PROBABILITIES`, or templates of hook points.
        points: the points that are compared.
        padded: whether the output with padding is compared too.

    Returns:
        The comparisons: points first, then the output, then the output with padding.
    """
    label = " and ".join(names) if len(names) == 1 else "all together"
    case.subject.agreeing_rows(SCENARIO)
    subject: Subject = require(case.subject.wrapped().processings).apply(names)
    try:
        seen = _observe(case, subject, [point.name for point in points])
        findings = [from_condition(point.name, "it no longer fires") for point in points if point.name not in seen]
        if points:
            rows = case.subject.agreeing_rows(SCENARIO)
            findings += localization.compare_points(case, SCENARIO, seen, points=points, rows=rows)
        findings = [replace(one, where=f"{label}: {one.where}") for one in findings]
        if promised & {LOGITS, LOG_PROBABILITIES}:
            findings.append(_judge_output(case, label, promised, seen[LOGITS], SCENARIO))
            if padded and not any(one.verdict is Verdict.FAIL for one in findings):
                with_padding = _observe(case, subject, [], PADDED)[LOGITS]
                findings.append(_judge_output(case, f"{label}, padded", promised, with_padding, PADDED))
    finally:
        close_quietly(subject)
    return findings


def _observe(case: Case, subject: Subject, names: Sequence[str], scenario: Scenario = SCENARIO) -> dict[str, Tensor]:
    """Run a subject, and read its values at these points and its logits, by name."""
    if names:
        seen = activations.observe(case, subject, names, case.reference.inputs(scenario))
        assert seen.logits is not None
        return {**seen.values, LOGITS: seen.logits}
    with torch.no_grad():
        return {LOGITS: subject.forward(case.reference.inputs(scenario)).logits}


def _judge_output(case: Case, label: str, promised: frozenset[str], logits: Tensor, scenario: Scenario) -> Finding:
    """Judge the logits; where only log-probabilities are promised, those."""
    defined, rows = real_logits(case, scenario), case.reference.scenario(scenario).rows
    truth = case.reference.output(scenario).logits
    if LOGITS in promised:
        where, judge = f"{label}: {LOGITS}", case.noise.judge(scenario)
        return judge.compare(where, logits, truth, defined=defined, rows=rows, axes=LOGIT_AXES)
    likely = truth.log_softmax(-1)

    def noise(dtype_noise: float) -> float:
        return math.hypot(dtype_noise, unit(likely, likely.dtype, defined))

    judge = float64_judge(noise(case.noise.logits(scenario)), lambda: noise(case.noise.logits(scenario, SINGLE)))
    where, given = f"{label}: {LOG_PROBABILITIES}", logits.log_softmax(-1)
    return judge.compare(where, given, likely, defined=defined, rows=rows, axes=LOGIT_AXES)


@memoized
def judge_each(case: Case) -> Mapping[str, Processed]:
    """Apply each processing alone, and judge the output, by processing; one that raises does not stop the others."""

    def alone(name: str, promised: frozenset[str]) -> Processed:
        try:
            return Processed(compared=judge_processed(case, frozenset({name}), promised, []))
        except all_but_interrupts() as error:  # raised again by `summarize_each`
            return Processed(raised=error)

    case.subject.agreeing_rows(SCENARIO)
    read_before(case)
    return {name: alone(name, promised) for name, promised in read_promises(case).items() if promised}


def summarize_each(case: Case) -> Finding:
    """Summarize all processings; raises what one of them raised only where no other differs."""
    processed = judge_each(case)
    raised = {name: one.raised for name, one in processed.items() if one.raised is not None}
    compared = [comparison for one in processed.values() for comparison in one.compared]
    if raised and all(one.kept for one in processed.values() if one.raised is None):
        raise next(iter(raised.values()))
    finding = summarize(compared)
    words = "".join(f"; {name} raises {one_line(error)}" for name, error in raised.items())
    return replace(finding, message=f"{finding.message}{words}") if words else finding


@memoized
def read_before(case: Case) -> Mapping[str, Tensor]:
    """Read the unprocessed subject's weights and logits, at the first call before the first processing."""
    return read_unprocessed(case)


def read_unprocessed(case: Case) -> Mapping[str, Tensor]:
    """Read the unprocessed subject's canonical weights, as far as it has any, and its logits."""
    subject, found = case.subject.wrapped(), {}
    if subject.weights is not None:
        with contextlib.suppress(Blocked):  # `weights.names` reports that they cannot be read
            readable_weights(case)
            canonical = subject.weights.canonical()
            found = {name: one.detach().clone() for name, one in canonical.items() if isinstance(one, Tensor)}
    return {**found, **_observe(case, subject, [])}
