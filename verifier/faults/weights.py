"""Adapters whose canonical weights, or whose weight processings, are wrong."""

from __future__ import annotations

from verifier.faults.mutants import Fault

FAULTS: tuple[Fault, ...] = ()
