"""Find failures that are likely one: with one origin, or with the same rule and starting at the same place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from verifier.analysis.bug_groups import BugGroup, group_bugs
from verifier.analysis.bugs import Bug
from verifier.canonical import template_of
from verifier.judging import wording


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Bugs that have one explanation: a guess at what one change of the adapter would mend.

    Attributes:
        place: where they start, or whose code raised, or what was raised where that is nobody's.
        groups: those that are told once, in their order.
        cases: in how many cases they are.
    """

    place: str | None
    groups: tuple[BugGroup, ...]
    cases: int

    @property
    def lead(self) -> Bug:
        """The bug whose rule stands for all."""
        return self.groups[0].lead

    @property
    def bugs(self) -> tuple[Bug, ...]:
        """All of them, whether they are told on their own or not."""
        return tuple(bug for group in self.groups for bug in group.bugs)


def find_causes(bugs: Iterable[Bug]) -> tuple[Cause, ...]:
    """Group bugs by their origin, and by their rule and the place where they start; those in most cases first."""
    alike: dict[tuple[str | None, str | None], list[BugGroup]] = {}
    for group in group_bugs(bugs):
        rule = group.lead.rule.text if group.lead.rule else group.lead.explanation
        alike.setdefault((rule, _find_place(group.lead)), []).append(group)
    found = [
        Cause(
            place=place,
            groups=tuple(groups),
            cases=len({case for group in groups for bug in group.bugs for case in bug.cases}),
        )
        for (_, place), groups in alike.items()
    ]
    return tuple(sorted(found, key=lambda cause: -cause.cases))  # those of equal size stay in the bugs' order


def _find_place(bug: Bug) -> str | None:
    """Find where a bug shows, in any layer, or else whose code raised, or else what was raised."""
    outcome = bug.entry.outcome
    if outcome.where:
        return template_of(outcome.where)
    return outcome.site or (wording.outcome_message(outcome) if outcome.exception else None)
