"""The result of a self-test, as `verifier selftest --json` writes it and a report shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

VERDICTS = ("caught", "survived", "not tried")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedFault:
    """A planted fault and a check that must catch it.

    Attributes:
        fault: its name.
        what: what is wrong.
        check: its id.
        verdict: one of `VERDICTS`.
        evidence: how it showed, or why it was not tried.
    """

    fault: str
    what: str
    check: str
    verdict: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """The result of a self-test: the planted faults of a family under an adapter."""

    family: str
    adapter: str
    kills: tuple[PlantedFault, ...]

    @property
    def counted(self) -> str:
        """The number of pairs by verdict: `1 caught, 1 survived, 0 not tried`."""
        counts: Mapping[str, int] = Counter(kill.verdict for kill in self.kills)
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
