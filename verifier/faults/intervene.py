"""Adapters on which an intervention does something else, or nothing."""

from __future__ import annotations

from verifier.faults.mutants import Fault

FAULTS: tuple[Fault, ...] = ()
