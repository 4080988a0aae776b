"""Everything that a report says of one record, computed once: all renderers work from this view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.analysis.causes import Cause, find_causes
from verifier.analysis.check_summaries import CheckSummary, summarize_checks
from verifier.analysis.circumstance_coverage import CircumstanceCoverage, measure_circumstance_coverage
from verifier.analysis.combinations import Combinations, list_combinations
from verifier.analysis.coverage import ConfigCoverage, measure_coverage
from verifier.analysis.error_ratios import ErrorSpread, measure_error_spreads
from verifier.analysis.selftest import SelfTest
from verifier.analysis.summary import Summary, summarize
from verifier.analysis.timing import Timing, measure_timing
from verifier.record import Record
from verifier.record.excusing import apply_known_failures


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordView:
    """Everything that a report says of one record.

    Attributes:
        summary: its verdict, matrix and bugs, and what did not run.
        causes: the bugs, put together by what explains them.
        combinations: every case, and what each area said of it.
        spreads: how near to their bounds the errors of each check were.
        space: what of the config space was exercised.
        circumstances: what of the circumstances was looked at; None where the record has none.
        timing: where the time went.
        record: the record, with the verdict `known` on what its baseline excuses.
        checks: how each check fared.
        selftest: what a self-test of the family found, as `verifier selftest --json` wrote it; None if none was given.
    """

    summary: Summary
    causes: tuple[Cause, ...]
    combinations: Combinations
    spreads: tuple[ErrorSpread, ...]
    space: ConfigCoverage
    circumstances: CircumstanceCoverage | None
    timing: Timing
    record: Record
    checks: tuple[CheckSummary, ...]
    selftest: SelfTest | None = None


def view_record(record: Record, selftests: Sequence[SelfTest] = ()) -> RecordView:
    """View a record, with the self-test of its family and adapter, or else of its family, if one is given.

    Args:
        record: what was run.
        selftests: the self-tests at hand, of whatever families and adapters.
    """
    record = apply_known_failures(record)
    summary = summarize(record)
    run = record.run
    of_family = [one for one in selftests if one.family == run.family]
    of_adapter = [one for one in of_family if one.adapter == run.adapter]
    return RecordView(
        summary=summary,
        causes=find_causes(summary.bugs),
        combinations=list_combinations(record, summary),
        spreads=measure_error_spreads(record),
        space=measure_coverage(record),
        circumstances=measure_circumstance_coverage(record),
        timing=measure_timing(record),
        record=record,
        checks=summarize_checks(record, summary),
        selftest=next(iter([*of_adapter, *of_family]), None),
    )
