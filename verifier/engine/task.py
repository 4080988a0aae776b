"""The task of a worker: one case, and what to do with it."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.cases.spec import CaseSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker is given: a case, the checks that are wanted on it (all that were selected if None), and whether
    they are to be run or what they compare to be told."""

    spec: CaseSpec
    checks: tuple[str, ...] | None = None
    diagnose: bool = False
