"""Running checks on one case: whatever goes wrong in one is its outcome."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from verifier.adapter import Adapter
from verifier.cases.spec import CaseSpec, applies_to
from verifier.checks import Check, registered
from verifier.checks.blame import in_full, site_of
from verifier.errors import OutdatedAdapter, one_line
from verifier.family import Family
from verifier.judging.outcome import BLOCKED, Blocked, Finding, NotApplicable, Outcome, Verdict
from verifier.observing.case import Case
from verifier.reference.snapshots import remember

MISSING = "not applicable: the adapter offers no"


class Watcher(Protocol):
    """Is shown each outcome beside the live case, with the exception that it was made of, if it was."""

    def __call__(self, case: Case, check: Check, outcome: Outcome, error: BaseException | None) -> None: ...


def run_case(
    spec: CaseSpec, family: Family, adapter: Adapter, checks: Sequence[Check], *, seen: Watcher | None = None
) -> Iterator[Outcome]:
    """Run the checks that apply to a case, in order; whatever goes wrong in one is its outcome.

    Each check's time counts what it was the first to ask for.

    Args:
        spec: the case.
        family: its family.
        adapter: the adapter under test.
        checks: those selected.
        seen: is shown each outcome after it was given.

    Raises:
        Unrunnable: HF's model of the case cannot be had here, so there is nothing that an outcome could be of.
    """
    remember(family)
    case = Case(spec, family, adapter)
    waiting, ran = [check for check in checks if applies_to(check.applies, spec)], set[str]()
    try:
        while waiting:
            check = waiting.pop(0)
            outcome, error = judge(case, check)
            ran.add(check.id)
            yield outcome  # first, so that it is kept whatever whoever looks at it decides
            if seen is not None:
                seen(case, check, outcome, error)
            case.trim()
            blocker = _blocker(outcome)
            if blocker is not None and blocker.id not in ran and blocker not in waiting:
                waiting.append(blocker)  # who selected only what rests on it must be told of the failure all the same
    finally:
        case.close()


def _blocker(outcome: Outcome) -> Check | None:
    """The check that reports why this one could not look; None where it looked, or where that is no check."""
    _, blocked, name = (outcome.message or "").partition(BLOCKED)
    if outcome.verdict is not Verdict.SKIP or not blocked:
        return None
    return _by_id().get(name)


@functools.cache  # who rests on what is asked often
def _by_id() -> Mapping[str, Check]:
    return {check.id: check for check in registered()}


def judge(case: Case, check: Check) -> tuple[Outcome, BaseException | None]:
    """What came of a check on a case, whatever goes wrong in it, and the exception that it was made of, if it was.

    Raises:
        Unrunnable: HF's model of the case cannot be had here.
        OutdatedAdapter: the adapter is written for the protocol as it was.
    """
    started = time.perf_counter()
    raised, finding, exception, site, detail = None, Finding(), None, None, None
    try:
        finding = _missing(case, check) or check.run(case)
    except (Exception, SystemExit) as error:  # code from outside may end as if it were a script
        if error is case.reference.unrunnable or isinstance(error, OutdatedAdapter):
            raise
        # These two are the checks' own words: an adapter cannot excuse itself with them.
        if isinstance(error, Blocked | NotApplicable) and not case.subject.raised(error):
            why = BLOCKED if isinstance(error, Blocked) else "not applicable: "
            return _outcome(check, Finding(verdict=Verdict.SKIP, message=f"{why}{error}"), started), None
        raised, finding = error, Finding(verdict=Verdict.ERROR, message=one_line(error))
        exception, site, detail = type(error).__name__, site_of(error), in_full(error)
    return _outcome(check, finding, started, exception=exception, site=site, detail=detail), raised


def _outcome(
    check: Check,
    finding: Finding,
    started: float,
    *,
    exception: str | None = None,
    site: str | None = None,
    detail: str | None = None,
) -> Outcome:
    return Outcome(
        check=check.id,
        verdict=finding.verdict,
        measured=finding.measured,
        bound=finding.bound,
        where=finding.where,
        message=finding.message,
        exception=exception,
        site=site,
        detail=detail,
        seconds=time.perf_counter() - started,
    )


def _missing(case: Case, check: Check) -> Finding | None:
    if not check.subject or not check.needs:
        return None
    missing = sorted(name for name in check.needs if getattr(case.subject.wrapped(), name) is None)
    if not missing:
        return None
    return Finding(verdict=Verdict.SKIP, message=f"{MISSING} {' and no '.join(missing)}")
