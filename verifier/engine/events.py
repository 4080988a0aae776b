"""The events of a run, as frozen plain values: workers send those that are Structs, the coordinator passes them on."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from msgspec import Struct

from verifier.cases.spec import CaseSpec
from verifier.judging.evidence import Evidence, Ladder
from verifier.judging.outcome import Outcome, Verdict
from verifier.judging.row_summary import RowSummary


class Stop(enum.StrEnum):
    """Why a run ended."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInfo:
    """A check without its function: what the plan, the record and the reports need of it."""

    id: str
    doc: str
    applies: str

    @property
    def area(self) -> str:
        """The part of the id before the first dot: `qkv` of `qkv.rows`."""
        return self.id.partition(".")[0]

    def to_json(self) -> dict[str, str]:
        """The check as the first line of a record has it."""
        return asdict(self)


class RunStarted(Struct, frozen=True, kw_only=True, tag=True):
    """The workers have loaded everything, and cases follow.

    Attributes:
        adapter_name: the name that the adapter gives itself.
        adapter_version: the version that the adapter gives itself.
        checks: the selected checks, in the order in which they run.
        expected: how many outcomes the whole run gives.
        workers: how many processes.
    """

    adapter_name: str
    adapter_version: str
    checks: tuple[CheckInfo, ...]
    expected: int
    workers: int


class CaseRefused(Struct, frozen=True, kw_only=True, tag=True):
    """A case that was taken for valid, because nobody knew, is refused by Hugging Face; `case` is its id."""

    case: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseStarted:
    """A worker has taken the case."""

    spec: CaseSpec


class OutcomeReady(Struct, frozen=True, kw_only=True, tag=True):
    """A check has ended on a case; `case` is the id of the case."""

    case: str
    outcome: Outcome


class RowReady(Struct, frozen=True, kw_only=True, tag=True):
    """A case was looked at in one of its circumstances."""

    row: RowSummary


class EvidenceReady(Struct, frozen=True, kw_only=True, tag=True):
    """The diagnosis of a case has found what a check compares."""

    evidence: Evidence


class LadderReady(Struct, frozen=True, kw_only=True, tag=True):
    """The diagnosis of a case has found where its failures start."""

    evidence: Ladder


class CaseFinished(Struct, frozen=True, kw_only=True, tag=True):
    """A case has ended, and all its outcomes have been sent; `case` is its id."""

    case: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """A worker process died, or was ended, in a case that is run again before the death counts.

    Attributes:
        case: the id of the case that it ran, or had just ended.
        check: the check that was running, or the last one that ran.
        verdict: crash or timeout.
        reason: how it ended, as a clause.
        again: whether the case is run once more, alone; false if the case had ended.
    """

    case: str
    check: str
    verdict: Verdict
    reason: str
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The run goes on: once a second, what is running and for how long.

    Attributes:
        running: for how many seconds each running case has been run, by id.
        left: how many seconds the run is likely to take from here; None while nothing is known.
    """

    running: Mapping[str, float]
    left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run is over, and this is its last event."""

    stop: Stop
    seconds: float


Event = (
    RunStarted
    | CaseStarted
    | CaseRefused
    | OutcomeReady
    | RowReady
    | EvidenceReady
    | LadderReady
    | CaseFinished
    | WorkerLost
    | Heartbeat
    | RunFinished
)
