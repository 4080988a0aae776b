"""Adapters that hold on to what they should not, or share what must be apart."""

from __future__ import annotations

from verifier.faults.mutants import Fault

FAULTS: tuple[Fault, ...] = ()
