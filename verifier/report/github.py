"""Write what GitHub shows of a run: an annotation for each failure, as workflow commands, and the step's summary."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from verifier.analysis.baseline_comparison import AcceptedFailure, BaselineComparison
from verifier.analysis.bug_groups import BugGroup
from verifier.analysis.not_started import NotStarted
from verifier.analysis.side_by_side import name_views
from verifier.analysis.summary import Summary
from verifier.analysis.verdict import gating_verdicts
from verifier.analysis.view import RecordView
from verifier.checks import blame
from verifier.errors import ExitStatus
from verifier.judging.outcome import Outcome, Verdict
from verifier.output import text
from verifier.record.known_failure import EntryState
from verifier.report import markdown

MOST_ANNOTATIONS = 10  # of a kind in a step: what is more GitHub drops without a word
SUMMARY_BYTES = 2**20  # a summary that is longer GitHub does not show at all
# The facts of a failure for which there is room beside the code.
_FACTS = ("where", "measured", "said", "in", "also", "rule", "smallest", "alone", "reproduce")
LEAST_SUMMARY = 2_000  # bytes in which a summary says anything
# Of code that is installed beside the repository there is no line to point at.
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """An annotation of GitHub's pages, which is written as a workflow command.

    Attributes:
        kind: `error` or `notice`.
        title: one line above the message.
        message: the lines of the message.
        place: the file, relative to the workspace, and the line; None where no file is to blame.
    """

    kind: str
    title: str
    message: Sequence[str]
    place: tuple[str, int] | None = None

    @property
    def command(self) -> str:
        """The workflow command that GitHub's runner reads."""
        properties = {} if self.place is None else {"file": self.place[0], "line": str(self.place[1])}
        properties["title"] = self.title
        written = ",".join(
            f"{name}={_escape(value).replace(':', '%3A').replace(',', '%2C')}" for name, value in properties.items()
        )
        message = _escape("\n".join(self.message))
        return f"::{self.kind} {written}::{message}"


def _escape(part: str) -> str:
    """Escape a message as GitHub's toolkit does."""
    return part.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def commands(views: Sequence[RecordView], workspace: Path, not_started: Sequence[NotStarted] = ()) -> list[str]:
    """Make the workflow commands of a step: first what makes an adapter not conform, then what is upstream.

    Args:
        views: the records that the step reports.
        workspace: the folder of the repository.
        not_started: the adapters that could not be run, and so have no record.
    """
    errors, notices = [_annotate_not_started(one) for one in not_started], list[Annotation]()
    for view, name in zip(views, name_views(views), strict=True):
        summary, named = view.summary, text.line(name, 100)
        upstream_kind = "error" if Verdict.UPSTREAM in gating_verdicts(summary.run) else "notice"
        found = [_annotate_bugs(group, "error", named, workspace) for group in summary.bug_groups]
        if summary.baselined is not None:
            found += [_annotate_stale(entry, summary.baselined, named, workspace) for entry in summary.baselined.stale]
        upstream = [_annotate_bugs(group, upstream_kind, named, workspace) for group in summary.upstream_groups]
        (found if upstream_kind == "error" else notices).extend(upstream)
        errors += found or _annotate_verdict(summary, named)
        notices += _annotate_not_offered(summary, named)
    return [annotation.command for kind in (errors, notices) for annotation in _limit(kind)]


def _limit(annotations: Sequence[Annotation]) -> Iterable[Annotation]:
    """Keep as many annotations as GitHub shows, the last of which says how many more there are."""
    if len(annotations) <= MOST_ANNOTATIONS:
        return annotations
    shown = annotations[: MOST_ANNOTATIONS - 1]
    left = len(annotations) - len(shown)
    note = f"GitHub shows {MOST_ANNOTATIONS} of a kind in a step; the others are in the report and in the job's summary"
    return [*shown, Annotation(kind=annotations[0].kind, title=f"… and {left:,} more", message=(note,))]


def _annotate_not_started(missing: NotStarted) -> Annotation:
    """Make an annotation for an adapter that could not be run."""
    run = f"{text.line(missing.family, 80)} × {text.line(missing.adapter, 80)}"
    title = f"{text.STATUS_WORDS[missing.status]} ({run})"
    return Annotation(kind="error", title=title, message=[text.line(missing.reason)])


