"""Read canonical weights on both sides: Hugging Face's, the subject's, and which of the subject's are usable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from verifier.canonical import WEIGHTS, template_of
from verifier.cases.spec import SEMANTIC_DTYPE
from verifier.errors import all_but_interrupts
from verifier.judging.outcome import Blocked
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.observing.memo import memoized
from verifier.reference.weights import canonical_weights

_AXES = {weight.template: weight.axes for weight in WEIGHTS}


@memoized
def reference_weights(case: Case, dtype: str = SEMANTIC_DTYPE) -> Mapping[str, Tensor]:
    """Read HF's weights in canonical names and shapes.

    Args:
        case: whose HF model is read.
        dtype: of the model.

    Returns:
        The weights by canonical name.
    """
    return canonical_weights(case.family, case.reference.model(dtype))


@memoized
def subject_weights(case: Case, dtype: str = SEMANTIC_DTYPE) -> Mapping[str, Any]:
    """Read the subject's canonical weights, copied at the first call; names outside the vocabulary are left out.

    Args:
        case: whose subject is read.
        dtype: of the model that the subject wraps.

    Returns:
        What the subject gives by canonical name; a value that is not a tensor is given as it is.
    """
    return {
        name: weight.detach().clone() if isinstance(weight, Tensor) else weight
        for name, weight in require(case.subject.wrapped(dtype).weights).canonical().items()
        if template_of(name) in _AXES
    }


def readable_weights(case: Case) -> Mapping[str, Any]:
    """Read the subject's canonical weights in float64, for every check but `weights.names`.

    Raises:
        Blocked: reading them raises; `weights.names` reports it.
    """
    try:
        return subject_weights(case)
    except Blocked:
        raise
    except all_but_interrupts() as error:
        raise Blocked("weights.names") from error


def unreadable(ours: object, wanted: Tensor) -> str | None:
    """Say why the value under a canonical name has no numbers; None where it has.

    Args:
        ours: the subject's value under the name.
        wanted: HF's weight of that name; where it has values that are not finite, ours may have some too.
    """
    if ours is None:
        return "there is none"
    if not isinstance(ours, Tensor):
        return f"it is {type(ours).__name__}, not a tensor"
    if ours.is_meta:
        return "it is on the meta device: it has a shape and no values"
    lost = ours.numel() - int(ours.isfinite().count_nonzero())
    return f"{lost} of its {ours.numel()} values are not finite" if lost and bool(wanted.isfinite().all()) else None


def misshapen(ours: Tensor, wanted: Tensor, name: str) -> str | None:
    """Say how the shape of a canonical weight is wrong; None where it is right.

    Args:
        ours: the subject's weight.
        wanted: HF's weight, which has the right shape.
        name: the canonical name of both, whose axes the message gives.
    """
    if ours.shape == wanted.shape:
        return None
    axes = ", ".join(_AXES[template_of(name)])
    return f"its shape is {list(ours.shape)}, not [{axes}] = {list(wanted.shape)}"


@memoized
def usable_weights(case: Case) -> Mapping[str, Tensor]:
    """Select the subject's weights that can be computed with: readable, and of the right shape."""
    ours = readable_weights(case)
    return {
        name: ours[name].to(wanted)
        for name, wanted in reference_weights(case).items()
        if unreadable(ours.get(name), wanted) is None and misshapen(ours[name], wanted, name) is None
    }
