"""Findings, outcomes, verdicts, and the fingerprint by which two failures are one bug."""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from verifier.canonical import template_of
from verifier.errors import all_but_interrupts, text_of
from verifier.output.validation import Seconds


class Verdict(enum.StrEnum):
    """How a check ended on a case.

    Attributes:
        word: the verdict in reports.
        shape: a character of its own in reports, so that no verdict is shown by colour alone.
    """

    word: str
    shape: str

    PASS = "pass", "ok", "✓"
    REDUCED = "reduced", "reduced", "≈"
    FAIL = "fail", "FAIL", "✗"
    ERROR = "error", "ERROR", "!"
    CRASH = "crash", "CRASH", "☠"
    TIMEOUT = "timeout", "TIMEOUT", "◷"
    SKIP = "skip", "n/a", "–"
    UPSTREAM = "upstream", "upstream", "↑"
    KNOWN = "known", "known", "◇"  # a failure that a baseline excuses; reports show it, records never have it

    def __new__(cls, value: str, word: str, shape: str) -> Self:
        verdict = str.__new__(cls, value)
        verdict._value_, verdict.word, verdict.shape = value, word, shape
        return verdict

    @property
    def gates(self) -> bool:
        """Whether the verdict makes the run fail."""
        return self in (Verdict.FAIL, Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT)

    @property
    def is_finding(self) -> bool:
        """Whether reports list each outcome with this verdict: failures, and upstream disagreements."""
        return self.gates or self is Verdict.UPSTREAM


# How the message of a skip begins whose reason is a failure that another check reports.
BLOCKED = "blocked by "

# The verdicts of a record, which does not depend on a baseline.
RECORDED = tuple(verdict for verdict in Verdict if verdict is not Verdict.KNOWN)


Circumstance = Mapping[str, tuple[str, ...]]
"""By axis the values of which one is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found at one place; or, made by `summarize`, on the whole case.

    Attributes:
        verdict: how the comparison ended.
        measured: the rms error in the units of the tensor; None where nothing was measured.
        bound: the largest `measured` that passes.
        where: the place; on the whole case the first with the worst verdict, None where all agree.
        message: one line for people.
        circumstance: by axis, the values of which a circumstance must have one for the check to fail; None where it
            fails in the plainest one.
    """

    verdict: Verdict = Verdict.PASS
    measured: float | None = None
    bound: float | None = None
    where: str | None = None
    message: str | None = None
    circumstance: Circumstance | None = None

    @property
    def ratio(self) -> float:
        """The error divided by its bound; infinite where the bound is 0 and the error is not."""
        return self.measured / self.bound if self.measured and self.bound else math.inf if self.measured else 0.0


def failure(where: str, message: str) -> Finding:
    """Make the finding of a check that fails at a place without measuring an error there.

    Args:
        where: the place.
        message: what is wrong there, in one line for people.
    """
    return Finding(verdict=Verdict.FAIL, where=where, message=message)


class Blocked(Exception):
    """A check cannot run because of a failure that another check reports: the message names that check."""


class NotApplicable(Exception):
    """A check has nothing to compare in this case: the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A check's result on a case, in plain values.

    Attributes:
        check: id, `qkv.rows`.
        verdict: how it ended.
        measured: the rms error in the units of the tensor, at the place with the worst verdict.
        bound: the largest `measured` that passes there.
        where: the first place that differs, `blocks.0.attn.hook_q` or `forward: left padding`.
        message: one line for people; for a skip its reason.
        circumstance: by axis, the values of which a circumstance must have one for the check to fail.
        exception: the type's name, for an error.
        site: `file:function` of the innermost frame in the adapter, for an error.
        detail: more lines for people (a traceback, the last lines of stderr).
        seconds: how long the check took, with what it was the first to build.
    """

    check: str
    verdict: Verdict
    measured: float | None = None
    bound: float | None = None
    where: str | None = None
    message: str | None = None
    circumstance: Circumstance | None = None
    exception: str | None = None
    site: str | None = None
    detail: str | None = None
    seconds: Seconds = 0.0

    @property
    def fingerprint(self) -> str | None:
        """The id of the bug, None for an outcome that is no finding; it contains no error, no line and no layer."""
        if not self.verdict.is_finding:
            return None
        place = template_of(self.where) if self.where else None
        # Only where there is one: without it the id is as it always was.
        when = [] if self.circumstance is None else [{axis: list(one) for axis, one in self.circumstance.items()}]
        return short_id([self.check, self.verdict, place, self.exception, self.site, *when])

    def fails_like(self, other: Outcome) -> bool:
        """Whether two outcomes are one failure, whatever circumstance is told of each.

        What was found before in a process decides which values of a circumstance are told.
        """
        mine, its = replace(self, circumstance=None).fingerprint, replace(other, circumstance=None).fingerprint
        return mine is not None and mine == its


def make_plain(outcome: Outcome) -> Outcome:
    """Turn an outcome's values into plain types: a check may have them from an adapter, whose names are no texts."""
    return replace(
        outcome,
        measured=as_number(outcome.measured),
        bound=as_number(outcome.bound),
        where=as_text(outcome.where),
        message=as_text(outcome.message),
        exception=as_text(outcome.exception),
        site=as_text(outcome.site),
        detail=as_text(outcome.detail),
    )


def as_text(value: object) -> str | None:
    """Spell a value as plain text that any file and pipe takes; None stays None."""
    return None if value is None else text_of(value).encode(errors="backslashreplace").decode()


def as_number(value: object) -> float | None:
    """Turn a value into a plain number; None stays None, and what is no real number becomes NaN."""
    if value is None or type(value) is float:
        return value
    try:
        return float(value)  # type: ignore[arg-type]
    except all_but_interrupts():
        return math.nan


_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # no l, o, 0, 1: ids are read aloud and typed
_ID_LENGTH = 8  # 40 bits: among ten thousand cases two collide once in twenty thousand runs


def area_of(check: str) -> str:
    """The area of a check, as its id says it: `qkv` of `qkv.rows`."""
    return check.partition(".")[0]


def canonical_json(value: Any) -> str:
    """Write plain data as JSON, in one way for one value."""
    return _encode(value)


# Held here: an adapter may patch `json`, and ids are made where it runs.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def is_short_id(text: str) -> bool:
    """Whether the text has the form of a `short_id`."""
    return len(text) == _ID_LENGTH and set(text) <= set(_ALPHABET)


def short_id(value: Any) -> str:
    """Hash plain data into a short id, for people and files."""
    number = int.from_bytes(hashlib.sha256(canonical_json(value).encode()).digest()[:8], "big")
    letters = []
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)
