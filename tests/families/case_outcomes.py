"""What the checks say of one case of a family under an adapter, and how far two results lie apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from verifier import checks
from verifier.checks import in_circumstances
from verifier.checks.runner import run_case

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.cases.spec import CaseSpec
    from verifier.judging.outcome import Outcome


def outcomes(spec: CaseSpec, family: Any, adapter: Any, *only: str) -> list[Outcome]:
    """What the checks of a case say that is called plainly: circumstances are looked at elsewhere."""
    wanted = [one for one in checks.select(only) if one not in vars(in_circumstances).values()]
    return list(run_case(spec, family, adapter, wanted))


def deep(spec: CaseSpec) -> CaseSpec:
    """Give the case such that every check but the dearest looks at it."""
    return spec if spec.is_sampled else replace(spec, depth="pairwise")


def apart(one: Tensor, other: Tensor, where: Tensor | None = None) -> float:
    """How far two results lie apart at most: `[batch, pos, d]`, at the positions where `where` is true."""
    difference = (one - other).abs().amax(-1)  # [batch, pos]
    return float((difference if where is None else difference[where]).max())
