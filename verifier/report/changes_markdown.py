"""What a change broke and mended, as Markdown for a pull request's comment: short, and never longer than one may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verifier.analysis.changes import Change, Changes, Kind
from verifier.judging import wording
from verifier.output import text
from verifier.report import changes_words as words
from verifier.report.bugreport import code, escaped

# A comment of more than 65,536 characters is refused.
MOST_CHARACTERS = 60_000
MOST_FAILURES, MOST_IN_A_LIST, MOST_DIFFERENCES = 8, 8, 12
_LIMIT = 200  # of a text from a record
_CUT = "… cut here, because a comment may not be longer; `verifier diff OLD NEW --json FILE` has all of it."


def render(changes: Changes) -> str:
    """The comment; the same text for the same records."""
    parts = [
        f"## {escaped(changes.new.run.family)}: {escaped(words.verdict(changes))}",
        escaped(words.counts(changes), 1_000),
        _header(changes),
        *_in_full(changes.of(Kind.BROKEN), Kind.BROKEN),
        *_in_full(changes.of(Kind.CHANGED), Kind.CHANGED),
        _listed(changes.of(Kind.MENDED), Kind.MENDED),
        _lost(changes),
        *(_listed(changes.of(kind), kind) for kind in (Kind.NEWLY_UPSTREAM, Kind.NO_LONGER_UPSTREAM, Kind.UNCHANGED)),
        *(f"Note: {escaped(note)}" for note in words.notes(changes)[:MOST_IN_A_LIST]),
    ]
    return "\n\n".join(_as_many_as_fit(part for part in parts if part)) + "\n"


def _as_many_as_fit(parts: Iterable[str]) -> list[str]:
    kept: list[str] = []
    left = MOST_CHARACTERS - len(_CUT) - 2
    for part in parts:
        left -= len(part) + 2
        if left < 0:
            return [*kept, _CUT]
        kept.append(part)
    return kept


def _header(changes: Changes) -> str:
    lines = [f"- OLD: {escaped(words.ran(changes.old))}", f"- NEW: {escaped(words.ran(changes.new))}"]
    lines += [
        f"- {escaped(one.what, 60)}: {code(words.different(one.old, one.new))}"
        for one in changes.differences[:MOST_DIFFERENCES]
    ]
    left = len(changes.differences) - MOST_DIFFERENCES
    lines += [f"- and {text.plural(left, 'more difference')}"] if left > 0 else []
    for name, checks in (("OLD", changes.only_old_checks), ("NEW", changes.only_new_checks)):
        if checks:
            lines.append(f"- {text.plural(len(checks), 'check')} in {name} only: {code(words.names(checks))}")
    return "\n".join(lines)


def _in_full(failures: Sequence[Change], kind: Kind) -> Iterable[str]:
    if not failures:
        return
    yield f"### {words.TITLES[kind]}"
    for one in failures[:MOST_FAILURES]:
        outcome, before = one.entry.outcome, words.before(one)
        facts = {
            "where": _code(outcome.where),
            "measured": wording.against_bound(outcome),
            "said": escaped(wording.said(outcome), _LIMIT),
            "in": _code(outcome.site),
            "before": escaped(before, _LIMIT),
            "rule": _explained(one),
            "smallest": _code(text.config(one.differs) or "the plainest config"),
            "reproduce": code(one.reproduce),
        }
        yield "\n".join([_title(one), "", *(f"- {name}: {value}" for name, value in facts.items() if value)])
    if len(failures) > MOST_FAILURES:
        yield f"… and {len(failures) - MOST_FAILURES:,} more"


def _listed(failures: Sequence[Change], kind: Kind) -> str:
    """A line each."""
    if not failures:
        return ""
    lines = []
    for one in failures[:MOST_IN_A_LIST]:
        told = _explained(one) or _code(one.entry.outcome.where) or escaped(wording.said(one.entry.outcome), _LIMIT)
        lines.append(f"- {_title(one)}" + (f": {told}" if told else ""))
    left = len(failures) - MOST_IN_A_LIST
    return "\n".join([f"### {words.TITLES[kind]}", "", *lines, *([f"- … and {left:,} more"] if left > 0 else [])])


def _title(one: Change) -> str:
    outcome = one.entry.outcome
    return (
        f"**{escaped(outcome.check, 100)}** {wording.VERDICT_WORDS[outcome.verdict]}, {words.cases(one)}, "
        f"{code(one.fingerprint)}"
    )


def _explained(one: Change) -> str | None:
    if one.rule is None:
        return escaped(one.explanation) if one.explanation else None
    nearly = "" if one.rule.exact else "nearly "
    return f"{nearly}{code(one.rule.text)} ({one.support})"


def _lost(changes: Changes) -> str:
    tallies = words.lost(changes)
    if not tallies:
        return ""
    lines = [
        f"- {tally.count:,}: {escaped(tally.text, _LIMIT)} ({code(words.names(tally.checks))})"
        for tally in tallies[:MOST_IN_A_LIST]
    ]
    left = len(tallies) - MOST_IN_A_LIST
    lines += [f"- … and {text.plural(left, 'more reason')}"] if left > 0 else []
    return "\n".join(["### Lost, because nothing looks there any more", "", *lines])


def _code(one: str | None) -> str | None:
    return code(text.line(one, _LIMIT)) if one else None
