"""Locate where a difference starts: judge a subject's values or gradients point by point, in causal order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from verifier.canonical import Point
from verifier.cases.spec import Scenario
from verifier.errors import all_but_interrupts
from verifier.judging.numerics import float64_judge
from verifier.judging.outcome import Blocked, Finding, Verdict
from verifier.observing import activations, dependencies
from verifier.observing.case import Case
from verifier.observing.memo import memoized


def compare_points(
    case: Case,
    scenario: Scenario,
    seen: Mapping[str, Tensor],
    *,
    of: str = "values",
    points: Sequence[Point] | None = None,
    rows: Tensor | None = None,
) -> list[Finding]:
    """Judge what the subject showed at canonical points of a float64 run, in causal order.

    Args:
        case: of the reference that the subject is compared with.
        scenario: the inputs of the run.
        seen: by point, the subject's tensor; a point without one is not judged.
        of: `values` or `gradients`.
        points: the points that are judged; all that the subject has if not given.
        rows: `[batch]`, the rows that are judged; all if not given.
    """
    truth = getattr(activations.reference_trace(case, scenario), of)
    noise = getattr(activations.noise(case, scenario), of)
    findings = []
    for point in activations.shared_points(case) if points is None else points:
        if point.name not in seen:
            continue
        defined = case.reference.defined(point.axes, scenario)
        if rows is not None:
            defined = defined & rows.reshape(-1, *[1] * (defined.ndim - 1))
        findings.append(
            float64_judge(noise[point.name]).compare(
                point.name,
                seen[point.name],
                truth[point.name],
                defined=defined,
                rows=case.reference.scenario(scenario).rows,
            )
        )
    return findings


@memoized
def agreeing_points(case: Case) -> list[Point]:
    """List the points at which the subject shows HF's values on plain tokens; `hooks.values` reports the others.

    Raises:
        Blocked: the subject shows HF's values at no point.
    """
    comparisons = compare_points(case, Scenario.PLAIN, activations.all_values(case))
    agreeing = {one.where for one in comparisons if one.verdict in (Verdict.PASS, Verdict.REDUCED)}
    points = [point for point in activations.shared_points(case) if point.name in agreeing]
    if not points:
        raise Blocked("hooks.values")
    return points


def annotate_inputs(case: Case, comparisons: Sequence[Finding]) -> list[Finding]:
    """Add to each failing point whether the points that flow into it agree, differ too, or cannot be seen.

    Args:
        case: of the reference, which shows what flows into what.
        comparisons: of points, in causal order.

    Returns:
        The comparisons in the same order, with longer messages.
    """
    failing = {one.where for one in comparisons if one.verdict is Verdict.FAIL and one.where}
    if not failing:
        return list(comparisons)
    known = {one.where for one in comparisons if one.where}
    before = dependencies.reference_dependencies(case)
    annotated = []
    for one in comparisons:
        if one.where and one.where in failing and one.where in before:
            inputs = sorted(dependencies.nearest(before, one.where))
            annotated.append(replace(one, message=f"{one.message}; {_words(inputs, failing, known)}"))
        else:
            annotated.append(one)
    return annotated


def _words(inputs: Sequence[str], failing: set[str], known: set[str]) -> str:
    what = "what flows into it"
    if not inputs:
        return f"{what} is the tokens alone"
    wrong = [name for name in inputs if name in failing]
    if wrong:
        return f"{what} differs too ({', '.join(wrong)})"
    hidden = [name for name in inputs if name not in known]
    if hidden:
        return f"of {what} {', '.join(hidden)} cannot be seen"
    return f"{what} agrees ({', '.join(inputs)})"


def first_divergence(case: Case) -> Finding | None:
    """Find the first point in causal order at which the subject's values differ on plain tokens.

    Args:
        case: the case.

    Returns:
        The finding, with a message about what flows into the point. None where the hooks show no difference, or raise.
    """
    try:
        if case.subject.wrapped().hooks is None:
            return None
        comparisons = compare_points(case, Scenario.PLAIN, activations.all_values(case))
    except all_but_interrupts():  # hooks that raise, or are not there, locate nothing; `hooks.fires` reports them
        return None
    return next((one for one in annotate_inputs(case, comparisons) if one.verdict is Verdict.FAIL), None)
