"""Running checks on one case: whatever goes wrong in one is its outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from verifier.adapter import Adapter
from verifier.blame import in_full, site_of
from verifier.case import Blocked, Case
from verifier.checks import Check
from verifier.errors import one_line
from verifier.family import Family
from verifier.outcome import Finding, NotApplicable, Outcome, Verdict
from verifier.spec import CaseSpec


def run_case(spec: CaseSpec, family: Family, adapter: Adapter, checks: Sequence[Check]) -> Iterator[Outcome]:
    """Run the checks that apply to a case, in order; whatever goes wrong in one is its outcome.

    Each check's time counts what it was the first to ask for.
    """
    case = Case(spec, family, adapter)
    try:
        for check in checks:
            if check.applies == "always" or (check.applies == "valid") == spec.valid:
                yield _run_check(case, check)
                case.trim()
    finally:
        case.close()


def _run_check(case: Case, check: Check) -> Outcome:
    started = time.perf_counter()
    finding, exception, site, detail = Finding(), None, None, None
    try:
        finding = _missing(case, check) or check.run(case)
    except Blocked as blocked:
        finding = Finding(verdict=Verdict.SKIP, message=f"blocked by {blocked}")
    except NotApplicable as reason:
        finding = Finding(verdict=Verdict.SKIP, message=f"not applicable: {reason}")
    except Exception as error:
        finding = Finding(verdict=Verdict.ERROR, message=one_line(error))
        exception, site, detail = type(error).__name__, site_of(error), in_full(error)
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
    return Finding(verdict=Verdict.SKIP, message=f"not applicable: the adapter offers no {' and no '.join(missing)}")
