"""Known failures, and what became of them in a run, as plain values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import msgspec

from verifier.cases.predicates import require_readable
from verifier.cases.spec import CaseSpec
from verifier.output.validation import Count, convert

EVERY_CASE = "every case"  # in the place of a rule, where the check passes on none

# The parts of a request that decide how much is looked at. Runs that have these alike can be compared.
NARROWING = ("only", "where", "preset", "checkpoint", "cases", "everywhere", "quick", "dtype", "shard", "fuzz", "items")


def narrowing(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Select the parts of a request that decide how much is looked at."""
    return {name: asked[name] for name in NARROWING if asked.get(name)}


class EntryState(enum.StrEnum):
    """What became of a known failure.

    Its own case is run again first. `known`: it still fails like that. `fixed`: it passes, and the entry must go.
    `changed`: something else happens there. `expired`: it still fails, and its day is over. `NOT_RUN`: its check was
    not selected, and no selected check rests on it there. Only what is `known` excuses anything.
    """

    KNOWN = "known"
    FIXED = "fixed"
    CHANGED = "changed"
    EXPIRED = "expired"
    NOT_RUN = "unlooked"

    @property
    def gates(self) -> bool:
        """Whether the run fails because the baseline is not true any more."""
        return self in (EntryState.FIXED, EntryState.CHANGED, EntryState.EXPIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFailure:
    """A failure that is accepted, and where.

    Attributes:
        fingerprint: its id.
        check: the check that fails.
        rule: the predicate over the config that is true where it fails; `EVERY_CASE`; or empty where there is none.
        also: cases beyond the rule, each as what its config has that the plainest has not: `alibi=true`.
        excepted: cases that pass although the rule is true of them, likewise: a failure there is a new one.
        spec: the case that is run again.
        reason: why it is accepted, from a person.
        issue: where it is followed up.
        expires: the last day on which it is accepted.
    """

    fingerprint: str
    check: str
    rule: str
    spec: CaseSpec
    also: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()
    reason: str = ""
    issue: str = ""
    expires: date | None = None

    def __post_init__(self) -> None:
        if self.rule not in ("", EVERY_CASE):
            require_readable(self.rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The known failures of one adapter, and how much was looked at when they were written down.

    Attributes:
        path: the file, as the user named it.
        digest: a short hash of its content.
        family: reference.
        adapter: reference.
        asked: what narrowed the run that it was made of.
        ran: by check, how many cases it looked at then.
        failures: in the order of the file.
    """

    path: str
    digest: str
    family: str
    adapter: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    ran: Mapping[str, Count] = field(default_factory=dict)
    failures: tuple[KnownFailure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A known failure, and what became of it.

    Attributes:
        failure: the entry.
        state: what became of it.
        message: what its check said instead, where something changed.
    """

    failure: KnownFailure
    state: EntryState
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineState:
    """What a record holds of the baseline that its run was compared with.

    Attributes:
        path: the baseline's file.
        asked: what narrowed the run that it was made of.
        ran: by check, how many cases it looked at then.
        settled: what became of each entry.
    """

    path: str
    asked: Mapping[str, Any]
    ran: Mapping[str, Count]
    settled: tuple[Settled, ...] = ()

    @property
    def excusing(self) -> Mapping[str, KnownFailure]:
        """The entries that still hold, by fingerprint."""
        return {one.failure.fingerprint: one.failure for one in self.settled if one.state is EntryState.KNOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Became:
    """The fields that a record's line of a known failure has beside the entry itself."""

    state: EntryState
    said: str | None = None


def settled_to_json(one: Settled) -> dict[str, Any]:
    """Make plain data of an entry and what became of it, which `read_settled` reads."""
    failure = msgspec.to_builtins(one.failure) | {"spec": one.failure.spec.to_json()}
    return {**failure, "state": str(one.state), "said": one.message}


def read_settled(data: Mapping[str, Any]) -> Settled:
    """Read what `settled_to_json` made.

    Raises:
        UsageError: something is missing, of another type, or no case, rule, state or day.
    """
    became = convert(data, _Became, of="a known failure")
    failure = convert(data, KnownFailure, of="a known failure")
    return Settled(failure=failure, state=became.state, message=became.said)
