"""Adapters that decode wrongly with a key/value cache."""

from __future__ import annotations

from verifier.faults.mutants import Fault

FAULTS: tuple[Fault, ...] = ()
