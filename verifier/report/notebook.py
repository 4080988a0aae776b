"""A run in a notebook: its verdict, its failures and a small matrix, as a fragment that brings nothing along."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from verifier.analysis.bugs import Bug
from verifier.analysis.rows import Cell, Row
from verifier.analysis.summary import Summary
from verifier.analysis.view import RecordView
from verifier.judging import wording
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.report import terminal

# More is in the report.
MOST_ROWS, MOST_FINDINGS = 40, 12

# A notebook has a style of its own, light or dark; these can be read on both, and a shape says the same.
_COLOURS: Mapping[Verdict, str] = {
    Verdict.PASS: "#2a9d5c",
    Verdict.REDUCED: "#3a86c8",
    Verdict.FAIL: "#e0434b",
    Verdict.ERROR: "#e0434b",
    Verdict.CRASH: "#b146c2",
    Verdict.TIMEOUT: "#b146c2",
    Verdict.KNOWN: "#c58a00",
    Verdict.UPSTREAM: "#c58a00",
    Verdict.SKIP: "#888888",
}


def render(one: RecordView) -> str:
    """The fragment; whatever comes from outside is escaped."""
    summary = one.summary
    run = summary.run
    adapter = text.subject(run.adapter, run.adapter_name, run.adapter_version)
    why = terminal.reasons(summary)
    parts = [
        Markup("<p><strong>{} × {}: {}</strong>{}<br>{}, {} refused by HF, {}: {}</p>").format(
            text.line(run.family),
            adapter,
            text.STATUS_WORDS[summary.status],
            f" ({why})" if why else "",
            text.plural(summary.valid, "valid case"),
            f"{summary.refused:,}",
            terminal.checks(summary),
            terminal.looked(summary),
        ),
        _matrix(summary),
        _findings(summary.findings),
    ]
    return str(Markup("").join(parts))


def _matrix(summary: Summary) -> Markup:
    if not summary.rows:
        return Markup("")
    head = Markup("").join(Markup("<th>{}</th>").format(area) for area in summary.areas)
    rows = Markup("").join(_row(row, summary) for row in summary.rows[:MOST_ROWS])
    more = len(summary.rows) - MOST_ROWS
    note = Markup("<p>… and {} more rows in the report</p>").format(more) if more > 0 else ""
    return Markup(
        "<table><thead><tr><th>combinations</th><th>cases</th>{}</tr></thead><tbody>{}</tbody></table>{}"
    ).format(head, rows, note)


def _row(row: Row, summary: Summary) -> Markup:
    named = ", ".join(map(text.line, row.labels)) or terminal.in_words(row)
    named += "" if row.valid else " (refused by HF)"
    cells = Markup("").join(_cell(row.cells.get(area)) for area in summary.areas)
    return Markup("<tr><td>{}</td><td>{}</td>{}</tr>").format(named, len(row.cases), cells)


def _cell(cell: Cell | None) -> Markup:
    if cell is None or cell.verdict is None:
        return Markup("<td>·</td>")
    words = " ".join([wording.VERDICT_SHAPES[cell.verdict], wording.VERDICT_WORDS[cell.verdict], *cell.findings[:4]])
    return Markup('<td style="color: {}">{}</td>').format(_COLOURS[cell.verdict], words)


def _findings(findings: tuple[Bug, ...]) -> Markup:
    items = Markup("").join(
        Markup("<li><code>{}</code> {} {}{}: {}</li>").format(
            one.fingerprint,
            text.line(one.entry.outcome.check),
            wording.VERDICT_WORDS[one.entry.outcome.verdict],
            f" at {text.line(one.entry.outcome.where)}" if one.entry.outcome.where else "",
            text.line(one.explanation or text.plural(len(one.cases), "case")),
        )
        for one in findings[:MOST_FINDINGS]
    )
    more = len(findings) - MOST_FINDINGS
    items += Markup("<li>… and {} more in the report</li>").format(more) if more > 0 else ""
    return Markup("<ol>{}</ol>").format(items) if findings else Markup("")
