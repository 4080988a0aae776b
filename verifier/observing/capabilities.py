"""Require a capability of a subject: its type without None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from verifier.errors import all_but_interrupts
from verifier.judging.outcome import Blocked, NotApplicable
from verifier.observing.case import Case
from verifier.observing.memo import memoized

Capability = TypeVar("Capability")
Value = TypeVar("Value")


def require(capability: Capability | None) -> Capability:
    """Return the capability, which must not be None.

    Raises:
        NotApplicable: the capability is None. A check that lists it in `needs` is not run then.
    """
    if capability is None:
        raise NotApplicable("the adapter offers no such capability")
    return capability


@memoized
def component_modules(case: Case) -> Mapping[str, nn.Module]:
    """List the modules of the subject's components, by name.

    Raises:
        Blocked: listing them raises; `component.names` reports it.
    """
    return listed(require(case.subject.wrapped().components).modules, "component.names")


def listed(give: Callable[[], Mapping[str, Value]], reported_by: str) -> dict[str, Value]:
    """Take a list that an adapter gives, by name.

    Args:
        give: the adapter's method.
        reported_by: the check that reports what the method raises.

    Raises:
        Blocked: it raises.
    """
    try:
        return dict(give())
    except all_but_interrupts() as error:
        raise Blocked(reported_by) from error
