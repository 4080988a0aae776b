"""Watching the comparisons that a check makes, without its knowing: nothing is kept unless somebody watches."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verifier.judging.evidence import Difference

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.judging.comparison import Comparison

MOST_DIFFERENCES = 64  # of one check: the place that it names is among the first


@dataclass(slots=True)
class Watch:
    """What was compared while it was on.

    Attributes:
        comparisons: those from which checks made their findings, in order.
        differences: by place, of those that did not agree; the first one of a place counts.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    differences: dict[str, Difference] = field(default_factory=dict)


_WATCH: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("verifier watch", default=None)


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Keep what is compared from here on."""
    watch = Watch()
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


def concluded(comparisons: Sequence[Comparison]) -> None:
    """A check made its finding from these."""
    watch = _WATCH.get()
    if watch is not None:
        watch.comparisons += comparisons


def differs(
    where: str,
    actual: Tensor,
    truth: Tensor,
    defined: Tensor | None = None,
    axes: Sequence[str] = (),
    *,
    bound: float,
) -> None:
    """Two tensors of one shape did not agree. Arguments as of `difference.difference`."""
    watch = _WATCH.get()
    if watch is None or where in watch.differences or len(watch.differences) >= MOST_DIFFERENCES:
        return
    from verifier.judging.error_map import difference

    watch.differences[where] = difference(where, actual, truth, defined, axes, bound=bound)
