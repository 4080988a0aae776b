"""Adapters whose hook points are missing, silent, out of place, or show another tensor."""

from __future__ import annotations

from verifier.faults.mutants import Fault

FAULTS: tuple[Fault, ...] = ()
