"""What a library does to weights before they are looked at: each applied, run, and held against what is promised."""

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
from verifier.errors import one_line
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import float64_judge, unit
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations, localization
from verifier.observing.capabilities import require
from verifier.observing.case import Case

SCENARIO, PADDED = Scenario.PLAIN, Scenario.PADDED


def promises(case: Case) -> Mapping[str, frozenset[str]]:
    """What each processing promises to keep.

    Raises:
        NotApplicable: there is none that promises anything here.
    """
    found = case.memo.memoize(("promises",), lambda: dict(require(case.subject.wrapped().processings).promises()))
    if not any(found.values()):
        raise NotApplicable("the adapter has no weight processing that promises anything for this model")
    promised: Mapping[str, frozenset[str]] = found
    return promised


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """What became of one processing: what was compared, or the exception that there was instead."""

    compared: Sequence[Finding] = ()
    raised: Exception | None = None

    @property
    def kept(self) -> bool:
        """Whether it keeps what it promises."""
        return self.raised is None and not any(one.verdict is Verdict.FAIL for one in self.compared)


def judged(
    case: Case, names: frozenset[str], promised: frozenset[str], points: Sequence[Point], *, padded: bool = False
) -> list[Finding]:
    """What a subject that is processed so computes, held against what is promised to be as it is in HF's model.

    Its points come first, then what comes out of it; and where that is asked for, what comes out beside padding.
    """
    label = " and ".join(names) if len(names) == 1 else "all together"
    rows = case.subject.agreeing_rows(SCENARIO)
    subject: Subject = require(case.subject.wrapped().processings).apply(names)
    try:
        seen = _run(case, subject, [point.name for point in points])
        made = _shown(case, label, promised, seen, points, rows)
        if padded and promised & {LOGITS, LOG_PROBABILITIES} and not any(one.verdict is Verdict.FAIL for one in made):
            beside = _run(case, subject, [], PADDED)[LOGITS]
            made.append(
                _comes_out(case, f"{label}, padded", promised, beside, case.subject.agreeing_rows(PADDED), PADDED)
            )
    finally:
        subject.close()
    return made


def _shown(
    case: Case,
    label: str,
    promised: frozenset[str],
    seen: Mapping[str, Tensor],
    points: Sequence[Point],
    rows: Tensor,
) -> list[Finding]:
    made = [from_condition(point.name, "it no longer fires") for point in points if point.name not in seen]
    if points:
        made += localization.compare_points(case, SCENARIO, seen, points=points, rows=rows)
    made = [replace(one, where=f"{label}: {one.where}") for one in made]
    if promised & {LOGITS, LOG_PROBABILITIES}:
        made.append(_comes_out(case, label, promised, seen[LOGITS], rows))
    return made


def _run(case: Case, subject: Subject, names: Sequence[str], scenario: Scenario = SCENARIO) -> dict[str, Tensor]:
    """What the subject shows at these points, and its logits."""
    if names:
        seen = activations.observe(case, subject, names, case.reference.inputs(scenario))
        assert seen.logits is not None
        return {**seen.values, LOGITS: seen.logits}
    with torch.no_grad():
        return {LOGITS: subject.forward(case.reference.inputs(scenario)).logits}


def _comes_out(
    case: Case, label: str, promised: frozenset[str], logits: Tensor, rows: Tensor, scenario: Scenario = SCENARIO
) -> Finding:
    """Logits, or where those may move log-probabilities."""
    defined = (case.reference.scenario(scenario).real & rows[:, None])[..., None]
    truth, shown = case.reference.output(scenario).logits, case.reference.scenario(scenario).rows
    if LOGITS in promised:
        return case.noise.judge(scenario).compare(
            f"{label}: {LOGITS}", logits, truth, defined=defined, rows=shown, axes=LOGIT_AXES
        )
    likely = truth.log_softmax(-1)

    def noise(dtype_noise: float) -> float:
        return math.hypot(dtype_noise, unit(likely, likely.dtype, defined))

    judge = float64_judge(noise(case.noise.logits(scenario)), lambda: noise(case.noise.logits(scenario, SINGLE)))
    return judge.compare(
        f"{label}: {LOG_PROBABILITIES}", logits.log_softmax(-1), likely, defined=defined, rows=shown, axes=LOGIT_AXES
    )


def each(case: Case) -> Mapping[str, Processed]:
    """By processing: what comes out of a subject to which it alone was done. One that raises hides no other."""

    def alone(name: str, promised: frozenset[str]) -> Processed:
        try:
            return Processed(compared=judged(case, frozenset({name}), promised, []))
        except Exception as error:  # raised again by `conclude_each`
            return Processed(raised=error)

    def make() -> Mapping[str, Processed]:
        before(case)
        return {name: alone(name, promised) for name, promised in promises(case).items() if promised}

    case.subject.agreeing_rows(SCENARIO)
    return case.memo.memoize(("each processing",), make)


def conclude_each(case: Case) -> Finding:
    """The finding of all of them. Only where no difference is found does what was raised come out as it is."""
    made = each(case)
    raised = {name: one.raised for name, one in made.items() if one.raised is not None}
    compared = [comparison for one in made.values() for comparison in one.compared]
    if raised and all(one.kept for one in made.values() if one.raised is None):
        raise next(iter(raised.values()))
    finding = summarize(compared)
    words = "".join(f"; {name} raises {one_line(error)}" for name, error in raised.items())
    return replace(finding, message=f"{finding.message}{words}") if words else finding


def before(case: Case) -> Mapping[str, Tensor]:
    """What `as_it_is` gave before anything was processed."""
    return case.memo.memoize(("before processing",), lambda: as_it_is(case))


def as_it_is(case: Case) -> Mapping[str, Tensor]:
    """The subject's canonical weights, as far as it gives any, and its logits."""
    subject, found = case.subject.wrapped(), {}
    if subject.weights is not None:
        with contextlib.suppress(Blocked):  # `weights.names` reports that they cannot be read
            readable_weights(case)
            canonical = subject.weights.canonical()
            found = {name: one.detach().clone() for name, one in canonical.items() if isinstance(one, Tensor)}
    return {**found, **_run(case, subject, [])}
