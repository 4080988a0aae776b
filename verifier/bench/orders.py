"""What a measuring process is told to do, and what it tells of each run of a case: plain data in files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifier.bench.clock import Kind, Tally
from verifier.cases.spec import CaseSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be measured.

    Attributes:
        family: reference.
        adapter: reference.
        only: globs that select checks.
        cases: in this order.
        repeats: how often each is run at most, one time after the other.
        enough: seconds after which a case is run no more.
        instrumented: whether it is told what runs inside the models.
    """

    family: str
    adapter: str
    only: tuple[str, ...]
    cases: tuple[CaseSpec, ...]
    repeats: int = 1
    enough: float | None = None
    instrumented: bool = True

    def write(self, path: Path) -> None:
        """Into a file."""
        data = {
            "family": self.family,
            "adapter": self.adapter,
            "only": list(self.only),
            "cases": [spec.to_json() for spec in self.cases],
            "repeats": self.repeats,
            "enough": self.enough,
            "instrumented": self.instrumented,
        }
        path.write_text(json.dumps(data))

    @classmethod
    def read(cls, path: Path) -> Order:
        """What `write` wrote."""
        data = json.loads(path.read_text())
        cases = tuple(CaseSpec.from_json(one) for one in data.pop("cases"))
        return cls(cases=cases, only=tuple(data.pop("only")), **data)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRun:
    """One check on one case.

    Attributes:
        check: its id.
        verdict: how it ended.
        fingerprint: of the bug, where it found one.
        gates: whether that makes the adapter not conform.
        seconds: with what it was the first to ask for.
        models: the seconds of them inside the models.
    """

    check: str
    verdict: str
    fingerprint: str | None
    gates: bool
    seconds: float
    models: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRun:
    """One run of one case.

    Attributes:
        case: its id.
        seconds: by the clock on the wall.
        cpu: seconds of the processor.
        checks: in their order.
        inside: by kind of call; empty without the instrument.
    """

    case: str
    seconds: float
    cpu: float
    checks: tuple[CheckRun, ...]
    inside: Mapping[Kind, Tally]

    @property
    def models(self) -> float:
        """The seconds inside the models."""
        return sum(tally.seconds for kind, tally in self.inside.items() if kind.of_models)

    @property
    def verdicts(self) -> tuple[tuple[str, str, str | None], ...]:
        """What came of it: each check's verdict and, of a bug, what it is known by."""
        return tuple((one.check, one.verdict, one.fingerprint) for one in self.checks)

    @classmethod
    def read(cls, path: Path) -> list[CaseRun]:
        """What a measuring process wrote, a line for each run."""
        return [cls.from_json(json.loads(line)) for line in path.read_text().splitlines()]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaseRun:
        """One line of it."""
        return cls(
            case=data["case"],
            seconds=data["seconds"],
            cpu=data["cpu"],
            checks=tuple(CheckRun(**one) for one in data["checks"]),
            inside={Kind[name]: Tally(**tally) for name, tally in data["inside"].items()},
        )
