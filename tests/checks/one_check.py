"""What the tests of checks are given: a way of running one check, and of making the right adapter wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from falcons import KINDS
from torch import nn

from verifier import checks
from verifier.checks import Check, in_circumstances
from verifier.faults.mutants import MutantAdapter, Mutation
from verifier.judging.outcome import Outcome

_IN_CIRCUMSTANCES = frozenset(one for one in vars(in_circumstances).values() if isinstance(one, Check))


def of_area(area: str) -> list[Check]:
    """The checks of an area, but for those that look at circumstances: the cases here have none."""
    return [one for one in checks.registered() if one.area == area and one not in _IN_CIRCUMSTANCES]


DEFAULT = KINDS["two-norms-grouped-rope"]


class Judge(Protocol):
    """Runs one check on one case; what is not said is right."""

    def __call__(
        self, check: str, *, adapter: Any = None, family: Any = None, config: Mapping[str, Any] = DEFAULT, **more: Any
    ) -> Outcome: ...


Broken = Callable[[Mutation | Callable[[nn.Module], Mutation]], MutantAdapter]
"""Makes the right adapter wrong in one thing."""

AmongAll = Callable[[str], Mapping[str, Outcome]]
"""What every check says of the right adapter, on one case of the covering."""
