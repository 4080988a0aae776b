"""Run checks on one case; whatever goes wrong in a check becomes its outcome."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter  # held here: an adapter may patch `time`
from typing import Any, Protocol

from verifier.adapter import Adapter
from verifier.cases.spec import CaseSpec, applies_to
from verifier.checks import LAST, OF_RANDOM_NUMBERS, OF_SURROUNDINGS, Check, in_order, registered
from verifier.checks.blame import find_site, format_traceback, is_outdated
from verifier.checks.late_refusal import find_late_refusal
from verifier.errors import all_but_interrupts, one_line, type_name
from verifier.family import Family
from verifier.judging.outcome import (
    BLOCKED,
    Blocked,
    Circumstance,
    Finding,
    NotApplicable,
    Outcome,
    Verdict,
    make_plain,
)
from verifier.judging.raising import is_raised_by_harness
from verifier.judging.row_summary import RowSummary
from verifier.judging.wording import circumstance_words
from verifier.observing.case import Case
from verifier.observing.circumstances.covering import RaisedIn, summaries
from verifier.reference.process_state import ProcessState, preserve_random_states
from verifier.reference.snapshots import remember

MISSING = "not applicable: the adapter offers no"


class Watcher(Protocol):
    """Receives each outcome with the live case, and the exception behind the outcome, if there is one."""

    def __call__(self, case: Case, check: Check, outcome: Outcome, error: BaseException | None) -> None: ...


def run_case(
    spec: CaseSpec,
    family: Family,
    adapter: Adapter,
    checks: Sequence[Check],
    *,
    seen: Watcher | None = None,
    looked: Callable[[RowSummary], None] | None = None,
    refused: Callable[[str], None] | None = None,
) -> Iterator[Outcome]:
    """Run the checks that apply to a case, in order; whatever goes wrong in a check becomes its outcome.

    A check's time includes all shared results that it is the first to need. A case that was taken for valid because
    nobody knew, and that Hugging Face refuses, is a refused case: checks of valid cases are skipped with the reason.

    Args:
        spec: the case.
        family: of the case.
        adapter: the adapter under test.
        checks: the selected checks.
        seen: receives each outcome after it was yielded.
        looked: receives what came of each circumstance, before the outcome of the check that was the first to need it.
        refused: receives the reason, before any outcome, if it is only now known that HF refuses the case.

    Raises:
        Unrunnable: HF's model of the case cannot be built on this machine, so no check can have an outcome.
    """
    remember(family)
    case, skipped = Case(spec, family, adapter), list[Check]()
    if reason := find_late_refusal(case):
        case.close()
        late = dataclasses.replace(spec, valid=False, reason=reason)
        skipped = [
            one for one in in_order(checks) if applies_to(one.applies, spec) and not applies_to(one.applies, late)
        ]
        spec, case = late, Case(late, family, adapter)
        if refused is not None:
            refused(reason)
    for check in skipped:
        message = f"not applicable: Hugging Face refuses the config: {reason}"
        yield make_plain(Outcome(check=check.id, verdict=Verdict.SKIP, message=message))
    # The case is over when it is looked at what it leaves behind.
    waiting, ran = [check for check in in_order(checks) if applies_to(check.applies, spec)], set[str]()
    # Where the process is no longer as it was, the reference is not either, and this check says so.
    spoilt: str | None = None
    with preserve_random_states(), contextlib.closing(case):
        while waiting:
            check = waiting.pop(0)
            if spoilt is None or (spoilt == LAST and _may_tell(case, check)):
                outcome, error = judge(case, check)
            else:
                outcome, error = Outcome(check=check.id, verdict=Verdict.SKIP, message=f"{BLOCKED}{spoilt}"), None
            ran.add(check.id)
            if check.id == OF_RANDOM_NUMBERS and (outcome.verdict.gates or _blocker(outcome) is not None):
                case.process.allow_draws()  # it has told them, or what it rests on is told
            changed = case.process.differences()
            if spoilt == LAST and outcome.verdict.gates:
                spoilt = check.id
            elif spoilt is None and changed and case.process.spoils_reference():
                spoilt = LAST
                waiting.sort(key=lambda one: one.id not in OF_SURROUNDINGS)  # one of these may say it first
            if looked is not None and (rows := summaries(case)):
                for row in rows:
                    looked(row)
                looked = None  # each once
            yield outcome  # first, so that it is recorded even if `seen` raises
            if seen is not None:
                seen(case, check, outcome, error)
                if not changed:
                    case.process = ProcessState()  # a debugger changes what is its own
            case.trim()
            blocker = _blocker(outcome)
            if blocker is not None and blocker.id not in ran and blocker not in waiting:
                waiting.append(blocker)  # a check that was not selected runs too if it explains a skip
            if not waiting and LAST not in ran:
                case.process.allow_draws()  # they are put back, and meet no other case
                case.close()  # which may change something too
                if case.process.differences():
                    waiting.append(_by_id()[LAST])


def _may_tell(case: Case, check: Check) -> bool:
    """Whether a check can say of a spoilt process what was changed; no circumstance is run in one for that."""
    return check.id in OF_SURROUNDINGS and (check.id != "state.settings" or bool(summaries(case)))


def _blocker(outcome: Outcome) -> Check | None:
    """The check that reports the failure behind a skip; None where the outcome is no such skip."""
    _, blocked, name = (outcome.message or "").partition(BLOCKED)
    if outcome.verdict is not Verdict.SKIP or not blocked:
        return None
    return _by_id().get(name)


@functools.cache  # every blocked outcome looks it up
def _by_id() -> Mapping[str, Check]:
    return {check.id: check for check in registered()}


def judge(case: Case, check: Check) -> tuple[Outcome, BaseException | None]:
    """Run one check on a case.

    Args:
        case: to run it on.
        check: to run.

    Returns:
        Its outcome, whatever goes wrong, and the exception behind the outcome, if there is one.

    Raises:
        Unrunnable: HF's model of the case cannot be built on this machine.
        OutdatedAdapter: the adapter implements an older protocol.
    """
    started = perf_counter()
    raised: BaseException | None = None
    error_facts: dict[str, Any] = {}
    try:
        finding = _require_finding(_missing(case, check) or check.run(case))
    except all_but_interrupts() as caught:
        if caught is case.reference.unrunnable or is_outdated(caught):
            raise
        error, when = _cause(caught, check)
        if _is_excuse(error, case, check):
            reason = BLOCKED if issubclass(type(error), Blocked) else "not applicable: "
            finding = Finding(verdict=Verdict.SKIP, message=f"{reason}{error}")
        else:
            words = f"{circumstance_words(when)}: " if when else ""
            message = f"{words}{one_line(error)}"
            raised, finding = error, Finding(verdict=Verdict.ERROR, message=message, circumstance=when)
            kind, site = type_name(error), find_site(error)
            error_facts = {"exception": kind, "site": site, "detail": format_traceback(error)}
    seconds = perf_counter() - started
    facts = {one.name: getattr(finding, one.name) for one in dataclasses.fields(Finding)}
    return make_plain(Outcome(check=check.id, seconds=seconds, **facts, **error_facts)), raised


# What an exception is is asked of its class: the exception itself comes from outside, and may raise at any question.


def _cause(error: BaseException, check: Check) -> tuple[BaseException, Circumstance | None]:
    """Find the exception that a check's outcome tells, behind those with which the harness and Python carry it.

    Returns:
        The exception, and the circumstance in which it was raised, where it was raised in one that is not plain.
    """
    when: Circumstance | None = None
    while _carries(error, check) and error.__cause__ is not None:
        if type(error) is RaisedIn:
            when = error.circumstance or None
        error = error.__cause__
    return error, when


def _carries(error: BaseException, check: Check) -> bool:
    """Whether an exception only carries the one that is its cause."""
    if type(error) is Blocked:
        return str(error) == check.id  # that a check is blocked by itself tells nothing
    if type(error) is RuntimeError:  # as which Python raises a StopIteration out of a generator
        return type(error.__cause__) in (StopIteration, StopAsyncIteration)
    return type(error) is RaisedIn


def _is_excuse(error: BaseException, case: Case, check: Check) -> bool:
    """Whether an exception says why a check has nothing to tell.

    Only a check may raise it: an adapter that raises it is not excused, and no check is blocked by itself.
    """
    if not issubclass(type(error), Blocked | NotApplicable) or case.subject.raised(error):
        return False
    return is_raised_by_harness(error, but=check.run) and not (type(error) is Blocked and str(error) == check.id)


def _require_finding(found: Finding) -> Finding:
    """Make sure of what a check gave, which may come from outside.

    Raises:
        TypeError: it is no finding, or one without a verdict.
    """
    if type(found) is not Finding or type(found.verdict) is not Verdict:
        raise TypeError(f"a check must give a Finding with a Verdict, got {reprlib.repr(found)}")
    return found


def _missing(case: Case, check: Check) -> Finding | None:
    if not check.subject or not check.needs:
        return None
    missing = sorted(name for name in check.needs if getattr(case.subject.wrapped(), name) is None)
    if not missing:
        return None
    return Finding(verdict=Verdict.SKIP, message=f"{MISSING} {' and no '.join(missing)}")
