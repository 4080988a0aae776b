"""Require a capability of a subject: its type without None."""

from __future__ import annotations

from typing import TypeVar

from verifier.judging.outcome import NotApplicable

Capability = TypeVar("Capability")


def require(capability: Capability | None) -> Capability:
    """Return the capability, which must not be None.

    Raises:
        NotApplicable: the capability is None. A check that lists it in `needs` is not run then.
    """
    if capability is None:
        raise NotApplicable("the adapter offers no such capability")
    return capability
