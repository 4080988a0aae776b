"""What the doctor finds: a list of facts, each with its rows for a terminal and its plain values for JSON."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from verifier.errors import ExitStatus

PluginKind = Literal["family", "adapter", "check"]


class Section(enum.StrEnum):
    """What a fact is about, in the order and under the titles that a terminal shows; the names are keys of the JSON."""

    MACHINE = "Here"
    INSTALLED = "Installed"
    REGISTERED = "Registered"
    SETTINGS = "Configured"
    PLANNED = "`verifier run` here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is missing or wrong.

    Attributes:
        what: what is wrong, as a sentence.
        remedy: what to do about it.
        status: the exit status that a run would end with because of it; None where a run would begin all the same.
    """

    what: str
    remedy: str
    status: ExitStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that was found out.

    Attributes:
        section: what it is about.
        rows: what a terminal shows of it, a tuple of cells for each row; the first cell names the row.
        values: the same as plain values, by the key that each has in the JSON.
        problems: what is wrong with it.
    """

    section: Section
    rows: tuple[tuple[str, ...], ...]
    values: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything that the doctor found.

    Attributes:
        file: the configuration file; None where there is none.
        facts: every fact, section by section.
        problems: the problems of the facts, after those of the configuration file.
        status: the exit status that a run would end with at once; `CONFORMS` where a run would begin.
    """

    file: str | None
    facts: tuple[Fact, ...]
    problems: tuple[Problem, ...]
    status: ExitStatus

    def to_json(self) -> Any:
        """Give everything in plain values: one object for the machine, and for each other section a list of objects."""
        sections = {one.name.lower(): [fact.values for fact in self.facts if fact.section is one] for one in Section}
        (machine,) = sections.pop("machine")
        whole = {"machine": machine, **sections, "file": self.file, "problems": self.problems, "status": self.status}
        return msgspec.to_builtins(whole)
