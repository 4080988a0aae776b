"""Everything that a report says of one record, computed once: pages and Markdown are made of this alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.analysis.causes import Cause, causes
from verifier.analysis.checked import Checked, checked
from verifier.analysis.combinations import Combinations, combinations
from verifier.analysis.coverage import ConfigCoverage, measure_coverage
from verifier.analysis.parity import Spread, spreads
from verifier.analysis.selftest import SelfTest
from verifier.analysis.summary import Summary, summarise
from verifier.analysis.timing import Timing, timing
from verifier.record import Record
from verifier.record.excusing import judged


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordView:
    """One record.

    Attributes:
        summary: verdict, condensed matrix, findings, what did not run.
        causes: the findings by what explains them.
        combinations: every case, and what each area said of it.
        spreads: how near to the bounds errors were.
        space: what of the config space was exercised.
        timing: where the time went.
        record: with the verdict `known` on what is excused.
        checks: how each check fared.
        selftest: what a self-test of the family found, as `verifier selftest --json` wrote it; None where none was
            given.
    """

    summary: Summary
    causes: tuple[Cause, ...]
    combinations: Combinations
    spreads: tuple[Spread, ...]
    space: ConfigCoverage
    timing: Timing
    record: Record
    checks: tuple[Checked, ...]
    selftest: SelfTest | None = None


def view_record(record: Record, selftests: Sequence[SelfTest] = ()) -> RecordView:
    """Everything about a record; of several self-tests that of its family and adapter, or of its family."""
    record = judged(record)
    summary = summarise(record)
    run = record.run
    mine = [one for one in selftests if one.family == run.family]
    exact = [one for one in mine if one.adapter == run.adapter]
    return RecordView(
        summary=summary,
        causes=causes(summary.findings),
        combinations=combinations(record, summary),
        spreads=spreads(record),
        space=measure_coverage(record),
        timing=timing(record),
        record=record,
        checks=checked(record, summary),
        selftest=next(iter([*exact, *mine]), None),
    )
