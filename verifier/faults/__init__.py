"""Planted faults: small, realistic wrong adapters and wrong references, which the checks must catch.

A fault names what it changes by canonical names, so it can be planted in any adapter and in any family. A family may
have faults that only its models can have (`faults`).
"""

from __future__ import annotations

from verifier.family import Family
from verifier.faults import (
    backward,
    build,
    cache,
    circumstances,
    component,
    forward,
    hooks,
    intervene,
    qkv,
    reference,
    state,
    weights,
)
from verifier.faults.mutants import Fault, collect_faults

# In the order of the areas of checks.
_MODULES = (reference, build, qkv, weights, hooks, intervene, backward, forward, cache, state, component, circumstances)
GENERIC = tuple(fault for module in _MODULES for fault in collect_faults(module))


def list_faults(family: Family) -> tuple[Fault, ...]:
    """Collect every fault that can be planted in a family: the generic faults and the family's own."""
    own = getattr(family, "faults", None)
    return (*GENERIC, *(own() if own is not None else ()))
