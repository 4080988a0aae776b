"""Make a baseline of a record: each failure with its rule, its smallest case, and room for a reason."""

from __future__ import annotations

from collections.abc import Sequence

from verifier.analysis.bugs import Bug, find_bugs
from verifier.analysis.rules import explain
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.judging.outcome import Verdict
from verifier.record import Record
from verifier.record.case_description import LAST_NAMED, NO_SIZES, describe_case
from verifier.record.excusing import count_cases_looked_at, name_case, rule_holds
from verifier.record.known_failure import EVERY_CASE, Baseline, KnownFailure, narrowing

# Options that run cases which are no combinations of the flags: a rule would say more than was looked at.
_NAMED = ("preset", "checkpoint", "cases", "where", "fuzz", "items")


def make_baseline(record: Record, path: str) -> Baseline:
    """Make the baseline that accepts every failure of the record, and nothing else.

    Args:
        record: of a run that came to its end.
        path: where it will be written.

    Raises:
        UsageError: the record is not whole, so that it does not say what fails.
    """
    if record.end is None or record.end.stop != "complete":
        raise UsageError(f"{str(record.path)!r} is not of a run that came to its end: `verifier run --resume` ends it")
    if record.contradicts_itself:
        raise UsageError(f"{str(record.path)!r} holds other outcomes than its last line counts: run it again")
    run = record.run
    if "shard" in run.asked:
        raise UsageError(
            f"{str(record.path)!r} is shard {run.asked['shard']} alone: name the records of all of them, "
            f"`verifier baseline RECORD RECORD …`"
        )
    wide = not any(run.asked.get(name) for name in _NAMED)
    return Baseline(
        path=path,
        digest="",
        family=run.family,
        adapter=run.adapter,
        asked=narrowing(run.asked),
        ran=count_cases_looked_at(record),
        failures=tuple(_accept(one, record, wide) for one in find_bugs(record, upstream=False)),
    )


def _accept(one: Bug, record: Record, wide: bool) -> KnownFailure:
    """Make the entry that accepts a bug; it has a rule only where the record is wide enough for one."""
    check = one.entry.outcome.check
    failing = [record.cases[case] for case in one.cases]
    others = [
        record.cases[entry.case]
        for entry in record.entries
        if entry.outcome.check == check and entry.outcome.verdict is not Verdict.SKIP and entry.case not in one.cases
    ]
    rule = _find_rule(failing, others, record) if wide else ""

    def by_name(specs: Sequence[CaseSpec], within: bool) -> tuple[str, ...]:
        flags = record.run.flags
        chosen = (spec for spec in specs if rule_holds(rule, spec, flags) is within)
        return tuple(sorted({name_case(spec, record.run) for spec in chosen}))

    return KnownFailure(
        fingerprint=one.fingerprint,
        check=check,
        rule=rule,
        also=by_name(failing, within=False),
        excepted=by_name(others, within=True),
        spec=one.smallest,
    )


def _find_rule(failing: Sequence[CaseSpec], others: Sequence[CaseSpec], record: Record) -> str:
    """Find the rule that tells failing cases from all others that the check looked at.

    Those on which it fails in another way are among the others: a report's rule says nothing of them, but a failure
    like this one would be new there.
    """
    if not others:
        return EVERY_CASE
    described = ([describe_case(spec) for spec in specs] for specs in (failing, others))
    rule = explain(*described, flags=record.run.flags, no_sizes=NO_SIZES, last=LAST_NAMED)
    return "" if rule is None else rule.text
