"""What became of failures between two records in words, the same for terminal and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from verifier.analysis.case_changes import Side
from verifier.analysis.changes import Change, Changes, Kind
from verifier.analysis.summary import Tally
from verifier.errors import ExitStatus
from verifier.judging import wording
from verifier.output import text

MOST_NAMES = 4

STATUS_WORDS: Mapping[ExitStatus, str] = {
    ExitStatus.CONFORMS: "NOTHING BROKEN",
    ExitStatus.DIFFERS: "BROKEN",
    ExitStatus.INCONCLUSIVE: "INCONCLUSIVE",
}
TITLES: Mapping[Kind, str] = {
    Kind.BROKEN: "Broken",
    Kind.CHANGED: "Fails in another way",
    Kind.MENDED: "Mended",
    Kind.UNCHANGED: "Fails as it did",
    Kind.NEWLY_UPSTREAM: "Newly upstream: Hugging Face disagrees with itself; the adapter is not to blame",
    Kind.NO_LONGER_UPSTREAM: "No longer upstream",
}


def ran(side: Side) -> str:
    """`toy × mine:Adapter (mine 1), 12 cases in reports/toy`."""
    run = side.run
    adapter = text.subject(run.adapter, run.adapter_name, run.adapter_version)
    return f"{text.line(run.family)} × {adapter}, {text.plural(side.cases, 'case')} in {text.line(str(side.place))}"


def different(old: str | None, new: str | None) -> str:
    """`1.0 → 1.1`."""
    return " → ".join("none" if one is None else text.line(one or '""', 160) for one in (old, new))


def before(change: Change) -> str | None:
    """How the check fared before on the case that is shown; None where that goes without saying."""
    entry = change.before
    if entry is None or change.kind not in (Kind.BROKEN, Kind.CHANGED):
        return None
    outcome = entry.outcome
    if not outcome.verdict.is_finding and not change.unseen:
        return None
    said = outcome.where or wording.said(outcome)
    others = len(change.were) - 1
    elsewhere = f" (elsewhere {text.plural(others, 'other failure')})" if others > 0 else ""
    return wording.VERDICT_WORDS[outcome.verdict] + (f": {said}" if said else "") + elsewhere


def cases(change: Change) -> str:
    """`6 cases`, with how many more have it in both, and how many were not looked at before."""
    more = []
    if change.unseen and change.kind is Kind.BROKEN:
        every = len(change.unseen) == len(change.cases)
        more.append("OLD looked at none of them" if every else f"OLD did not look at {len(change.unseen):,} of them")
    if change.stays:
        still = "still fails in" if change.kind is Kind.MENDED else "failed before in"
        more.append(f"{still} {change.stays:,} more")
    return text.plural(len(change.cases), "case") + (f" ({', '.join(more)})" if more else "")


def verdict(changes: Changes) -> str:
    """`BROKEN (2 bugs in 14 cases; 3 outcomes of OLD lost)`."""
    broken = changes.of(Kind.BROKEN)
    said = list(changes.doubts)
    if broken:
        hit = {case for change in broken for case in change.cases}
        said.insert(0, f"{text.plural(len(broken), 'bug')} in {text.plural(len(hit), 'case')}")
    return STATUS_WORDS[changes.status] + (f" ({'; '.join(said)})" if said else "")


def counts(changes: Changes) -> str:
    """What became of how many outcomes, and of how many cases nothing can be said."""
    count = changes.counts
    said = [f"{text.plural(count[Kind.AGREES], 'outcome')} {'passes' if count[Kind.AGREES] == 1 else 'pass'} in both"]
    said += [
        f"{count[kind]:,} {word}"
        for kind, word in (
            (Kind.BROKEN, "broken"),
            (Kind.CHANGED, "changed"),
            (Kind.UNCHANGED, "unchanged"),
            (Kind.MENDED, "mended"),
            (Kind.LOST, "lost"),
            (Kind.GAINED, "newly looked at and passed"),
            (Kind.NEWLY_UPSTREAM, "newly upstream"),
            (Kind.STILL_UPSTREAM, "still upstream"),
            (Kind.NO_LONGER_UPSTREAM, "no longer upstream"),
        )
        if count[kind]
    ]
    return f"{_common(changes)}: {', '.join(said)}"


def _common(changes: Changes) -> str:
    said = [f"{text.plural(changes.common, 'case')} in both"]
    if changes.only_old:
        failing = f" ({text.plural(changes.unseen_failures, 'failure')})" if changes.unseen_failures else ""
        said.append(f"{len(changes.only_old):,} in OLD only{failing}")
    if changes.only_new:
        said.append(f"{len(changes.only_new):,} in NEW only")
    return ", ".join(said)


def names(checks: Sequence[str]) -> str:
    """Some of them, and how many more."""
    shown = ", ".join(text.line(check, 60) for check in checks[:MOST_NAMES])
    left = len(checks) - MOST_NAMES
    return f"{shown} and {left:,} more" if left > 0 else shown


def lost(changes: Changes) -> tuple[Tally, ...]:
    """Why NEW does not look any more, the most frequent reason first."""
    counted: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    checks: dict[str, dict[str, None]] = {}
    for one in changes.lost:
        counted[one.reason] += len(one.cases)
        failed[one.reason] += one.failed
        checks.setdefault(one.reason, {})[one.check] = None
    return tuple(
        Tally(
            text=text.line(reason, 160) + (f"; {failed[reason]:,} failed in OLD" if failed[reason] else ""),
            count=count,
            checks=tuple(checks[reason]),
        )
        for reason, count in sorted(counted.items(), key=lambda one: (-one[1], one[0]))
    )


def notes(changes: Changes) -> tuple[str, ...]:
    """What a reader should know of the two files."""
    said = [f"{name}: {note}" for name, side in (("OLD", changes.old), ("NEW", changes.new)) for note in side.notes]
    if changes.old.unfinished:
        said.append(f"OLD {changes.old.unfinished}: what it did not come to counts as not looked at")
    if changes.old.contradicts_itself:
        said.append("OLD's last line counts other outcomes than it holds: lines are missing, or were changed")
    if reduced := changes.newly_reduced:
        number = text.plural(sum(map(len, reduced.values())), "outcome")
        said.append(f"{number} that agreed now agree to float32 rounding only: {names(tuple(reduced))}")
    return tuple(said)
