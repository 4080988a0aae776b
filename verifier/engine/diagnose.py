"""Each distinct failure of a record is diagnosed on its smallest case, once the run is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from verifier.engine.events import Event, EvidenceReady, LadderReady, RunFinished, Stop
from verifier.engine.plan import Plan
from verifier.judging.outcome import Outcome, Verdict
from verifier.record import Record, RecordedOutcome, Writer

# Nobody reads more distinct failures than these, the most frequent ones; diagnosing one costs about what its case did.
MOST = 100
# A case that killed its process would kill it again. A known failure was diagnosed when it was accepted.
_NOT_DIAGNOSED = (Verdict.CRASH, Verdict.TIMEOUT, Verdict.KNOWN)


def diagnose_failures(
    seen: Record, writer: Writer, plan: Plan, run: Callable[[Plan], Iterator[Event]], announce: Callable[[int], None]
) -> tuple[Stop, float]:
    """Diagnose the smallest case of each distinct failure, and write the evidence into the record.

    Args:
        seen: the record as it is read.
        writer: of the same record.
        plan: what was run.
        run: runs a plan.
        announce: receives the number of cases that are diagnosed, if there are any.

    Returns:
        Why the diagnosis stopped, and how many seconds it took.
    """
    wanted = checks_to_diagnose(seen)
    if not wanted:
        return Stop.COMPLETE, 0.0
    announce(len(wanted))
    specs = tuple(seen.cases[case] for case in wanted)
    told: dict[str, dict[str, Outcome]] = {case: {} for case in wanted}
    for entry in seen.entries:
        if entry.outcome.check in wanted.get(entry.case, ()):
            told[entry.case][entry.outcome.check] = entry.outcome
    for event in run(replace(plan, specs=specs, wanted=wanted, diagnose=True, known={}, told=told)):
        match event:
            case EvidenceReady(evidence=found) | LadderReady(evidence=found):
                writer.evidence(found)
            case RunFinished(stop=stop, seconds=seconds):
                return stop, seconds
    raise AssertionError("a run ends with its last event")


def checks_to_diagnose(seen: Record) -> dict[str, tuple[str, ...]]:
    """Select the failing checks that the record has no evidence of, by the id of the smallest case of each failure."""
    from verifier.analysis.bugs import minimal_case

    failing: dict[str, list[RecordedOutcome]] = {}
    for entry in seen.entries:
        if entry.fingerprint is not None and entry.outcome.verdict not in _NOT_DIAGNOSED:
            failing.setdefault(entry.fingerprint, []).append(entry)
    counts = Counter({fingerprint: len(entries) for fingerprint, entries in sorted(failing.items())})
    by_case: dict[str, list[str]] = {}
    for fingerprint, _ in counts.most_common(MOST):
        spec = minimal_case(seen, fingerprint, {entry.case for entry in failing[fingerprint]})
        if (fingerprint, spec.id) not in seen.evidence:
            by_case.setdefault(spec.id, []).append(failing[fingerprint][0].outcome.check)
    return {case: tuple(checks) for case, checks in sorted(by_case.items())}
