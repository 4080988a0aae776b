"""Diagnose a failed case: its ladder of hook points, and what each failing check compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

from verifier.adapter import Adapter
from verifier.cases.spec import CaseSpec, Scenario
from verifier.checks import Check
from verifier.checks.runner import judge
from verifier.errors import all_but_interrupts, one_line
from verifier.family import Family
from verifier.judging.comparison import watching
from verifier.judging.evidence import Evidence, Ladder, Rung
from verifier.judging.outcome import Blocked, Finding, NotApplicable, as_number, as_text
from verifier.observing import activations, localization
from verifier.observing.case import Case
from verifier.reference.snapshots import remember

MOST_PLACES = 120  # of one check; a deep model has more, and a difference shows in the first ones
_SCENARIO = Scenario.PLAIN


def diagnose_case(
    spec: CaseSpec, family: Family, adapter: Adapter, checks: Sequence[Check]
) -> Iterator[Evidence | Ladder]:
    """Run these checks on the case once more, and yield what each compares; the ladder comes last.

    Args:
        spec: the case.
        family: of the case.
        adapter: the adapter under test.
        checks: the checks that failed on the case.
    """
    remember(family)
    case = Case(spec, family, adapter)
    try:
        for check in checks:
            yield _watched(case, check)
            case.trim()
        if spec.valid and any(check.subject for check in checks):
            yield ladder(case)
    finally:
        case.close()


def _watched(case: Case, check: Check) -> Evidence:
    with watching() as watch:
        outcome, _ = judge(case, check)
    rungs = [_rung(one) for one in watch.comparisons]
    return Evidence(
        case=case.spec.id,
        check=check.id,
        fingerprint=outcome.fingerprint,
        places=tuple(rungs[:MOST_PLACES]),
        more=max(0, len(rungs) - MOST_PLACES),
        difference=watch.differences.get(outcome.where or ""),
    )


def ladder(case: Case) -> Ladder:
    """Make the ladder of a case: every canonical point of the subject, with the errors of activation and gradient."""
    missing: dict[str, str] = {}

    def side(name: str, climb: Callable[[], Iterable[Finding]]) -> tuple[Rung, ...]:
        try:
            return tuple(_rung(one) for one in climb())
        except Blocked as error:
            missing[name] = f"blocked by {error}"
        except NotApplicable as error:
            missing[name] = str(error)
        except all_but_interrupts() as error:  # raised by the subject; the check that fails for it has the traceback
            missing[name] = one_line(error)
        return ()

    forward, backward = side("forward", lambda: _forward(case)), side("backward", lambda: _backward(case))
    return Ladder(case=case.spec.id, forward=forward, backward=backward, missing=missing)


def _forward(case: Case) -> Iterator[Finding]:
    logits = case.subject.output(_SCENARIO).logits
    if case.subject.wrapped().hooks is not None:
        yield from localization.compare_points(case, _SCENARIO, activations.all_values(case, _SCENARIO))
    yield case.compare_logits("logits", logits, _SCENARIO)


def _backward(case: Case) -> Iterator[Finding]:
    if case.subject.wrapped().hooks is None:
        raise NotApplicable("the adapter offers no hooks")
    gradients: dict[str, Tensor] = {}
    for switch in activations.by_switch(case, [point.name for point in activations.shared_points(case)]):
        gradients |= activations.subject_gradients(case, _SCENARIO, switch).gradients
    yield from localization.compare_points(case, _SCENARIO, gradients, of="gradients")


def _rung(one: Finding) -> Rung:
    measured, bound = as_number(one.measured) or 0.0, as_number(one.bound) or 0.0
    return Rung(where=as_text(one.where) or "", verdict=one.verdict, measured=measured, bound=bound)
