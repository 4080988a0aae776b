"""Adapters whose gradients are wrong, lost, or cannot be taken."""

from __future__ import annotations

from verifier.faults.mutants import Fault

FAULTS: tuple[Fault, ...] = ()
