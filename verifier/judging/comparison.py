"""Make one finding of the findings at many places, and keep what was compared for whoever watches."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verifier.errors import one_line
from verifier.judging.evidence import Difference
from verifier.judging.outcome import Finding, NotApplicable, Verdict

if TYPE_CHECKING:
    from torch import Tensor


# --- watching: what a check compares is kept while somebody watches, without its knowing ---

MOST_DIFFERENCES = 64  # of one check: the place that it names is among the first


@dataclass(slots=True)
class Watch:
    """What was compared inside a `watching` block.

    Attributes:
        comparisons: those from which checks made their findings, in order.
        differences: by place, of those that did not agree; the first one of a place counts.
    """

    comparisons: list[Finding] = field(default_factory=list)
    differences: dict[str, Difference] = field(default_factory=dict)


_WATCH: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("verifier watch", default=None)


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Keep what is compared inside the block."""
    watch = Watch()
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


def record_comparisons(comparisons: Sequence[Finding]) -> None:
    """Hand the findings that a check summarizes to whoever watches."""
    watch = _WATCH.get()
    if watch is not None:
        watch.comparisons += comparisons


def record_mismatch(
    where: str,
    actual: Tensor,
    truth: Tensor,
    defined: Tensor | None = None,
    axes: Sequence[str] = (),
    *,
    bound: float,
) -> None:
    """Keep how two tensors of one shape differ, if somebody watches; arguments as of `error_map.difference`."""
    watch = _WATCH.get()
    if watch is None or where in watch.differences or len(watch.differences) >= MOST_DIFFERENCES:
        return
    from verifier.judging.error_map import difference

    watch.differences[where] = difference(where, actual, truth, defined, axes, bound=bound)


def from_condition(where: str, wrong: str | None) -> Finding:
    """Make the finding of a condition: `wrong` says how it does not hold, None that it holds."""
    verdict = Verdict.PASS if wrong is None else Verdict.FAIL
    return Finding(where=where, verdict=verdict, measured=0.0 if wrong is None else 1.0, bound=0.0, message=wrong)


_WORST_FIRST = (Verdict.FAIL, Verdict.UPSTREAM, Verdict.REDUCED)


def summarize(comparisons: Iterable[Finding]) -> Finding:
    """Make one finding of findings in causal order: it names the first place with the worst verdict.

    What is raised while they are made comes out as it is only where no difference was found before.

    Raises:
        NotApplicable: nothing was compared; that proves nothing.
    """
    made: list[Finding] = []
    try:
        made.extend(comparisons)  # one by one, so that those before an exception are there
    except Exception as error:
        found = next((number for number, one in enumerate(made) if one.verdict is Verdict.FAIL), None)
        if found is None:
            raise
        made[found] = replace(made[found], message=f"{made[found].message}; after that {one_line(error)}")
    if not made:
        raise NotApplicable("there is nothing to compare")
    record_comparisons(made)
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
