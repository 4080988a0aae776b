"""Summarize the findings at many places into one, and record what a check compares while somebody watches."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verifier.errors import all_but_interrupts, one_line
from verifier.judging.evidence import Difference
from verifier.judging.outcome import Finding, NotApplicable, Verdict

if TYPE_CHECKING:
    from torch import Tensor


# --- watching: what a check compares is recorded; the check does not know it ---

MOST_DIFFERENCES = 64  # of one check; the place that its finding names is among the first


@dataclass(slots=True)
class Watch:
    """What was compared inside a `watching` block.

    Attributes:
        comparisons: the findings that checks summarized, in order.
        differences: by place, how the tensors there differ; the first difference of a place counts.
    """

    comparisons: list[Finding] = field(default_factory=list)
    differences: dict[str, Difference] = field(default_factory=dict)


_WATCH: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("verifier watch", default=None)


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Record what is compared inside the block."""
    watch = Watch()
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


def record_mismatch(
    where: str,
    actual: Tensor,
    truth: Tensor,
    defined: Tensor | None = None,
    axes: Sequence[str] = (),
    *,
    bound: float,
) -> None:
    """Record how two tensors of one shape differ, if somebody watches.

    Args:
        where: the place.
        actual: the adapter's tensor.
        truth: the right tensor.
        defined: broadcasts to them; None where every element is defined.
        axes: the names of the axes; those of the place in the canonical vocabulary if not given.
        bound: the largest rms error that passes.
    """
    watch = _WATCH.get()
    if watch is None or where in watch.differences or len(watch.differences) >= MOST_DIFFERENCES:
        return
    from verifier.judging.error_map import difference

    watch.differences[where] = difference(where, actual, truth, defined, axes, bound=bound)


def from_condition(where: str, wrong: str | None) -> Finding:
    """Make a finding of a condition: PASS where `wrong` is None, else FAIL with `wrong` as its message.

    Args:
        where: the place.
        wrong: what is wrong there, in one line for people; None if nothing is.
    """
    verdict = Verdict.PASS if wrong is None else Verdict.FAIL
    return Finding(where=where, verdict=verdict, measured=0.0 if wrong is None else 1.0, bound=0.0, message=wrong)


_WORST_FIRST = (Verdict.FAIL, Verdict.UPSTREAM, Verdict.REDUCED)


def summarize(comparisons: Iterable[Finding]) -> Finding:
    """Summarize findings in causal order into one, which names the first place with the worst verdict.

    An exception of the iterator is raised only where no finding before it fails; else the message mentions it.

    Raises:
        NotApplicable: there is no finding, which proves nothing.
    """
    found: list[Finding] = []
    try:
        found.extend(comparisons)  # one by one, so that those before an exception are kept
    except all_but_interrupts() as error:
        first = next((number for number, one in enumerate(found) if one.verdict is Verdict.FAIL), None)
        if first is None:
            raise
        found[first] = replace(found[first], message=f"{found[first].message}; after that {one_line(error)}")
    if not found:
        raise NotApplicable("there is nothing to compare")
    if (watch := _WATCH.get()) is not None:
        watch.comparisons += found
    for verdict in _WORST_FIRST:
        same = [one for one in found if one.verdict is verdict]
        if same:
            more = f" ({len(same) - 1} more place{'s' if len(same) > 2 else ''})" if len(same) > 1 else ""
            return replace(same[0], message=f"{same[0].message}{more}" if same[0].message else None)
    nearest = max(found, key=lambda one: one.ratio if one.bound else 0.0)
    return Finding(measured=nearest.measured, bound=nearest.bound)
