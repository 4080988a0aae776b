"""Adapters whose components, alone, are not Hugging Face's modules."""

from __future__ import annotations

from verifier.faults.mutants import Fault

FAULTS: tuple[Fault, ...] = ()
