"""Run the case of each known failure again before a run, and see whether it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from verifier.cases.spec import CaseSpec
from verifier.checks import is_selected
from verifier.engine.events import Event, OutcomeReady, RunFinished, RunStarted, Stop
from verifier.engine.plan import Plan
from verifier.judging.outcome import Outcome, Verdict
from verifier.judging.wording import outcome_message
from verifier.record.known_failure import Baseline, EntryState, KnownFailure, Settled


def replay(
    baseline: Baseline,
    plan: Plan,
    run: Callable[[Plan], Iterator[Event]],
    refusal: Callable[[Mapping[str, Any]], str | None],
    today: date,
) -> tuple[tuple[Settled, ...], Stop]:
    """Run the case of each entry again; return what became of each, and why that stopped.

    Args:
        baseline: the entries.
        plan: of the run that follows: its adapter, checks, device and limits are those of the replay too.
        run: runs a plan.
        refusal: says why Hugging Face refuses a config; None where it accepts it.
        today: the day on which entries may have expired.
    """
    specs: dict[str, CaseSpec] = {}
    wanted: dict[str, list[str]] = {}
    case_of: dict[str, str] = {}
    for failure in baseline.failures:
        spec = replace(failure.spec.accepted_by(refusal), device=plan.device)
        specs[spec.id] = spec
        case_of[failure.fingerprint] = spec.id
        wanted.setdefault(spec.id, []).append(failure.check)
    outcomes: dict[tuple[str, str], Outcome] = {}
    selected: set[str] = set()
    stop = Stop.COMPLETE
    if specs:
        # A check that was not selected may report all the same, where one that was rests on it: a failed build. Whether
        # it does is seen where all that were selected run on its case.
        alone = {case: tuple(ids) for case, ids in wanted.items() if all(is_selected(one, plan.only) for one in ids)}
        again = replace(plan, specs=tuple(specs.values()), wanted=alone)
        for event in run(again):
            match event:
                case RunStarted(checks=checks):
                    selected = {check.id for check in checks}
                case OutcomeReady(case=case, outcome=outcome):
                    outcomes[case, outcome.check] = outcome
                case RunFinished(stop=stop):
                    pass
    settled = [
        settle(one, outcomes.get((case_of[one.fingerprint], one.check)), one.check in selected, today)
        for one in baseline.failures
        if stop is Stop.COMPLETE
    ]
    return tuple(settled), stop


def settle(failure: KnownFailure, outcome: Outcome | None, selected: bool, today: date) -> Settled:
    """Compare a known failure with what its check says of its case today.

    Args:
        failure: the entry.
        outcome: what its check said on its case now; None where it did not run there.
        selected: whether the check is one of those that are run.
        today: the day on which the entry may have expired.
    """
    state = EntryState.FIXED
    message: str | None = None
    if outcome is None and not selected:
        state = EntryState.NOT_RUN
    elif outcome is None:
        state, message = EntryState.CHANGED, f"{failure.check} does not look at its case any more"
    elif outcome.fingerprint == failure.fingerprint:
        state = EntryState.KNOWN
        if failure.expires is not None and failure.expires < today:
            state, message = EntryState.EXPIRED, f"it was accepted until {failure.expires}"
    elif outcome.verdict.gates or outcome.verdict is Verdict.SKIP:
        reason = outcome_message(outcome) or "no reason given"
        state, message = EntryState.CHANGED, f"{outcome.verdict.word}: {reason}"
    return Settled(failure=failure, state=state, message=message)
