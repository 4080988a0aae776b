"""Merge records of one adapter into one: the shards of a run, or campaigns with different seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from verifier.errors import ExitStatus, UsageError
from verifier.judging.row_summary import RowSummary
from verifier.record.known_failure import BaselineState, EntryState, Settled
from verifier.record.lines import EndLine, Record, RecordedOutcome, RunLine

# What must be the same of records that are made one.
_SAME = ("family", "adapter", "adapter_name", "adapter_version", "versions", "flags", "dims")
_WORST_FIRST = (
    ExitStatus.INTERRUPTED,
    ExitStatus.BROKEN,
    ExitStatus.USAGE,
    ExitStatus.DIFFERS,
    ExitStatus.INCONCLUSIVE,
    ExitStatus.CONFORMS,
)

_WORST_STATE_FIRST = (
    EntryState.CHANGED,
    EntryState.FIXED,
    EntryState.EXPIRED,
    EntryState.KNOWN,
    EntryState.NOT_RUN,
)


def merge_records(records: Sequence[Record]) -> Record:
    """Merge records: each case once, with every check that any of them ran on it.

    Where two say different things of one case and check, the failure counts.

    Raises:
        UsageError: they are not of the same family, adapter and versions.
    """
    for other in records[1:]:
        _require_same(records[0], other)
    cases = len({case for record in records for case in record.cases})
    return combine_records(records, _run(records, cases), word="merged")


def combine_records(records: Sequence[Record], run: RunLine, *, word: str) -> Record:
    """Make one record of what several hold.

    Args:
        records: of the same thing.
        run: its first line.
        word: what was done to them, for people.

    Raises:
        UsageError: they were held against different baselines.
    """
    first, places = records[0], [str(record.path) for record in records]
    entries: dict[tuple[str, str], RecordedOutcome] = {}
    for entry in (entry for record in records for entry in record.entries):
        key = entry.case, entry.outcome.check
        if key not in entries or not entries[key].outcome.verdict.gates:
            entries[key] = entry
    rows: dict[Hashable, RowSummary] = {}
    for row in (row for record in records for row in record.rows):
        if row.key not in rows or not rows[row.key].gates:
            rows[row.key] = row
    cases = {case: spec for record in records for case, spec in record.cases.items()}
    return replace(
        first,
        run=run,
        cases=cases,
        entries=tuple(entries.values()),
        rows=tuple(rows.values()),
        schema=min(record.schema for record in records),
        done={case: seconds for record in records for case, seconds in record.done.items()},
        lost=tuple(lost for record in records for lost in record.lost),
        resumed=sum(record.resumed for record in records),
        evidence={key: found for record in records for key, found in record.evidence.items()},
        ladders={case: ladder for record in records for case, ladder in record.ladders.items()},
        confirmations={key: found for record in records for key, found in record.confirmations.items()},
        found={name: found for record in reversed(records) for name, found in record.found.items()},
        held=_held(records),
        end=_end(records, entries.values()),
        contradicts_itself=any(record.contradicts_itself for record in records),
        origins=_origins(records),
        missing=tuple(missing for record in records for missing in record.missing),
        notes=(
            *dict.fromkeys(note for record in records for note in record.notes),
            *([f"{word} of {len(records)} records: {', '.join(places)}"] if len(records) > 1 else []),
        ),
    )


def _origins(records: Sequence[Record]) -> dict[str, Path]:
    """Find the record of each case: the first in which it fails, or else the first that has it."""
    places: dict[str, Path] = {}
    failing: dict[str, Path] = {}
    for record in reversed(records):
        places |= {case: record.origins.get(case, record.path) for case in record.cases}
        failed = {entry.case for entry in record.entries if entry.outcome.verdict.is_finding}
        failing |= {case: places[case] for case in failed}
    return {**places, **failing}


def _require_same(first: Record, other: Record) -> None:
    """Make sure that two records are of the same adapter, versions and config space."""
    for name in _SAME:
        one, two = getattr(first.run, name), getattr(other.run, name)
        if one != two:
            raise UsageError(
                f"{str(other.path)!r} cannot be merged with {str(first.path)!r}: their {name.replace('_', ' ')} "
                f"differ; without --merge they stand side by side"
            )


def _run(records: Sequence[Record], cases: int) -> RunLine:
    """Make the first line of merged records; it says how many were planned, and names their seeds if these differ."""
    runs = [record.run for record in records]
    unrun = sum(max(0, sum(record.run.planned.values()) - len(record.cases)) for record in records)
    checks: dict[str, Any] = {check["id"]: check for run in runs for check in run.checks}
    seeds = sorted({run.seed for run in runs})
    asked = {**runs[0].asked, "merged": len(records)}
    return replace(
        runs[0],
        checks=list(checks.values()),
        planned={"valid": cases + unrun, "refused": 0},
        asked=asked if len(seeds) == 1 else {**asked, "seeds": seeds},
        workers=sum(run.workers for run in runs),
    )


def _held(records: Sequence[Record]) -> BaselineState | None:
    """Merge what became of the known failures: of each entry the worst counts."""
    held = [record.held for record in records if record.held is not None]
    if not held:
        return None
    if len(held) < len(records) or any((one.path, one.ran) != (held[0].path, held[0].ran) for one in held):
        raise UsageError("records that were not all held against the same baseline cannot be merged")
    settled: dict[str, Settled] = {}
    for one in (one for state in held for one in state.settled):
        before = settled.get(one.failure.fingerprint)
        if before is None or _WORST_STATE_FIRST.index(one.state) < _WORST_STATE_FIRST.index(before.state):
            settled[one.failure.fingerprint] = one
    return replace(held[0], settled=tuple(settled.values()))


def _end(records: Sequence[Record], entries: Any) -> EndLine | None:
    """Merge the last lines: the worst end counts; None if one run was cut off."""
    ends = [record.end for record in records if record.end is not None]
    if len(ends) < len(records):
        return None
    worst = min(ends, key=lambda end: _WORST_FIRST.index(end.exit))
    counts = Counter(str(entry.outcome.verdict) for entry in entries)
    return EndLine(
        counts=dict(sorted(counts.items())),
        exit=worst.exit,
        stop=next((end.stop for end in ends if end.stop != "complete"), worst.stop),
        seconds=max(end.seconds for end in ends),
    )
