"""Where a difference starts: the points at which a subject's values or gradients are judged, in causal order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from verifier.canonical import Point
from verifier.cases.spec import Scenario
from verifier.judging.numerics import float64_judge
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations, dependencies, interventions
from verifier.observing.case import Case


def compare_points(
    case: Case,
    scenario: Scenario,
    seen: Mapping[str, Tensor],
    *,
    of: str = "values",
    points: Sequence[Point] | None = None,
    rows: Tensor | None = None,
) -> list[Finding]:
    """What the subject showed at canonical points of a float64 run, judged in causal order.

    Args:
        case: whose reference it is held against.
        scenario: the inputs of the run.
        seen: by point, what was shown; one that is not there is not judged.
        of: `values` or `gradients`.
        points: which ones; all that the subject has if not given.
        rows: `[batch]`: the rows that are judged; all if not given.
    """
    truth, noise = (
        getattr(activations.reference_trace(case, scenario), of),
        getattr(activations.noise(case, scenario), of),
    )
    made = []
    for point in activations.shared_points(case) if points is None else points:
        if point.name not in seen:
            continue
        defined = case.reference.defined(point.axes, scenario)
        if rows is not None:
            defined = defined & rows.reshape(-1, *[1] * (defined.ndim - 1))
        made.append(
            float64_judge(noise[point.name]).compare(
                point.name,
                seen[point.name],
                truth[point.name],
                defined=defined,
                rows=case.reference.scenario(scenario).rows,
            )
        )
    return made


def agreeing_points(case: Case) -> list[Point]:
    """The points at which the subject shows HF's values on plain tokens: what is asked of the others is told already.

    Raises:
        Blocked: there is none, which `hooks.values` reports.
    """

    def make() -> list[Point]:
        verdicts = {
            one.where: one.verdict for one in compare_points(case, Scenario.PLAIN, activations.all_values(case))
        }
        right = (Verdict.PASS, Verdict.REDUCED)
        return [point for point in activations.shared_points(case) if verdicts.get(point.name) in right]

    found = case.memo.memoize(("agreeing points",), make)
    if not found:
        raise Blocked("hooks.values")
    return found


def annotate_inputs(case: Case, comparisons: Sequence[Finding], *, backwards: bool = False) -> list[Finding]:
    """The same, of which each that fails although all that flows into it agreed says so.

    Args:
        case: whose reference tells what flows into what.
        comparisons: in causal order.
        backwards: whether they are of gradients, which flow the other way.
    """
    failing = {one.where for one in comparisons if one.verdict is Verdict.FAIL and one.where}
    if not failing:
        return list(comparisons)
    known = {one.where for one in comparisons if one.where}
    before = interventions.reference_dependencies(case)
    if backwards:
        before = {name: frozenset(other for other in before if name in before[other]) for name in before}
    told = []
    for one in comparisons:
        if one.where and one.where in failing and one.where in before:
            inputs = sorted(dependencies.nearest(before, one.where))
            told.append(replace(one, message=f"{one.message}; {_words(inputs, failing, known, backwards)}"))
        else:
            told.append(one)
    return told


def _words(inputs: Sequence[str], failing: set[str], known: set[str], backwards: bool) -> str:
    what = "what flows back into it" if backwards else "what flows into it"
    if not inputs:
        return f"{what} is the {'logits' if backwards else 'tokens'} alone"
    wrong = [name for name in inputs if name in failing]
    if wrong:
        return f"{what} differs too ({', '.join(wrong)})"
    hidden = [name for name in inputs if name not in known]
    if hidden:
        return f"of {what} {', '.join(hidden)} cannot be seen"
    return f"{what} agrees ({', '.join(inputs)})"


def first_divergence(case: Case, scenario: Scenario, rows: Tensor | None = None) -> Finding | None:
    """The first point in causal order at which the subject's values differ on a scenario, and what flows into it.

    None where its hooks show no difference, or cannot be asked.
    """
    try:
        if case.subject.wrapped().hooks is None:
            return None
        comparisons = compare_points(case, scenario, activations.all_values(case, scenario), rows=rows)
    except (Blocked, NotApplicable):
        return None
    except Exception:  # hooks that raise explain nothing; `hooks.fires` reports it
        return None
    failing = [one for one in annotate_inputs(case, comparisons) if one.verdict is Verdict.FAIL]
    return failing[0] if failing else None
