"""The lines of a record, as frozen plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus
from verifier.judging.evidence import Evidence, Ladder
from verifier.judging.outcome import Outcome, Verdict
from verifier.judging.row_summary import RowSummary
from verifier.output import text
from verifier.output.validation import Count, Seconds, convert
from verifier.record.confirmation import Confirmation
from verifier.record.fuzz_finding import ShrunkFailure
from verifier.record.known_failure import BaselineState

SCHEMA = 2
READABLE = (1, SCHEMA)  # schema 1 has no lines of the kind `row`
FILE = "record.jsonl"
DONE = b'{"kind": "done"'  # how a line of that kind begins, as it is written here

# JSON has no spelling for these; they stand as strings.
NOT_FINITE = ("inf", "-inf", "nan")

# Seconds or bytes: a whole number is at most what a file's size can be.
_Limit = Annotated[int, Meta(ge=0, le=2**63 - 1)] | Seconds | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """The first line of a record: what was run.

    Attributes:
        family: reference.
        adapter: reference.
        adapter_name: what the adapter calls itself.
        adapter_version: the version that the adapter says it has.
        versions: the versions of Python and of the distributions that matter.
        seed: the seed of weights and inputs.
        started: the time at which the run began, in ISO 8601 and UTC.
        flags: every flag and its values, the plainest first.
        dims: the dims that the flag matrix gives to every combination.
        checks: id, what it proves and which cases it looks at, in the order in which they run.
        planned: the number of `valid` and of `refused` cases.
        asked: the options that narrowed the run, as the user wrote them.
        workers: the number of processes.
        limits: what a case might take: `timeout` in seconds and `memory` in bytes, where there was a limit.
    """

    family: str
    adapter: str
    adapter_name: str
    adapter_version: str
    versions: Mapping[str, str]
    seed: int
    started: str
    flags: Mapping[str, Annotated[Sequence[Any], Meta(min_length=1)]]
    dims: Mapping[str, Any]
    checks: Sequence[Mapping[str, str]]
    planned: Mapping[str, Count]
    asked: Mapping[str, Any]
    workers: int
    limits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """`falcon × mine:Adapter (mine 1.0)`: the family, the adapter as asked for, and what it calls itself."""
        return f"{text.line(self.family)} × {text.subject(self.adapter, self.adapter_name, self.adapter_version)}"

    def __post_init__(self) -> None:
        if not all("id" in check for check in self.checks):
            raise ValueError("a check has no `id`")
        convert(self.limits, dict[str, _Limit], of="what a case may take")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLine:
    """The last line of a record: how the run ended."""

    counts: Mapping[str, int]
    exit: ExitStatus
    stop: str
    seconds: Seconds = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedOutcome:
    """An outcome on a case, with the fingerprint that the record gives it."""

    case: str
    outcome: Outcome
    fingerprint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LostProcess:
    """A process died, or was ended, in the middle of a case, which was then run once more alone.

    Attributes:
        case: its id.
        check: the check that was running.
        verdict: crash or timeout.
        reason: how it ended, as a clause: `was ended by SIGSEGV (segmentation fault)`.
    """

    case: str
    check: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record that was read.

    Attributes:
        path: its file.
        run: its first line.
        cases: by id, in the order of the file.
        entries: one for each case and check, in the order of the file.
        done: the seconds of each case that came to its end, by id.
        lost: the processes that died in the middle of a case.
        resumed: how often the run was taken up again.
        evidence: what a closer look at failures found, by fingerprint and case.
        ladders: the hook points of the cases that were looked at closely, by id.
        confirmations: what became of failures that were run again alone, by fingerprint and case.
        found: of a fuzzing campaign: each distinct failure at its minimal case, by fingerprint.
        end: its last line; None where the run was killed.
        notes: what a reader should know of the file, in sentences.
        held: the baseline of the run, and what became of each known failure; None where it had none.
        contradicts_itself: whether its last line counts other outcomes than it holds: lines are missing, or changed.
        rows: what came of each circumstance of each case, in the order of the file.
        schema: of its lines.
        origins: of several that were made one: where each case was recorded.
        missing: of shards that were made one: those that are not there, as `2/4`.
    """

    path: Path
    run: RunLine
    cases: Mapping[str, CaseSpec]
    entries: tuple[RecordedOutcome, ...]
    done: Mapping[str, float]
    lost: tuple[LostProcess, ...]
    resumed: int
    evidence: Mapping[tuple[str, str], Evidence]
    ladders: Mapping[str, Ladder]
    found: Mapping[str, ShrunkFailure]
    end: EndLine | None
    notes: tuple[str, ...]
    held: BaselineState | None = None
    contradicts_itself: bool = False
    rows: tuple[RowSummary, ...] = ()
    schema: int = SCHEMA
    confirmations: Mapping[tuple[str, str], Confirmation] = field(default_factory=dict)
    origins: Mapping[str, Path] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def location(self) -> Path:
        """The record as `repro` and `diff` take it: its folder, or the file where it has a name of its own."""
        return self.path.parent if self.path.name == FILE else self.path

    def folder_of(self, case: str) -> Path:
        """Find the folder of the record that a case is in, which is where `repro` finds it."""
        return self.origins.get(case, self.path).parent

    @property
    def outcomes_by_check(self) -> Mapping[str, Sequence[Outcome]]:
        """The outcomes of each check: in the order of the run's checks, then of checks that the run does not name."""
        found: dict[str, list[Outcome]] = {check["id"]: [] for check in self.run.checks}
        for entry in sorted(self.entries, key=lambda entry: entry.outcome.check):
            found.setdefault(entry.outcome.check, []).append(entry.outcome)
        return found

    @property
    def unrepeated(self) -> tuple[LostProcess, ...]:
        """The lost processes whose case, run again alone, did not die: no verdict counts them."""
        ended = {entry.case for entry in self.entries if entry.outcome.verdict in (Verdict.CRASH, Verdict.TIMEOUT)}
        return tuple(lost for lost in self.lost if lost.case in self.done and lost.case not in ended)
