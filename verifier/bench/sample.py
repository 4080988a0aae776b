"""A few cases that stand for a matrix: some of each kind, and how many of the matrix each of them stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.cases.spec import DEPTHS, CaseSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Cases at which the same checks look.

    Attributes:
        cases: those that were taken, in the order of the matrix.
        of: how many the matrix has.
    """

    cases: tuple[CaseSpec, ...]
    of: int


def strata(specs: Sequence[CaseSpec], wanted: int) -> tuple[Stratum, ...]:
    """Valid cases of each depth, at least `wanted` of them where there are so many, in their proportion.

    Of each depth that occurs there is one at least, so a mean over the sample weighs each stratum by its size.
    """
    valid = [spec for spec in specs if spec.valid]
    of_depth = [[spec for spec in valid if spec.depth == depth] for depth in DEPTHS]
    return tuple(_stratum(cases, -(-wanted * len(cases) // len(valid))) for cases in of_depth if cases)


def refused(specs: Sequence[CaseSpec], wanted: int) -> Stratum:
    """Cases that HF refuses, in the proportion in which `wanted` valid ones are taken."""
    invalid = [spec for spec in specs if not spec.valid]
    valid = len(specs) - len(invalid)
    return _stratum(invalid, -(-wanted * len(invalid) // valid))


def _stratum(cases: Sequence[CaseSpec], wanted: int) -> Stratum:
    return Stratum(cases=evenly(cases, wanted), of=len(cases))


def evenly(cases: Sequence[CaseSpec], wanted: int) -> tuple[CaseSpec, ...]:
    """So many of them, evenly spread over their order: each k-th, from the middle of the first k on."""
    count = min(wanted, len(cases))
    return tuple(cases[(2 * number + 1) * len(cases) // (2 * count)] for number in range(count))
