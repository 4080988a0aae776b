"""Running checks on one case: whatever goes wrong in one is its outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from verifier.adapter import Adapter
from verifier.blame import in_full, site_of
from verifier.case import Blocked, Case
from verifier.checks import Check, applies_to
from verifier.errors import one_line
from verifier.family import Family
from verifier.outcome import Finding, NotApplicable, Outcome, Verdict
from verifier.spec import CaseSpec
from verifier.surroundings import remember

MISSING = "not applicable: the adapter offers no"


def run_case(spec: CaseSpec, family: Family, adapter: Adapter, checks: Sequence[Check]) -> Iterator[Outcome]:
    """Run the checks that apply to a case, in order; whatever goes wrong in one is its outcome.

    Each check's time counts what it was the first to ask for.
    """
    remember(family)
    case = Case(spec, family, adapter)
    try:
        for check in checks:
            if applies_to(check.applies, spec):
                yield _run_check(case, check)
                case.trim()
    finally:
        case.close()


def _run_check(case: Case, check: Check) -> Outcome:
    started = time.perf_counter()
    finding, exception, site, detail = Finding(), None, None, None
    try:
        finding = _missing(case, check) or check.run(case)
    except Exception as error:
        # These two are the checks' own words: an adapter cannot excuse itself with them.
        if isinstance(error, Blocked | NotApplicable) and not case.went_through_subject(error):
            why = "blocked by" if isinstance(error, Blocked) else "not applicable:"
            return _outcome(check, Finding(verdict=Verdict.SKIP, message=f"{why} {error}"), started)
        finding = Finding(verdict=Verdict.ERROR, message=one_line(error))
        exception, site, detail = type(error).__name__, site_of(error), in_full(error)
    return _outcome(check, finding, started, exception=exception, site=site, detail=detail)


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
    missing = sorted(check.needs - case.subject().capabilities)
    if not missing:
        return None
    return Finding(verdict=Verdict.SKIP, message=f"{MISSING} {' and no '.join(missing)}")
