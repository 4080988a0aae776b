"""A subject's capability where it must be there: its type without None."""

from __future__ import annotations

from typing import TypeVar

from verifier.judging.outcome import NotApplicable

Capability = TypeVar("Capability")


def require(capability: Capability | None) -> Capability:
    """The same capability, which is not None.

    Raises:
        NotApplicable: it is None. A check never gets so far if it lists in `needs` what it requires.
    """
    if capability is None:
        raise NotApplicable("the adapter offers no such capability")
    return capability
