"""The report as Markdown, for a pull request or a job's summary: the page's content without its pictures.

A job's summary is dropped whole where it is larger than a mebibyte, so what is long is cut, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from verifier.analysis.bugs import Bug
from verifier.analysis.causes import Cause
from verifier.analysis.rows import Cell, Row
from verifier.analysis.side_by_side import SideBySide, names, side_by_side
from verifier.analysis.summary import Summary, Tally
from verifier.analysis.view import RecordView
from verifier.judging import wording
from verifier.output import text
from verifier.record.fuzz_finding import passing
from verifier.report import terminal
from verifier.report.bugreport import code, escaped, fenced

MOST_BYTES = 1_000_000
MOST_ROWS, MOST_FINDINGS, MOST_TALLIES, MOST_CAUSES = 60, 50, 12, 25
_SPARE = 100  # to close what is open where it is cut
_CUT = "\n\n… cut here, because a job's summary may not be longer; the HTML report has all of it.\n"


def render(views: Sequence[RecordView], most: int | None = None) -> str:
    """One record or several; the same text for the same records.

    Args:
        views: of the records.
        most: how many bytes it may have, where that is fewer than a job's summary may.
    """
    most = MOST_BYTES if most is None else most
    parts = []
    beside = side_by_side(views)
    if beside is not None:
        parts.append(_together(beside, views))
    parts += [_record(one, name) for one, name in zip(views, names(views), strict=True)]
    made = "\n\n".join(parts).rstrip() + "\n"
    if len(made.encode()) <= most:
        return made
    kept = made.encode()[: most - len(_CUT.encode()) - _SPARE].decode(errors="ignore")
    kept = kept.rpartition("\n")[0]
    open_ = kept.count("<details>") - kept.count("</details>")
    return kept + "\n\n</details>" * open_ + _CUT  # a line that is cut in two might leave a table or a code open


def _record(one: RecordView, name: str) -> str:
    summary, run = one.summary, one.summary.run
    sections = [
        f"## {escaped(name)}",
        _verdict(summary),
        _causes(one.causes),
        _matrix(summary),
        _findings(summary.findings, "Failures"),
        _findings(summary.upstream, "Upstream: Hugging Face disagrees with itself; the adapter is not to blame"),
        _baselined(summary),
        _parity(one),
        _space(one),
        _tallies(summary.refusals, "Refused by HF"),
        _tallies(summary.reduced, "Agrees to float32 rounding only"),
        _tallies(summary.skips, "Did not run"),
        _selftest(one),
        _time(one),
        _list("Environment", [f"{escaped(name)} {escaped(version)}" for name, version in run.versions.items()]),
    ]
    return "\n\n".join(section for section in sections if section)


def _verdict(summary: Summary) -> str:
    reason = terminal.reasons(summary)
    counts = ", ".join(f"{count:,} {wording.VERDICT_WORDS[verdict]}" for verdict, count in summary.counts.items())
    said = [
        f"**{text.STATUS_WORDS[summary.status]}**" + (f" ({escaped(reason)})" if reason else ""),
        f"{text.plural(summary.valid, 'valid case')}, {summary.refused:,} refused by HF, "
        f"{terminal.checks(summary)}: {terminal.looked(summary)}; {counts or 'nothing ran'}",
        *(f"Note: {escaped(note)}" for note in summary.notes),
    ]
    return "\n\n".join(said)


def _causes(causes: Sequence[Cause]) -> str:
    rows = [
        (
            _explained(cause),
            code(cause.place) if cause.place else "",
            f"{cause.cases:,}",
            ", ".join(f"{finding.number} {escaped(finding.entry.outcome.check)}" for finding in cause.findings),
        )
        for cause in causes[:MOST_CAUSES]
    ]
    return _section("Why", _table(("rule", "starts at", "cases", "checks"), rows), len(causes) - len(rows))


def _explained(one: Cause | Bug) -> str:
    if one.rule is None:
        return escaped(one.explanation)
    nearly = "" if one.rule.exact else "nearly "
    return f"{nearly}{code(one.rule.text)} ({one.support})"


def _matrix(summary: Summary) -> str:
    header = (*(escaped(name) for name in summary.run.flags), "cases", *(escaped(area) for area in summary.areas))
    rows = [
        (*_described(row, summary), f"{len(row.cases):,}", *(_cell(row.cells[area]) for area in summary.areas))
        for row in summary.rows[:MOST_ROWS]
    ]
    return _section("Matrix", _table(header, rows), len(summary.rows) - len(rows))


def _described(row: Row, summary: Summary) -> list[str]:
    if row.labels:
        named = escaped(", ".join(row.labels), 200) + ("" if row.valid else " (refused by HF)")
        return [named, *[""] * (len(summary.run.flags) - 1)] if summary.run.flags else []
    found = [_values(row.flags[name]) for name in summary.run.flags]
    if found and not row.valid:
        found[0] += " (refused by HF)"
    return found


def _values(values: tuple[Any, ...] | None) -> str:
    return "any" if values is None else escaped(" or ".join(text.value(value) for value in values))


def _cell(cell: Cell) -> str:
    if cell.verdict is None:
        return "·"
    return " ".join([f"{wording.VERDICT_SHAPES[cell.verdict]} {wording.VERDICT_WORDS[cell.verdict]}", *cell.findings])


def _findings(findings: Sequence[Bug], title: str) -> str:
    blocks = [_finding(one) for one in findings[:MOST_FINDINGS]]
    return _section(title, "\n\n".join(blocks), len(findings) - len(blocks))


def _finding(one: Bug) -> str:
    outcome = one.entry.outcome
    facts = {
        "where": code(outcome.where) if outcome.where else None,
        "rule": _explained(one) if one.explanation else None,
        "said": escaped(wording.said(outcome)) if wording.said(outcome) else None,
        "in": code(outcome.site) if outcome.site else None,
        "smallest": code(text.config(one.differs) or "the plainest config"),
        "starts": escaped(one.starts) if one.starts else None,
        "shrunk": escaped(one.shrinking) if one.shrinking else None,
        "passes": escaped(passing(one.shrunk)) if passing(one.shrunk) else None,
        "reproduce": code(one.reproduce),
    }
    title = f"**{one.number} {escaped(outcome.check)}** {_cell(Cell(verdict=outcome.verdict, findings=()))}, "
    title += f"{len(one.cases):,} of {text.plural(one.ran, 'case')}, {code(one.fingerprint)}"
    return "\n".join([title, "", *(f"- {name}: {value}" for name, value in facts.items() if value)])


def _baselined(summary: Summary) -> str:
    found = summary.baselined
    if found is None:
        return ""
    rows = [
        (
            f"{one.number} {code(one.failure.fingerprint)}",
            escaped(one.failure.check),
            escaped(one.words + (f": {one.settled.message}" if one.settled.message else "")),
            f"{one.cases:,}",
            code(one.failure.rule) if one.failure.rule else "",
            escaped(one.failure.reason),
            escaped(one.follow_up),
        )
        for one in [*found.stale, *(one for one in found.entries if one not in found.stale)][:MOST_FINDINGS]
    ]
    table = _table(("entry", "check", "state", "cases", "rule", "reason", "see"), rows)
    parts = [f"{code(found.path)} excuses {escaped(found.share)}.", table]
    if found.removal:
        parts.append(f"What is fixed must go:\n\n{fenced(found.removal, 'sh')}")
    return _section("Known failures", "\n\n".join(part for part in parts if part), len(found.entries) - len(rows))


def _parity(one: RecordView) -> str:
    rows = [
        (
            escaped(spread.check),
            spread.dtype,
            f"{spread.count:,}",
            text.number(spread.median),
            text.number(spread.largest),
            f"{spread.over:,}",
        )
        for spread in one.spreads
    ]
    table = _table(("check", "judged in", "outcomes", "median", "largest", "over"), rows)
    return _folded("Parity: error over bound", table)


def _space(one: RecordView) -> str:
    space = one.space
    lines = [f"{space.met} of {text.plural(space.pairs, 'pair')} of flags' values are in some valid case."]
    lines += [
        f"- {code(f'{first}={text.value(value)} {second}={text.value(other)}')}: "
        + (f"HF refuses all {text.plural(pair.refused, 'case')}" if pair.refused else "never tried")
        for pair in space.missing[:MOST_TALLIES]
        for (first, second), (value, other) in [(pair.flags, pair.values)]
    ]
    left = len(space.missing) - MOST_TALLIES
    return _section("Config space", "\n".join([lines[0], "", *lines[1:]]).rstrip(), max(0, left))


def _tallies(tallies: Sequence[Tally], title: str) -> str:
    rows = [
        (f"{one.count:,}", escaped(one.text, 160), escaped(" ".join(one.checks), 120)) for one in tallies[:MOST_TALLIES]
    ]
    return _section(title, _table(("count", "why", "checks"), rows), len(tallies) - len(rows))


def _selftest(one: RecordView) -> str:
    if one.selftest is None:
        return ""
    verdicts = [kill["verdict"] for kill in one.selftest["kills"]]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("caught", "survived", "not tried"))
    return f"### Self-test\n\n{text.plural(len(verdicts), 'pair')} of planted fault and check: {counts}."


def _time(one: RecordView) -> str:
    rows = [
        (escaped(cost.check), f"{cost.runs:,}", text.duration(cost.total), text.duration(cost.median))
        for cost in one.timing.checks[:MOST_TALLIES]
    ]
    return _folded("Time: the dearest checks", _table(("check", "runs", "in all", "median"), rows))


def _together(beside: SideBySide, views: Sequence[RecordView]) -> str:
    called = [escaped(name) for name in names(views)]
    verdicts = ("verdict", *(text.STATUS_WORDS[one.summary.status] for one in views))
    areas = [(escaped(area), *map(_cell, cells)) for area, cells in beside.areas.items()]
    shared = [
        (code(one.fingerprint), escaped(one.check), *("–" if count is None else f"{count:,}" for count in one.cases))
        for one in beside.shared[:MOST_ROWS]
    ]
    parts = ["## Side by side", _table(("area", *called), [verdicts, *areas])]
    if shared:
        parts.append(_section("In how many cases", _table(("failure", "check", *called), shared), 0))
    return "\n\n".join(parts)


def _section(title: str, content: str, left: int) -> str:
    if not content:
        return ""
    more = f"\n\n… and {left:,} more in the HTML report" if left > 0 else ""
    return f"### {title}\n\n{content}{more}"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>" if content else ""


def _list(title: str, items: Iterable[str]) -> str:
    return f"### {title}\n\n{' · '.join(items)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a bar inside a cell is written so that it ends none. Nothing where there are no rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_in_a_cell(cell) for cell in line) + " |" for line in lines)


def _in_a_cell(cell: str) -> str:
    return cell.replace("\\|", "|").replace("|", "\\|")
