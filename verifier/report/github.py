"""What GitHub shows of a run: an annotation for each failure, as workflow commands, and the step's summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from verifier.analysis.baseline_comparison import AcceptedFailure
from verifier.analysis.bugs import Bug
from verifier.analysis.not_started import NotStarted
from verifier.analysis.side_by_side import name_views
from verifier.analysis.summary import Summary
from verifier.analysis.verdict import gating_verdicts
from verifier.analysis.view import RecordView
from verifier.checks import blame
from verifier.errors import ExitStatus
from verifier.judging.outcome import Outcome, Verdict
from verifier.output import text
from verifier.report import markdown

MOST_ANNOTATIONS = 10  # of a kind in a step: what is more GitHub drops without a word
SUMMARY_BYTES = 2**20  # a summary that is longer GitHub does not show at all
# Of what is said of a failure that which has room beside the code.
_FACTS = ("where", "measured", "said", "in", "rule", "smallest", "reproduce")
LEAST_SUMMARY = 2_000  # bytes in which a summary says anything
# Of code that is installed beside the repository there is no line to point at.
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One workflow command.

    Attributes:
        kind: `error` or `notice`.
        title: what it is headed with.
        message: its lines.
        place: file, from the workspace on, and line; None where no file is to blame.
    """

    kind: str
    title: str
    message: Sequence[str]
    place: tuple[str, int] | None = None

    @property
    def command(self) -> str:
        """As GitHub's runner reads it."""
        properties = {} if self.place is None else {"file": self.place[0], "line": str(self.place[1])}
        properties["title"] = self.title
        written = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        message = _data("\n".join(self.message))
        return f"::{self.kind} {written}::{message}"


def _data(one: str) -> str:
    """As GitHub's toolkit writes a message."""
    return one.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(one: str) -> str:
    return _data(one).replace(":", "%3A").replace(",", "%2C")


def commands(views: Sequence[RecordView], workspace: Path, not_started: Sequence[NotStarted] = ()) -> list[str]:
    """The lines for the standard output: first what makes an adapter not conform, then what is upstream.

    Args:
        views: of the records that the step tells of.
        workspace: where the repository is.
        not_started: the adapters of which there is none.
    """
    errors, notices = [_of_not_started(one) for one in not_started], list[Annotation]()
    for one, name in zip(views, name_views(views), strict=True):
        summary, named = one.summary, text.line(name, 100)
        mine = [_annotate_bug(bug, "error", named, workspace) for bug in summary.bugs]
        mine += [_of_entry(entry, summary, named, workspace) for entry in _stale(summary)]
        upstream = [_annotate_bug(bug, _kind(summary), named, workspace) for bug in summary.upstream]
        (mine if _kind(summary) == "error" else notices).extend(upstream)
        errors += mine or _of_verdict(summary, named)
    return [one.command for kind in (errors, notices) for one in _few(kind)]


def _of_not_started(one: NotStarted) -> Annotation:
    title = f"{text.STATUS_WORDS[one.status]} ({text.line(one.family, 80)} × {text.line(one.adapter, 80)})"
    return Annotation(kind="error", title=title, message=[text.line(one.reason)])


def _kind(summary: Summary) -> str:
    """Of what is upstream."""
    return "error" if Verdict.UPSTREAM in gating_verdicts(summary.run) else "notice"


def _few(all_: Sequence[Annotation]) -> Iterable[Annotation]:
    """As many as are shown, the last of which says how many more there are."""
    if len(all_) <= MOST_ANNOTATIONS:
        return all_
    shown = all_[: MOST_ANNOTATIONS - 1]
    left = len(all_) - len(shown)
    said = f"GitHub shows {MOST_ANNOTATIONS} of a kind in a step; the others are in the report and in the job's summary"
    return [*shown, Annotation(kind=all_[0].kind, title=f"… and {left:,} more", message=(said,))]


def _annotate_bug(one: Bug, kind: str, name: str, workspace: Path) -> Annotation:
    outcome = one.entry.outcome
    return Annotation(
        kind=kind,
        title=f"{text.line(outcome.check, 80)} {outcome.verdict.word} in {one.share} ({name})",
        message=[f"{what}: {text.line(one.facts[what])}" for what in _FACTS if one.facts[what]],
        place=place_of(outcome, workspace),
    )


def _stale(summary: Summary) -> Sequence[AcceptedFailure]:
    return () if summary.baselined is None else summary.baselined.stale


def _of_entry(one: AcceptedFailure, summary: Summary, name: str, workspace: Path) -> Annotation:
    """A known failure that is not true any more."""
    assert summary.baselined is not None
    failure = one.failure
    facts = {"said": one.settled.message, "reason": failure.reason, "see": one.follow_up}
    lines = [f"{what}: {text.line(fact)}" for what, fact in facts.items() if fact]
    if one in summary.baselined.fixed:
        lines.append(f"What is fixed must go: {text.line(summary.baselined.removal)}")
    file = _in(workspace, summary.baselined.path, lambda path: True)
    what = f"known failure {text.line(failure.fingerprint, 40)} of {text.line(failure.check, 80)}"
    return Annotation(
        kind="error",
        title=f"{what} {one.words} ({name})",
        message=lines or [one.words],
        place=None if file is None else (file, _line_of(workspace / file, failure.fingerprint)),
    )


def _of_verdict(summary: Summary, name: str) -> list[Annotation]:
    """Where nothing failed and the run does not conform all the same."""
    if summary.status is ExitStatus.CONFORMS:
        return []
    said = [summary.reasons, *(text.line(note) for note in summary.notes)]
    words = text.STATUS_WORDS[summary.status]
    return [Annotation(kind="error", title=f"{words} ({name})", message=[line for line in said if line] or [words])]


def place_of(outcome: Outcome, workspace: Path) -> tuple[str, int] | None:
    """The adapter's innermost frame in the failure's traceback, where that is in a file of the workspace.

    The record may be of another machine: then the longest end of the path that is a file here is that file.
    """
    frame = blame.find_frame(outcome.site, outcome.detail) if outcome.site and outcome.detail else None
    if frame is None:
        return None
    filename, line = frame
    file = _in(workspace, filename, lambda path: _count_lines(path) >= line)
    return None if file is None else (file, line)


def _in(workspace: Path, filename: str, fits: Callable[[Path], bool]) -> str | None:
    """The file from the workspace on, as GitHub names it."""
    parts = PurePath(filename).parts
    if ".." in parts or "\0" in filename:
        return None
    root = workspace.resolve()
    for first in range(len(parts)):
        path = (root / Path(*parts[first:])).resolve()  # the whole of an absolute path is itself
        if path.is_relative_to(root) and not set(_INSTALLED) & set(path.relative_to(root).parts) and _is_file(path):
            return path.relative_to(root).as_posix() if fits(path) else None
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name from a record may be too long for any file
        return False


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") + 1


def _line_of(path: Path, word: str) -> int:
    """The first line with the word; 1 where there is none."""
    lines = path.read_bytes().splitlines()
    return next((number for number, line in enumerate(lines, start=1) if word.encode() in line), 1)


def step_summary(views: Sequence[RecordView], before: int) -> str | None:
    """The Markdown report for the step's summary; None where there is no room left for one.

    Args:
        views: of the records that the step tells of.
        before: how many bytes the summary has already.
    """
    room = min(markdown.MOST_BYTES, SUMMARY_BYTES - before)
    return None if room < LEAST_SUMMARY else markdown.render(views, most=room)
