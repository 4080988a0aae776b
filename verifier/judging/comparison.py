"""One place, judged, and what many such places amount to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from verifier.errors import one_line
from verifier.judging import watching
from verifier.judging.outcome import Finding, NotApplicable, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One place, judged."""

    where: str
    verdict: Verdict
    measured: float
    bound: float
    message: str | None = None

    @property
    def ratio(self) -> float:
        """Error over bound."""
        return self.measured / self.bound if self.bound else float("inf") if self.measured else 0.0


def stated(where: str, wrong: str | None) -> Comparison:
    """What is either so or not: `wrong` says how it is not."""
    verdict = Verdict.PASS if wrong is None else Verdict.FAIL
    return Comparison(where=where, verdict=verdict, measured=0.0 if wrong is None else 1.0, bound=0.0, message=wrong)


_WORST_FIRST = (Verdict.FAIL, Verdict.UPSTREAM, Verdict.REDUCED)


def conclude(comparisons: Iterable[Comparison]) -> Finding:
    """The finding of a check that made these comparisons, in causal order: the first of the worst kind is named.

    What is raised while they are made comes out as it is only where no difference was found before.

    Raises:
        NotApplicable: nothing was compared; that proves nothing.
    """
    made: list[Comparison] = []
    try:
        made.extend(comparisons)  # one by one, so that those before an exception are there
    except Exception as error:
        found = next((number for number, one in enumerate(made) if one.verdict is Verdict.FAIL), None)
        if found is None:
            raise
        made[found] = replace(made[found], message=f"{made[found].message}; after that {one_line(error)}")
    if not made:
        raise NotApplicable("there is nothing to compare")
    watching.concluded(made)
    for verdict in _WORST_FIRST:
        for one in made:
            if one.verdict is verdict:
                others = sum(other.verdict is verdict for other in made) - 1
                more = f" ({others} more place{'s' if others > 1 else ''})" if others else ""
                return Finding(
                    verdict=verdict,
                    measured=one.measured,
                    bound=one.bound,
                    where=one.where,
                    message=f"{one.message}{more}" if one.message else None,
                )
    nearest = max(made, key=lambda one: one.ratio if one.bound else 0.0)
    return Finding(measured=nearest.measured, bound=nearest.bound)
