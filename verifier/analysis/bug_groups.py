"""Tell bugs once that are one mistake: the same exception from the same place, whichever checks it stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from verifier.analysis.bugs import Bug, DistinctFailure, find_origin
from verifier.judging import wording
from verifier.output import text

_MOST_CHECKS = 3  # are named; the report has all of them
_MOST_MESSAGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BugGroup:
    """One bug, or several that have one origin and so one number.

    Attributes:
        bugs: at least one, in their order.
    """

    bugs: tuple[Bug, ...]

    @property
    def lead(self) -> Bug:
        """The bug that stands for all: the one in most cases, whose rule says most."""
        return choose_lead(self.bugs)

    @property
    def others(self) -> tuple[Bug, ...]:
        """The bugs for which the lead stands."""
        return tuple(bug for bug in self.bugs if bug is not self.lead)

    @property
    def facts(self) -> Mapping[str, str | None]:
        """What a list says of the lead, with the other checks after what was raised and where."""
        facts = dict(self.lead.facts)
        raised = {name: facts.pop(name) for name in ("where", "measured", "said", "in")}
        return {**raised, "also": self.also, **facts}

    @property
    def also(self) -> str | None:
        """`in 46 other checks: hooks.fires, hooks.order, hooks.axes and 43 more`; None where there is no other."""
        if not self.others:
            return None
        checks = text.first_of([bug.entry.outcome.check for bug in self.others], _MOST_CHECKS)
        words = f"in {text.plural(len(self.others), 'other check')}: {checks}"
        # One function may raise for several reasons: none of them may be lost.
        said = dict.fromkeys(wording.outcome_message(bug.entry.outcome) or "" for bug in (self.lead, *self.others))
        messages = [text.line(one, 160) for one in said][1:]
        return words + (f"; there also: {text.first_of(messages, _MOST_MESSAGES, '; ')}" if messages else "")


def group_bugs(bugs: Iterable[Bug]) -> tuple[BugGroup, ...]:
    """Group bugs that have one origin, in the order of the first bug of each group."""
    return tuple(BugGroup(bugs=group) for group in group_by_origin(bugs))


FailureT = TypeVar("FailureT", Bug, DistinctFailure)


def group_by_origin(failures: Iterable[FailureT]) -> list[tuple[FailureT, ...]]:
    """Group failures that have one origin, in the order of the first one of each group."""
    groups: dict[object, list[FailureT]] = {}
    for failure in failures:
        groups.setdefault(find_origin(failure.entry.outcome) or failure.fingerprint, []).append(failure)
    return [tuple(group) for group in groups.values()]


def choose_lead(group: Sequence[FailureT]) -> FailureT:
    """Choose the failure that stands for all of one origin: the one in most cases."""
    return max(group, key=lambda failure: len(failure.cases))
