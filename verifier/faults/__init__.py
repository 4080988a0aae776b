"""The planted faults: small, realistic wrong adapters, and wrong references, that each check must see.

What a fault changes is written in canonical names, so that it can be planted under any adapter and in any family.
Faults that only one family can have are that family's own: its `faults`, where it has them.
"""

from __future__ import annotations

from verifier.family import Family
from verifier.faults import (
    backward,
    build,
    cache,
    component,
    forward,
    hooks,
    intervene,
    qkv,
    reference,
    state,
    weights,
)
from verifier.faults.mutants import Fault, faults_of

# In the order of the areas of checks.
_MODULES = (reference, build, qkv, weights, hooks, intervene, backward, forward, cache, state, component)
GENERIC = tuple(fault for module in _MODULES for fault in faults_of(module))


def of(family: Family) -> tuple[Fault, ...]:
    """Every fault that can be planted in the family: the generic ones and its own."""
    own = getattr(family, "faults", None)
    return (*GENERIC, *(own() if own is not None else ()))
