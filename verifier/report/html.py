"""Render the report as one file, which reads without scripts and needs no network, from records alone."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from markupsafe import Markup

from verifier.analysis import error_ratios
from verifier.analysis.bugs import Bug
from verifier.analysis.side_by_side import compare_views, name_views
from verifier.analysis.summary import Summary
from verifier.analysis.view import RecordView
from verifier.judging.evidence import Ladder
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.report import drawing, templating
from verifier.report.embedded_data import EmbeddedData, embed_data
from verifier.report.markdown import bug_report

# Of more of each a page has the first in full, and says how many there are.
MOST_ARTICLES = 100
_MOST = {
    "most_articles": MOST_ARTICLES,
    "most_ids": 60,
    "most_causes": 12,
    "most_pairs": 30,
    "most_labels": 12,
    "most_rows": 200,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A record's part of the page.

    Attributes:
        view: everything that the page says of the record.
        summary: the view's summary.
        name: the record's name: family, adapter and version, and what tells it from another record of these.
        id: the id of its section.
        prefix: the prefix of all ids in it. The first record has none, so that a case's or a failure's address is its
            id.
        targets: by the number of a bug or a known failure, the id of its place in the page.
        ladders: the ladders of the smallest cases, each once.
        embedded: every outcome, small enough to travel inside the page.
        opened: the fingerprints of the bugs of which the ladder is shown open.
    """

    view: RecordView
    summary: Summary
    name: str
    id: str
    prefix: str
    targets: Mapping[str, str]
    ladders: tuple[Ladder, ...]
    embedded: EmbeddedData
    opened: frozenset[str]

    @property
    def folder(self) -> str:
        """The record's folder, as a shell takes it."""
        return shlex.quote(str(self.summary.path.parent))


def render(views: Sequence[RecordView]) -> str:
    """Render the page for one record or several; the same bytes for the same records."""
    style, script = (Markup(_read_template(name)) for name in ("page.css", "page.js"))
    return templating.render(
        "report.html.j2",
        pages=[
            _make_page(one, name, number)
            for number, (one, name) in enumerate(zip(views, name_views(views), strict=True), start=1)
        ],
        together=compare_views(views),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        died=(Verdict.CRASH, Verdict.TIMEOUT),
        drawing=drawing,
        bug_report=bug_report,
        parity_range=(error_ratios.LOWEST, error_ratios.HIGHEST),
        **_MOST,
    )


def _make_page(one: RecordView, name: str, number: int) -> Page:
    """Make a record's part of the page; `number` is its place among the records, from 1 on."""
    prefix = "" if number == 1 else f"r{number}-"
    groups = (*one.summary.bug_groups, *one.summary.upstream_groups)
    entries = one.summary.baselined.entries if one.summary.baselined else ()
    # An id of its own: beyond its rule a failure is shown too, under its fingerprint.
    known = {entry.number: f"{prefix}known-{text.anchor(entry.failure.fingerprint)}" for entry in entries}
    ladders = {bug.smallest.id: bug.ladder for bug in one.summary.bugs if bug.ladder is not None}
    return Page(
        view=one,
        summary=one.summary,
        name=name,
        id=f"r{number}",
        prefix=prefix,
        targets={group.lead.number: f"{prefix}{text.anchor(group.lead.fingerprint)}" for group in groups} | known,
        ladders=tuple(ladders.values()),
        embedded=embed_data(one.record),
        opened=frozenset(_choose_opened(one.summary.bugs)),
    )


def _choose_opened(bugs: Iterable[Bug]) -> Iterator[str]:
    """Choose of each case the first bug that names a place of the case's ladder."""
    seen: set[str] = set()
    for one in bugs:
        if one.ladder is None or one.smallest.id in seen:
            continue
        if one.entry.outcome.where in {rung.where for rung in (one.ladder.starts, one.ladder.starts_backward) if rung}:
            seen.add(one.smallest.id)
            yield one.fingerprint


def _read_template(name: str) -> str:
    """Read a file that stands beside the templates."""
    return resources.files("verifier.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """Hash a script or a style as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
