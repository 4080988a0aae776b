"""Show what a change broke and mended: in the terminal, as Markdown for a pull request's comment, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from verifier.analysis.changes import STATUS_WORDS, TITLES, ChangeKind, FailureChange, RecordDiff, name_some
from verifier.analysis.run_differences import explain_unfinished
from verifier.checks.superseded import SUPERSEDED
from verifier.judging import wording
from verifier.output import text
from verifier.output.console import show_facts
from verifier.record import Record, RecordedOutcome
from verifier.record.writing import spell_non_finite
from verifier.report import terminal
from verifier.report.markdown import render_sections

SCHEMA = 1
# More is read in the JSON, not in a terminal.
MOST_IN_TERMINAL, MOST_LISTED_IN_TERMINAL, MOST_DIFFERENCES_IN_TERMINAL = 20, 12, 20
# A comment of more than 65,536 characters is refused.
MOST_CHARACTERS = 60_000
MOST_FAILURES, MOST_IN_A_LIST, MOST_DIFFERENCES = 8, 8, 12
_CUT = "… cut here, because a comment may not be longer; `verifier diff OLD NEW --json FILE` has all of it."
_STYLES: Mapping[ChangeKind, str] = {
    ChangeKind.BROKEN: "bold red",
    ChangeKind.CHANGED: "bold yellow",
    ChangeKind.MENDED: "bold green",
    ChangeKind.UNCHANGED: "bold",
    ChangeKind.NEWLY_UPSTREAM: "yellow",
    ChangeKind.NO_LONGER_UPSTREAM: "yellow",
}


def show(changes: RecordDiff, console: Console) -> None:
    """Print how two records differ: the runs first, the verdict last.

    Args:
        changes: how the records differ.
        console: where it is printed.
    """
    _show_runs(changes, console)
    for kind in TITLES:
        if kind is ChangeKind.LOST and changes.lost:
            terminal.show_tallies(
                [
                    (tally.count, f"{text.line(tally.text, 200)} ({name_some(tally.checks)})")
                    for tally in changes.reasons_lost
                ],
                f"{TITLES[kind]}: {text.plural(changes.counts[kind], 'outcome')}",
                console,
                most=MOST_LISTED_IN_TERMINAL,
                elsewhere="which --json has",
            )
        elif changes.of(kind):
            _show_failures(changes, kind, console)
    for note in changes.notes:
        console.print(Text(f"Note: {text.line(note)}", style="yellow"))
    console.print(Text(changes.counted))
    terminal.show_status("OLD → NEW", changes.status, STATUS_WORDS[changes.status], changes.reason, console)


def _show_runs(changes: RecordDiff, console: Console) -> None:
    """Print the two runs, and what they differ in."""
    facts = list(changes.facts.items())
    shown = {text.line(name, 60): fact for name, fact in facts[: 2 + MOST_DIFFERENCES_IN_TERMINAL]}
    if len(facts) > len(shown):
        shown["…"] = f"and {text.plural(len(facts) - len(shown), 'more difference')}"
    shown |= {f"checks in {name} only": name_some(checks) for name, checks in changes.checks_apart.items() if checks}
    show_facts(shown, console, indent=0)
    console.print()


def _show_failures(changes: RecordDiff, kind: ChangeKind, console: Console) -> None:
    """Print failures of one kind: with all that is known if they are news, or else in a line each."""
    in_full = kind in (ChangeKind.BROKEN, ChangeKind.CHANGED, ChangeKind.MENDED)
    most = MOST_IN_TERMINAL if in_full else MOST_LISTED_IN_TERMINAL
    console.print(Text(TITLES[kind], style="bold underline" if in_full else "bold"))
    for number, one in enumerate(changes.of(kind)[:most], start=1):
        outcome = one.entry.outcome
        head = terminal.headline(str(number), outcome, f"{one.share}  ", _STYLES[kind])
        head.append(text.line(one.fingerprint, 40), style="dim")
        if in_full:
            console.print(head)
            show_facts(one.facts, console)
        else:
            place = outcome.where or wording.outcome_message(outcome)
            head.append(f"  {text.line(place, 100)}" if place else "", style="default")
            console.print(head, no_wrap=True, overflow="ellipsis")
    terminal.show_left(len(changes.of(kind)) - most, console, elsewhere="which --json has")
    console.print()


def markdown(changes: RecordDiff) -> str:
    """Write the comment, cut between its parts where it would be too long; the same text for the same records."""
    made = render_sections(
        "diff.md.j2",
        changes=changes,
        titles=TITLES,
        name_some=name_some,
        most_failures=MOST_FAILURES,
        most_in_a_list=MOST_IN_A_LIST,
        most_facts=2 + MOST_DIFFERENCES,
    )
    if len(made) <= MOST_CHARACTERS:
        return made
    kept = made[: MOST_CHARACTERS - len(_CUT) - 3].rpartition("\n\n")[0]
    return f"{kept}\n\n{_CUT}\n"


def as_json(changes: RecordDiff) -> str:
    """Write all that the terminal says, and the id of every case, as one object; the same text for the same records.

    Keys are sorted. Numbers that are not finite are texts, as in a record.
    """
    made = {
        "schema": SCHEMA,
        "exit": int(changes.status),
        "status": STATUS_WORDS[changes.status].lower(),
        "doubts": changes.doubts,
        "family": changes.new.run.family,
        "old": _run(changes.old),
        "new": _run(changes.new),
        "differences": [{"what": what, "old": old, "new": new} for what, (old, new) in changes.differences.items()],
        "checks": {f"only_{name.lower()}": checks for name, checks in changes.checks_apart.items()},
        "cases": {
            "common": len(changes.old.cases.keys() & changes.new.cases.keys()),
            **{f"only_{name.lower()}": cases for name, cases in changes.cases_apart.items()},
            "failures_in_only_old": changes.unseen_failures,
        },
        "counts": {_key(kind): count for kind, count in changes.counts.items()},
        **{_key(kind): [_change(one) for one in changes.of(kind)] for kind in (*TITLES, ChangeKind.STILL_UPSTREAM)},
        "lost": [
            {"check": one.check, "reason": text.line(one.reason), "cases": one.cases, "failed": one.failed}
            for one in changes.lost
        ],
        "superseded": [
            {"check": one.check, "now": SUPERSEDED[one.check], "cases_apart": one.apart, "failed": one.failed}
            for one in changes.superseded
        ],
        "newly_reduced": changes.newly_reduced,
        "notes": [text.line(note) for note in changes.notes],
    }
    return json.dumps(spell_non_finite(made), indent=1, sort_keys=True, allow_nan=False) + "\n"


def _key(kind: ChangeKind) -> str:
    return kind.replace(" ", "_")


def _run(record: Record) -> dict[str, Any]:
    named = ("adapter", "adapter_name", "adapter_version", "versions", "seed", "started")
    return {
        "record": str(record.location),
        **{name: getattr(record.run, name) for name in named},
        "cases": len(record.cases),
        "unfinished": explain_unfinished(record),
        "contradicts_itself": record.contradicts_itself,
    }


def _change(one: FailureChange) -> dict[str, Any]:
    rule = one.rule
    return {
        "check": one.entry.outcome.check,
        "fingerprint": one.fingerprint,
        "failure": _entry(one.entry),
        "before": _entry(one.before),
        "fingerprints_before": one.were,
        "smallest": {"case": one.smallest.id, "differs": one.differs, "config": one.smallest.config},
        "cases": one.cases,
        "not_looked_at_before": one.unseen,
        "stays_in": one.stays,
        "rule": None if rule is None else {"text": rule.text, "exact": rule.exact, "support": one.support},
        "explanation": one.explanation,
        "reproduce": one.reproduce,
    }


def _entry(entry: RecordedOutcome | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    outcome = entry.outcome
    return {
        "verdict": str(outcome.verdict),
        "fingerprint": entry.fingerprint,
        "where": outcome.where,
        "measured": outcome.measured,
        "bound": outcome.bound,
        "said": text.line(wording.outcome_message(outcome)) or None,
        "in": outcome.site,
    }
