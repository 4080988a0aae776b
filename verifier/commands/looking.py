"""Which failures are looked at closely once a run is over, each on its smallest case, and the looking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from verifier import record
from verifier.engine.events import Event, EvidenceReady, RunFinished, Stop
from verifier.engine.plan import Plan
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict
from verifier.record import Entry, Record, Writer

# Of more distinct failures than anyone reads the most frequent ones; each costs about what its case did.
MOST = 100
# Its process would die again; what is excused was looked at when that was decided.
_NOT_LOOKED_AT = (Verdict.CRASH, Verdict.TIMEOUT, Verdict.KNOWN)


def finish(
    writer: Writer,
    plan: Plan,
    run: Callable[[Plan], Iterator[Event]] | None,
    announce: Callable[[int], None],
    *,
    stop: Stop,
    seconds: float,
) -> None:
    """Write the end of a record: if all came to its end, a closer look at each failure first, and then the last line.

    Args:
        writer: of the record.
        plan: what was run.
        run: runs a plan; None where nothing can be looked at.
        announce: is told how many cases are looked at, if any.
        stop: why what was run ended.
        seconds: how long it took.
    """
    from verifier.analysis.summary import concluded
    from verifier.record.excusing import judged

    status = ExitStatus.INTERRUPTED
    if stop is Stop.COMPLETE:
        seen = judged(record.read(writer.path))
        if run is not None:
            stop, more = _look(seen, writer, plan, run, announce)
            seconds += more
        if stop is Stop.COMPLETE:
            status = concluded(seen)
    writer.end(status=status, stop=stop, seconds=seconds)


def _look(
    seen: Record, writer: Writer, plan: Plan, run: Callable[[Plan], Iterator[Event]], announce: Callable[[int], None]
) -> tuple[Stop, float]:
    """Look closely at the smallest case of each failure; why it stopped, and how many seconds it took."""
    wanted_here = wanted(seen)
    if not wanted_here:
        return Stop.COMPLETE, 0.0
    announce(len(wanted_here))
    specs = tuple(seen.cases[case] for case in wanted_here)
    for event in run(replace(plan, specs=specs, wanted=wanted_here, look=True, known={})):
        match event:
            case EvidenceReady(evidence=found):
                writer.evidence(found)
            case RunFinished(stop=stop, seconds=seconds):
                return stop, seconds
    raise AssertionError("a run ends with its last event")


def wanted(seen: Record) -> dict[str, tuple[str, ...]]:
    """The checks that are to be looked at, by case; those that the record has evidence of are left out."""
    from verifier.analysis.bugs import minimal_case

    failing: dict[str, list[Entry]] = {}
    for entry in seen.entries:
        if entry.fingerprint is not None and entry.outcome.verdict not in _NOT_LOOKED_AT:
            failing.setdefault(entry.fingerprint, []).append(entry)
    counts = Counter({fingerprint: len(entries) for fingerprint, entries in sorted(failing.items())})
    found: dict[str, list[str]] = {}
    for fingerprint, _ in counts.most_common(MOST):
        spec = minimal_case(seen, fingerprint, {entry.case for entry in failing[fingerprint]})
        if (fingerprint, spec.id) not in seen.evidence:
            found.setdefault(spec.id, []).append(failing[fingerprint][0].outcome.check)
    return {case: tuple(checks) for case, checks in sorted(found.items())}
