"""What happens during a run, as frozen plain values: the engine speaks in these and knows no printer."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from verifier.cases.spec import CaseSpec
from verifier.judging.evidence import Evidence, Ladder
from verifier.judging.outcome import Outcome, Verdict


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
        return self.id.partition(".")[0]

    def to_json(self) -> dict[str, str]:
        """The check as a record's first line has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The workers have loaded everything; cases follow.

    Attributes:
        adapter_name: what the adapter calls itself.
        adapter_version: as the adapter says.
        checks: those selected, in the order in which they run.
        expected: how many outcomes the whole run gives.
        workers: how many processes.
    """

    adapter_name: str
    adapter_version: str
    checks: tuple[CheckInfo, ...]
    expected: int
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseStarted:
    """A worker has taken the case."""

    spec: CaseSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeReady:
    """A check has ended on the case of that id."""

    case: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceReady:
    """A closer look at a case found this."""

    evidence: Evidence | Ladder


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFinished:
    """Every outcome of the case is there."""

    case: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """A worker process died, or was ended, in a case, and that is not believed yet.

    Attributes:
        case: the id of the case that it was at, or had just ended.
        check: the check that was running, or the last one that ran.
        verdict: crash or timeout.
        reason: how it ended, as a clause.
        again: whether the case is run once more, alone; not where it had come to its end.
    """

    case: str
    check: str
    verdict: Verdict
    reason: str
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Nothing new, once a second.

    Attributes:
        running: the cases that are being run, by id, and for how many seconds.
        left: how many seconds the run is likely to take from here; None where nothing is known yet.
    """

    running: Mapping[str, float]
    left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Nothing more comes."""

    stop: Stop
    seconds: float


Event = RunStarted | CaseStarted | OutcomeReady | EvidenceReady | CaseFinished | WorkerLost | Heartbeat | RunFinished
