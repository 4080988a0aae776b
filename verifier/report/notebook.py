"""Render a run for a notebook: its verdict, its failures and a small matrix, without scripts and styles of its own."""

from __future__ import annotations

from collections.abc import Mapping

from verifier.analysis.view import RecordView
from verifier.judging.outcome import Verdict
from verifier.report import templating

# More is in the report.
MOST_ROWS, MOST_BUGS = 40, 12

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
    """Render the fragment of HTML, in which whatever comes from outside is escaped."""
    return templating.render(
        "notebook.html.j2", summary=one.summary, colours=_COLOURS, most_rows=MOST_ROWS, most_bugs=MOST_BUGS
    )