def _annotate_bugs(group: BugGroup, kind: str, name: str, workspace: Path) -> Annotation:
    """Make an annotation for bugs with one origin, at the adapter's code where that raised."""
    bug, facts = group.lead, group.facts
    outcome = bug.entry.outcome
    return Annotation(
        kind=kind,
        title=f"{text.line(outcome.check, 80)} {outcome.verdict.word} in {bug.share} ({name})",
        message=[f"{what}: {text.line(facts[what])}" for what in _FACTS if facts[what]],
        place=place_of(outcome, workspace),
    )


def _annotate_stale(entry: AcceptedFailure, baselined: BaselineComparison, name: str, workspace: Path) -> Annotation:
    """Make an annotation for a known failure that is not true any more, at its line of the baseline."""
    failure = entry.failure
    facts = {"said": entry.settled.message, "reason": failure.reason, "see": entry.follow_up}
    lines = [f"{what}: {text.line(fact)}" for what, fact in facts.items() if fact]
    if entry.settled.state is EntryState.FIXED:
        lines.append(f"What is fixed must go: {text.line(baselined.removal)}")
    what = f"known failure {text.line(failure.fingerprint, 40)} of {text.line(failure.check, 80)}"
    file = _find_file(workspace, baselined.path)
    return Annotation(
        kind="error",
        title=f"{what} {entry.words} ({name})",
        message=lines or [entry.words],
        place=None if file is None else (file, _find_line(workspace / file, failure.fingerprint)),
    )


def _annotate_verdict(summary: Summary, name: str) -> list[Annotation]:
    """Make an annotation for a run that does not conform although nothing failed; none for one that conforms."""
    if summary.status is ExitStatus.CONFORMS:
        return []
    words = text.STATUS_WORDS[summary.status]
    lines = [line for line in (summary.reasons, *map(text.line, summary.notes)) if line]
    return [Annotation(kind="error", title=f"{words} ({name})", message=lines or [words])]


def _annotate_not_offered(summary: Summary, name: str) -> list[Annotation]:
    """Make an annotation for a run that conforms in what the adapter offers, as green alone would say more."""
    if summary.status is not ExitStatus.CONFORMS or not summary.not_offered:
        return []
    title = f"{text.STATUS_WORDS[summary.status]} ({name})"
    return [Annotation(kind="notice", title=title, message=[summary.headline])]


def place_of(outcome: Outcome, workspace: Path) -> tuple[str, int] | None:
    """Find the adapter's innermost frame in the failure's traceback, if that is in a file of the workspace.

    The record may be of another machine: then the longest end of the path that is a file here is that file.

    Args:
        outcome: the outcome of the failure.
        workspace: the folder of the repository's files.

    Returns:
        The file, relative to the workspace, and the line; None where there is no such frame, file or line.
    """
    frame = blame.find_frame(outcome.site, outcome.detail) if outcome.site and outcome.detail else None
    if frame is None:
        return None
    filename, line = frame
    file = _find_file(workspace, filename)
    return None if file is None or line > (workspace / file).read_bytes().count(b"\n") + 1 else (file, line)


def _find_file(workspace: Path, filename: str) -> str | None:
    """Find a file of the repository, and give its path from the workspace on, as GitHub names it."""
    parts = PurePath(filename).parts
    if ".." in parts or "\0" in filename:
        return None
    root = workspace.resolve()
    for first in range(len(parts)):
        path = (root / Path(*parts[first:])).resolve()  # the whole of an absolute path is itself
        if not path.is_relative_to(root) or set(_INSTALLED) & set(path.relative_to(root).parts):
            continue
        if os.path.isfile(path):  # unlike the method, it says no of a name that is too long for any file
            return path.relative_to(root).as_posix()
    return None


def _find_line(path: Path, word: str) -> int:
    """Find the first line with a word; 1 where there is none."""
    lines = path.read_bytes().splitlines()
    return next((number for number, line in enumerate(lines, start=1) if word.encode() in line), 1)


def step_summary(views: Sequence[RecordView], before: int) -> str | None:
    """Write the Markdown report for the step's summary; None where there is no room left for one.

    Args:
        views: the records that the step reports.
        before: how many bytes the summary has already.
    """
    room = min(markdown.MOST_BYTES, SUMMARY_BYTES - before)
    return None if room < LEAST_SUMMARY else markdown.render(views, most=room)
