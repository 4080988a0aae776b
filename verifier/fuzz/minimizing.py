"""Minimize a failure: shrink it, run it again in fresh processes, and compare it with neighbours that pass."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from verifier.engine.case_runner import CaseResult, Stopped, SubprocessRunner
from verifier.fuzz.fields import Choice, Space
from verifier.fuzz.ledger import Ledger
from verifier.fuzz.remembered import Remembered
from verifier.fuzz.shrinking import minimal
from verifier.judging.outcome import Outcome
from verifier.record.fuzz_finding import PassingNeighbour, ShrunkFailure

AGAIN = 2  # times that a minimal case is run once more, each in a fresh process

T = TypeVar("T")


def minimize(
    space: Space,
    ledger: Ledger,
    runner: SubprocessRunner,
    remembered: Remembered,
    choice: Choice,
    outcome: Outcome,
    *,
    first: int,
) -> ShrunkFailure:
    """Find the minimal case of a failure, whether it fails each time, and which neighbours pass.

    Args:
        space: what varies.
        ledger: the state of the campaign.
        runner: runs the cases.
        remembered: the choices that shrinking ended with in earlier campaigns.
        choice: the choice whose case fails.
        outcome: the failure.
        first: the number of that case in the campaign.
    """
    check, fingerprint = outcome.check, outcome.fingerprint
    assert fingerprint is not None
    calls = 0
    cut = False

    def run(tried: Choice, checks: Sequence[str]) -> CaseResult:
        spec = space.spec(tried)
        return ledger.tell(spec, runner.run(spec, checks, seconds=ledger.time_limit(outcome)), outcome)

    def fails(tried: Choice, checks: Sequence[str]) -> bool:
        nonlocal calls
        if ledger.stop.is_set() or not space.goes_together(tried):
            return False
        calls += 1
        ledger.count_shrinking()
        try:
            return fingerprint in run(tried, checks).failures
        except Stopped:
            return False

    def still_fails(tried: Choice) -> bool:
        nonlocal cut
        cut = cut or ledger.is_late
        return not cut and fails(tried, checks)

    def neighbours() -> Iterator[PassingNeighbour]:
        """Run the cases in which one field is the plainest instead, and yield those that pass."""
        for place, one in enumerate(space.fields):
            if not smallest[place] or ledger.stop.is_set():
                continue
            other = (*smallest[:place], 0, *smallest[place + 1 :])
            if not space.goes_together(other):
                continue
            outcomes = run(other, checks).outcomes
            if fingerprint not in {found.fingerprint for found in outcomes}:
                verdict = next((found.verdict for found in outcomes if found.check == check), None)
                yield PassingNeighbour(field=one.name, value=one.values[0], case=space.spec(other).id, verdict=verdict)

    # Most checks fail alone as they do after others; of one that does not, all before it are run too.
    checks: tuple[str, ...] = (check,)
    if ledger.is_late or not fails(choice, checks):
        checks = checks_up_to(runner, check)
    sizes = [len(one.values) for one in space.fields]
    before = remembered.of(fingerprint, sizes)
    smallest = space.without_gaps(_in_own_thread(lambda: minimal(choice, sizes, still_fails, before=before)))
    again = tried = 0
    while tried < AGAIN and not ledger.stop.is_set():
        runner.renew()
        came = fails(smallest, checks)
        if ledger.stop.is_set() and not came:
            break  # it was cut off, which says nothing
        again += came
        tried += 1
    if again == AGAIN and not cut:
        remembered.keep(fingerprint, smallest)
    return ShrunkFailure(
        fingerprint=fingerprint,
        check=check,
        case=space.spec(smallest).id,
        differs=space.differing(smallest),
        first=first,
        calls=calls,
        again=(again, tried),
        neighbours=() if again < AGAIN or ledger.is_late else tuple(neighbours()),
        cut=cut,
    )


def checks_up_to(runner: SubprocessRunner, check: str) -> tuple[str, ...]:
    """List the ids of the selected checks that run before a check, and its own.

    Args:
        runner: the runner whose checks are meant; it is loaded if it has not started.
        check: the id of the check.

    Returns:
        The ids in the order in which the checks run; the check's own alone if it is not selected.
    """
    selected = [one.id for one in (runner.started or runner.load()).checks]
    return tuple(selected[: selected.index(check) + 1]) if check in selected else (check,)


def _in_own_thread(work: Callable[[], T]) -> T:
    """Run something in a thread of its own: Hypothesis allows no search inside another one of the same thread."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(contextvars.copy_context().run, work).result()
