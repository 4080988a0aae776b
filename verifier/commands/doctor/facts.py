"""What the doctor found, as frozen plain values."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any, Literal

from verifier.errors import ExitStatus

Kind = Literal["family", "adapter", "check"]


class Source(enum.StrEnum):
    """Where a setting comes from."""

    COMMAND_LINE = "command line"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A distribution that the harness or something registered with it needs, or can use.

    Attributes:
        name: the distribution's.
        version: None where it is not installed.
        wanted: the versions that will do, `>=2.13`; empty where any will.
        purpose: who wants it: `needed`, `extra dev`, `adapter NAME`.
        needed: whether nothing goes without it.
        right: whether it is installed in a version that will do.
    """

    name: str
    version: str | None
    wanted: str
    purpose: str
    needed: bool
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A key of the configuration as a run here would have it, in words."""

    key: str
    value: str
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A family, an adapter or a third party's check, and whether it loads.

    Attributes:
        kind: which of them.
        name: the reference.
        where: `module:object`.
        origin: the distribution that registers it, with its version; empty where none does.
        loads: whether it was imported and made, in a process of its own.
        said: what it calls itself, or why it does not load.
        seconds: that this took, with the imports that it needs.
    """

    kind: Kind
    name: str
    where: str
    origin: str
    loads: bool
    said: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where all of this is.

    Attributes:
        python: version and implementation.
        platform: as the system calls itself.
        cores: that this process may use.
        memory: bytes that can still be had; None where the system does not say.
        torch: what torch says of its threads and devices, or why it cannot be asked.
    """

    python: str
    platform: str
    cores: int
    memory: int | None
    torch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What `verifier run` would do here with one adapter.

    Attributes:
        family: reference.
        adapter: reference.
        valid: cases that HF accepts; None where that could not be found out.
        refused: cases that HF refuses.
        checks: how many.
        workers: processes.
        limits: what a case may take: `timeout` in seconds and `memory` in bytes, None for no limit.
        out: where record and report go.
        baseline: the file with the known failures; None where there is none.
        entries: how many are known.
        expires: the next day on which one of them is accepted no more, as ISO 8601.
    """

    family: str
    adapter: str
    valid: int | None
    refused: int | None
    checks: int | None
    workers: int
    limits: dict[str, float | int | None]
    out: str
    baseline: str | None = None
    entries: int = 0
    expires: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is missing or wrong.

    Attributes:
        what: a sentence.
        remedy: what to do.
        status: the one with which a run would end on its account, and the doctor does; None where it would run.
    """

    what: str
    remedy: str
    status: ExitStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything.

    Attributes:
        machine: where it was looked.
        installed: distributions, the needed ones first.
        file: the configuration; None where there is none.
        settings: every key of it.
        registered: families, adapters and third parties' checks.
        planned: what a run would do, for each adapter; nothing where no family is named.
        problems: what is missing or wrong.
        status: the exit status.
    """

    machine: Machine
    installed: tuple[Installed, ...]
    file: str | None
    settings: tuple[Setting, ...]
    registered: tuple[Registered, ...]
    planned: tuple[Planned, ...]
    problems: tuple[Problem, ...]
    status: ExitStatus

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)
