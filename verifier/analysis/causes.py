"""Find failures that are likely one: with the same rule, starting at the same place, whatever check saw them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from verifier.analysis.bugs import Bug
from verifier.canonical import template_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Bugs that have one explanation: a guess at what one change of the adapter would mend.

    Attributes:
        place: where they start, or whose code raised.
        bugs: in their order; the first one's rule stands for all.
        cases: in how many cases they are.
    """

    place: str | None
    bugs: tuple[Bug, ...]
    cases: int


def find_causes(bugs: Iterable[Bug]) -> tuple[Cause, ...]:
    """Group bugs by their rule and the place where they start, those in most cases first."""
    alike: dict[tuple[str | None, str | None], list[Bug]] = {}
    for one in bugs:
        rule = one.rule.text if one.rule else one.explanation
        alike.setdefault((rule, _find_place(one)), []).append(one)
    found = [
        Cause(
            place=place,
            bugs=tuple(group),
            cases=len({case for bug in group for case in bug.cases}),
        )
        for (_, place), group in alike.items()
    ]
    return tuple(sorted(found, key=lambda cause: -cause.cases))  # those of equal size stay in the bugs' order


def _find_place(bug: Bug) -> str | None:
    """Find where a bug shows, in any layer, or else whose code raised."""
    outcome = bug.entry.outcome
    return template_of(outcome.where) if outcome.where else outcome.site
