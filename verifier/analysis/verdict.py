"""The verdict on a whole record: its exit status, the verdicts that gate, and why nothing may rest on it."""

from __future__ import annotations

from collections.abc import Mapping, Set

from verifier.analysis.tallies import count_reasons
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict, area_of
from verifier.record import Record, RunLine
from verifier.record.excusing import apply_known_failures, checks_looking_at_less

# Its checks look at Hugging Face alone, so no verdict on an adapter can rest on them.
_NOT_ABOUT_THE_ADAPTER = "reference"
_MOST_NAMED = 8  # of the shards that are missing


def exit_status(
    valid: Set[str], verdicts: Mapping[tuple[str, str], Verdict], also: Set[Verdict] = frozenset()
) -> ExitStatus:
    """Find the exit status of a run that came to its end; to conform, some check must have looked at the adapter.

    Args:
        valid: the ids of the cases that HF accepts.
        verdicts: the verdicts, by case and check.
        also: the verdicts that gate besides those that always do.

    Returns:
        `INCONCLUSIVE` where no check looked at the adapter on a valid case.
    """
    if any(verdict.gates or verdict in also for verdict in verdicts.values()):
        return ExitStatus.DIFFERS
    has_looked = any(
        case in valid and verdict is not Verdict.SKIP and is_about_adapter(check)
        for (case, check), verdict in verdicts.items()
    )
    return ExitStatus.CONFORMS if has_looked else ExitStatus.INCONCLUSIVE


def gating_verdicts(run: RunLine) -> frozenset[Verdict]:
    """Find the verdicts that gate in a run besides those that always do, because its `--gate` names them."""
    asked = run.asked.get("gate")
    return frozenset(verdict for verdict in Verdict if isinstance(asked, list) and verdict in asked)


def is_about_adapter(check: str) -> bool:
    """Whether a check looks at the adapter, and not at Hugging Face alone.

    Args:
        check: its id.
    """
    return area_of(check) != _NOT_ABOUT_THE_ADAPTER


def describe_missing_shards(record: Record) -> str | None:
    """Name the shards that a record lacks: `shards 2/4 and 3/4 are missing`; None where it lacks none."""
    names = record.missing
    if not names:
        return None
    if len(names) == 1:
        return f"shard {names[0]} is missing"
    few = names if len(names) <= _MOST_NAMED else (*names[: _MOST_NAMED - 1], f"{len(names) - _MOST_NAMED + 1} more")
    return f"shards {', '.join(few[:-1])} and {few[-1]} are missing"


def explain_inconclusive(record: Record) -> str:
    """Say in a clause why no verdict can rest on what ran."""
    if record.missing:
        return describe_missing_shards(record) or ""
    if record.contradicts_itself:
        return "the record is not as it was written"
    if not any(spec.valid for spec in record.cases.values()):
        return "no valid case was selected"
    reasons = count_reasons(
        entry.outcome
        for entry in record.entries
        if record.cases[entry.case].valid and is_about_adapter(entry.outcome.check)
    )
    commonest = reasons[0].text if reasons else "none was selected for a valid case"
    return f"no check that looks at the adapter ran: {commonest}"


def find_exit_status(record: Record) -> ExitStatus:
    """Find the exit status that a record stands for, also where its run was interrupted or broken off."""
    if record.end is None or record.end.stop == "interrupted":
        return ExitStatus.INTERRUPTED
    return ExitStatus.BROKEN if record.end.stop == "broken" else conclude_status(record)


def conclude_status(record: Record) -> ExitStatus:
    """Find the exit status that a record stands for if nothing more is added to it."""
    record = apply_known_failures(record)
    valid = {spec.id for spec in record.cases.values() if spec.valid}
    verdicts = {(entry.case, entry.outcome.check): entry.outcome.verdict for entry in record.entries}
    found = exit_status(valid, verdicts, gating_verdicts(record.run))
    if any(one.state.gates for one in (record.held.settled if record.held else ())):
        return ExitStatus.DIFFERS
    # What is no longer there, or no longer looked at, may be what failed.
    hollow = found is ExitStatus.CONFORMS and (
        record.contradicts_itself or record.missing or checks_looking_at_less(record)
    )
    return ExitStatus.INCONCLUSIVE if hollow else found
