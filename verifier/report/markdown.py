"""Write Markdown: the report for a pull request or a job's summary, and a bug for a tracker.

A job's summary is dropped whole where it is larger than a mebibyte, so what is long is cut, and says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from verifier.analysis.bugs import Bug
from verifier.analysis.side_by_side import compare_views, name_views
from verifier.analysis.summary import UPSTREAM_TITLE
from verifier.analysis.view import RecordView
from verifier.judging.outcome import Verdict
from verifier.record import RunLine
from verifier.report import templating

MOST_BYTES = 1_000_000
MOST_ROWS, MOST_BUGS, MOST_TALLIES, MOST_CAUSES = 60, 50, 12, 25
_SPARE = 100  # to close what is open where it is cut
_CUT = "\n\n… cut here, because a job's summary may not be longer; the HTML report has all of it.\n"


def render(views: Sequence[RecordView], most: int | None = None) -> str:
    """Render one record or several; the same text for the same records.

    Args:
        views: the records.
        most: the number of bytes that it may have; by default as many as a job's summary may.
    """
    most = MOST_BYTES if most is None else most
    made = render_sections(
        "report.md.j2",
        views=views,
        names=name_views(views),
        together=compare_views(views),
        upstream_title=UPSTREAM_TITLE,
        most_rows=MOST_ROWS,
        most_bugs=MOST_BUGS,
        most_tallies=MOST_TALLIES,
        most_causes=MOST_CAUSES,
    )
    if len(made.encode()) <= most:
        return made
    kept = made.encode()[: most - len(_CUT.encode()) - _SPARE].decode(errors="ignore")
    kept = kept.rpartition("\n")[0]
    open_ = kept.count("<details>") - kept.count("</details>")
    return kept + "\n\n</details>" * open_ + _CUT  # a line that is cut in two might leave a table or a code open


def bug_report(bug: Bug, run: RunLine) -> str:
    """Write a bug for a maintainer: what is wrong, for which configs, where it starts, and how to see it.

    Args:
        bug: what is reported.
        run: the run that found it.

    Returns:
        The report in Markdown.
    """
    outcome, facts = bug.entry.outcome, bug.facts
    upstream = outcome.verdict is Verdict.UPSTREAM
    subject = "Hugging Face disagrees with itself" if upstream else f"{run.adapter_name} differs from Hugging Face"
    place = f" at {outcome.where}" if outcome.where else ""
    versions = [f"{run.adapter_name} {run.adapter_version}", *(" ".join(one) for one in run.versions.items())]
    return templating.render(
        "bug.md.j2",
        title=f"{run.family}: {subject}{place} ({outcome.check})",
        bug=bug,
        run=run,
        outcome=outcome,
        facts=(  # its name, itself, and whether it is code
            ("Rule", bug.explanation, True),
            ("Where", outcome.where, True),
            ("Starts at", bug.starts, False),
            ("Measured", facts["measured"], False),
            ("Said", facts["said"], False),
            ("In", outcome.site, True),
            ("Smallest config", facts["smallest"] if bug.differs else "the plainest one", True),
        ),
        versions=", ".join(versions),
        config=json.dumps(dict(bug.smallest.config), indent=1, sort_keys=True, ensure_ascii=True),
    )


def render_sections(name: str, **values: object) -> str:
    """Render a template of which sections may be empty, with one empty line between those that are not."""
    return re.sub(r"\n{3,}", "\n\n", templating.render(name, **values)).strip() + "\n"
