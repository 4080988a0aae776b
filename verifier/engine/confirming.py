"""Each distinct failure of a record is run once more, alone in a fresh process, before its reproduce line is told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from verifier.analysis.bug_groups import choose_lead, group_by_origin
from verifier.analysis.bugs import DistinctFailure, distinct_failures
from verifier.analysis.outcome_index import OutcomeIndex
from verifier.cases.replaying import narrow
from verifier.checks import LAST
from verifier.engine.case_runner import SubprocessRunner
from verifier.engine.events import Stop
from verifier.engine.plan import Plan
from verifier.judging.outcome import Outcome, Verdict
from verifier.record import Record, Writer
from verifier.record.confirmation import Alone, Confirmation

# Nobody waits long for what changes nothing but a word. The first ones are told first, and most people read no more.
MOST = 20
SECONDS = 60.0
# A case that ended its process was run again alone before that counted.
_ALREADY_ALONE = (Verdict.CRASH, Verdict.TIMEOUT)


def confirm_failures(
    seen: Record, writer: Writer, plan: Plan, announce: Callable[[int], None], *, isolated: bool
) -> tuple[Stop, float]:
    """Run the check of each distinct failure on its smallest case alone, and write into the record what became of it.

    Of those that one mistake raises only the one is run that stands for all. What a fuzzing campaign shrank was run
    again then. Nothing is run in this process, which is not a fresh one.

    Args:
        seen: the record as it is read, in which what its baseline excuses is no failure.
        writer: of the same record.
        plan: what was run.
        announce: receives the number of failures that are run again, if there are any.
        isolated: whether cases may run in processes of their own.

    Returns:
        Why confirming stopped, and how many seconds it took.
    """
    began = time.monotonic()
    found = list(_unconfirmed(seen))
    most = min(MOST, len(found)) if isolated else 0
    if most:
        announce(most)
    # What selected checks rest on is told too, and nobody selected it.
    every_check = replace(plan, only=())
    with contextlib.closing(SubprocessRunner(every_check, retries=False)) as runner:
        for number, failure in enumerate(found):
            left = SECONDS - (time.monotonic() - began) if number < most else 0.0
            try:
                writer.alone(_confirm(failure, runner, left, plan.limits.seconds))
            except KeyboardInterrupt:
                return Stop.INTERRUPTED, time.monotonic() - began
    return Stop.COMPLETE, time.monotonic() - began


def _unconfirmed(seen: Record) -> Iterator[DistinctFailure]:
    """List the failures to run again, in the order in which they are told."""
    index = OutcomeIndex(seen)
    for upstream in (False, True):
        for group in group_by_origin(distinct_failures(index, upstream=upstream)):
            lead = choose_lead(group)
            known = seen.confirmations.get((lead.fingerprint, lead.smallest.id))
            is_known = lead.fingerprint in seen.found or (known is not None and known.alone is not Alone.NOT_TRIED)
            if not is_known and lead.entry.outcome.verdict not in _ALREADY_ALONE:
                yield lead


def _confirm(failure: DistinctFailure, runner: SubprocessRunner, seconds: float, longest: float | None) -> Confirmation:
    """Run a failure again: in its plainest circumstance, and if that is not enough in all that its case was dealt.

    Args:
        failure: the failure.
        runner: runs its case.
        seconds: for how long; nothing is run if that is not above 0.
        longest: how many seconds one case may take; None for any time.
    """
    until = time.monotonic() + seconds
    outcome, case = failure.entry.outcome, failure.smallest
    # What a case leaves behind may come of any of its checks.
    checks = None if outcome.check == LAST else (outcome.check,)
    narrowed = None if checks is None else narrow(case, outcome.check, outcome.circumstance)
    ended = Alone.NOT_TRIED
    for spec in (case,) if narrowed is None else (narrowed, case):
        left = until - time.monotonic()
        if left <= 0:
            return Confirmation(fingerprint=failure.fingerprint, case=case.id, alone=Alone.NOT_TRIED)
        runner.renew()
        most = left if longest is None else min(left, longest)
        result = runner.run(spec, checks, seconds=most, told={outcome.check: outcome})
        ended = _compare(outcome, result.outcomes)
        if ended is Alone.FAILS:
            return Confirmation(fingerprint=failure.fingerprint, case=case.id, alone=ended, narrowed=spec is narrowed)
    return Confirmation(fingerprint=failure.fingerprint, case=case.id, alone=ended)


def _compare(before: Outcome, outcomes: tuple[Outcome, ...]) -> Alone:
    if any(outcome.fails_like(before) for outcome in outcomes):
        return Alone.FAILS
    if any(outcome.verdict is Verdict.TIMEOUT for outcome in outcomes):
        return Alone.NOT_TRIED
    return Alone.DIFFERS if any(outcome.verdict.is_finding for outcome in outcomes) else Alone.PASSES
