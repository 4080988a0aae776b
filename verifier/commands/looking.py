"""Which failures are looked at closely once a run is over: each on its smallest case."""

from __future__ import annotations

from collections import Counter

from verifier.outcome import Verdict
from verifier.record import Entry, Record

# Of more distinct failures than anyone reads the most frequent ones; each costs about what its case did.
MOST = 100
# Its process would die again.
_DEADLY = (Verdict.CRASH, Verdict.TIMEOUT)


def wanted(record: Record) -> dict[str, tuple[str, ...]]:
    """The checks that are to be looked at, by case; those that the record has evidence of are left out."""
    from verifier.report.findings import smallest

    failing: dict[str, list[Entry]] = {}
    for entry in record.entries:
        if entry.fingerprint is not None and entry.outcome.verdict not in _DEADLY:
            failing.setdefault(entry.fingerprint, []).append(entry)
    counts = Counter({fingerprint: len(entries) for fingerprint, entries in sorted(failing.items())})
    found: dict[str, list[str]] = {}
    for fingerprint, _ in counts.most_common(MOST):
        spec = smallest((record.cases[entry.case] for entry in failing[fingerprint]), record.run)
        if (fingerprint, spec.id) not in record.evidence:
            found.setdefault(spec.id, []).append(failing[fingerprint][0].outcome.check)
    return {case: tuple(checks) for case, checks in sorted(found.items())}
