"""What came of one circumstance of a case, in plain values: what was looked at, and the worst of each observable."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from verifier.judging.outcome import Verdict
from verifier.output.validation import Seconds


# A run has thousands of these: what has its default is left out where they are written.
class WorstFinding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The worst that was found on an observable in a circumstance.

    Attributes:
        verdict: how it ended; a skip where it follows from the failure of another observable.
        ratio: the error over its bound; None where no error was measured.
        where: the place; None where the subject raised, or nothing is told of it.
    """

    verdict: Verdict = Verdict.PASS
    ratio: float | None = None
    where: str | None = None


class RowSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one circumstance of a case.

    Attributes:
        case: the case's id.
        circumstance: by axis, the values that are not the plainest.
        seconds: how long both models took.
        refused: what Hugging Face's own model raised; None where it ran.
        not_offered: what the adapter lacks for the circumstance; None where it lacks nothing.
        passed: the observables that passed with no error beyond the least noise that there can be.
        observables: the worst finding on each other observable that was looked at.
    """

    case: str
    circumstance: Mapping[str, str] = {}
    seconds: Seconds
    refused: str | None = None
    not_offered: str | None = None
    passed: tuple[str, ...] = ()
    observables: Mapping[str, WorstFinding] = {}

    @property
    def key(self) -> tuple[str, frozenset[tuple[str, str]]]:
        """The case and the circumstance: a later summary of the same two replaces the earlier one."""
        return self.case, frozenset(self.circumstance.items())

    @property
    def gates(self) -> bool:
        """Whether an observable fails, or raises."""
        return any(one.verdict.gates for one in self.observables.values())

    @property
    def looked(self) -> bool:
        """Whether the adapter was looked at: it offers what the circumstance needs, and Hugging Face's model runs."""
        return self.not_offered is None and bool(self.passed or self.observables)
