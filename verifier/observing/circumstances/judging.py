"""Judge what a subject showed in a circumstance against Hugging Face's model in the same one.

A tensor is judged where it is defined: at real tokens, in attention where a real query may read a key. In float64 the
noise is that of Hugging Face's float32 run of the same circumstance, in a working dtype that of its own run and of
perturbed ones. Both cost as much as the comparison, so they are run only where an error is not plainly noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.canonical import LOGIT_AXES, WEIGHTS, axes_of, template_of
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import (
    float64_judge,
    gradient_judge,
    judge_at_once,
    measured_noise,
    noise_from_float32,
    precision_judge,
    rms,
    unfit,
)
from verifier.judging.outcome import Finding
from verifier.observing.circumstances.observables import Observation, Observed
from verifier.observing.circumstances.texts import Texts

Named = Mapping[tuple[str, str], Observed]
"""Observations by observable and place."""

_WEIGHTS = frozenset(one.template for one in WEIGHTS)
# So many perturbations settle most errors beyond the noise of one: there are a thousand circumstances, and each has
# hundreds of tensors. They do not settle a failure. Of right adapters whose scores reach hundreds in bfloat16, two
# gradients in fifteen rows were 1.0 and 1.6 of the bound over eight, and none is beyond that over all.
FEW_SEEDS = 8
_LOWEST = -1e30  # a score below it is a masked one: the lowest number of a dtype, or an edit of that


def by_name(observations: Iterator[Observation]) -> dict[tuple[str, str], Observed]:
    """Collect observations by observable and place."""
    return {(observable, place): observed for observable, place, observed in observations}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How the noise of one function's observations is measured, when that is needed.

    Attributes:
        dtype: the working dtype; float64 where semantics are judged.
        single: observes Hugging Face's float32 model; for float64 alone.
        moved: observes Hugging Face's model in the working dtype under the perturbation with a seed.
        seeds: of the perturbations.
    """

    dtype: torch.dtype
    single: Callable[[], Named]
    moved: Callable[[int], Named]
    seeds: Sequence[int]


def judge(shown: Named, truth: Named, own: Named, texts: Texts, noise: Noise) -> Iterator[tuple[str, Finding]]:
    """Judge the observations of one function, in order: gives the observable and what was found.

    Args:
        shown: what the subject showed.
        truth: what Hugging Face's float64 model showed.
        own: what Hugging Face's model in the working dtype showed; the truth itself in float64.
        texts: what both were given.
        noise: measures the noise.
    """
    largest = _largest_gradients(truth)
    for name, right in truth.items():
        observable, place = name
        given = shown.get(name)
        if not isinstance(right, Tensor):
            expected = own[name]
            same = type(given) is type(expected) and given == expected
            yield observable, from_condition(place, None if same else f"{_word(given)}, not {_word(expected)}")
        elif given is None and not right.any() and _is_gradient(observable):
            yield observable, Finding(where=place, measured=0.0, bound=0.0)  # no gradient is one of 0
        elif (wrong := unfit(given, right)) is not None:
            yield observable, from_condition(place, wrong)
        else:
            assert isinstance(given, Tensor)
            theirs = own[name]
            assert isinstance(theirs, Tensor)
            floor = largest.get(observable, 0.0) if template_of(place) in _WEIGHTS else 0.0
            yield observable, _judge_tensor(name, given, right, theirs, texts, noise, floor)


def _judge_tensor(
    name: tuple[str, str], given: Tensor, truth: Tensor, own: Tensor, texts: Texts, noise: Noise, floor: float
) -> Finding:
    observable, place = name
    exact = noise.dtype == torch.float64
    everywhere = template_of(place) in _WEIGHTS or bool(texts.readable.all())
    if everywhere and judge_at_once(given, truth, None if exact else own, noise.dtype):
        return Finding(where=place, measured=0.0, bound=0.0)  # nothing is undefined, but for scores, which are infinite
    truth = truth.double()
    defined = _defined(observable, place, truth, own, texts)
    unknown = given.detach().isnan() & defined.expand_as(given)
    if unknown.any():
        return from_condition(place, f"{int(unknown.sum())} elements are not a number")
    truth, given, own = (one.detach().masked_fill(~defined, 0.0) for one in (truth, given, own))
    eps = torch.finfo(noise.dtype).eps
    is_noise = judge_at_once(given, truth, None if exact else own, noise.dtype, defined=defined, least=eps * floor)
    if is_noise:
        return Finding(where=place, measured=0.0, bound=0.0)
    axes = _axes(place)
    if is_noise is False:
        # Judged by the least noise that there can be: whatever was measured would not excuse the error.
        least = math.hypot(rms(own - truth, defined), eps * rms(truth, defined), eps * floor)
        return (float64_judge if exact else precision_judge)(least).compare(
            place, given, truth, defined=defined, axes=axes
        )
    if exact:
        single = noise.single().get(name)
        if not isinstance(single, Tensor) or single.shape != truth.shape:
            return from_condition(place, "Hugging Face's float32 model shows no such tensor")
        measured = noise_from_float32(truth, single.masked_fill(~defined, 0.0), defined)
        judge = float64_judge(math.hypot(measured, eps * floor))
        return judge.compare(place, given, truth, defined=defined, axes=axes)

    def with_perturbations(seeds: Sequence[int]) -> float:
        runs = [noise.moved(seed).get(name) for seed in seeds]
        moved = [one.masked_fill(~defined, 0.0) for one in runs if isinstance(one, Tensor) and one.shape == truth.shape]
        moved = [one for one in moved if one.isfinite().all()] or [own]
        return math.hypot(measured_noise(truth, own, moved, noise.dtype, defined), eps * floor)

    def resampled() -> float:
        few = with_perturbations(noise.seeds[:FEW_SEEDS])
        return few if rms(given.double() - truth, defined) <= few else with_perturbations(noise.seeds)

    make = gradient_judge if _is_gradient(observable) else precision_judge
    judge = make(with_perturbations(noise.seeds[:1]), resampled)
    return judge.compare(place, given, truth, defined=defined, axes=axes)


def _is_gradient(observable: str) -> bool:
    """Whether the tensors of an observable are gradients; those of `hooks.graph` are by what hooks kept."""
    return observable.startswith("backward.") or observable == "hooks.graph"


def _largest_gradients(truth: Named) -> dict[str, float]:
    """Find by observable the rms of the largest gradient of a weight: one that is 0 in theory has others' noise."""
    found: dict[str, float] = {}
    for (observable, place), value in truth.items():
        if isinstance(value, Tensor) and template_of(place) in _WEIGHTS and not observable.startswith("weights."):
            found[observable] = max(found.get(observable, 0.0), rms(value))
    return found


def _word(observed: Observed) -> str:
    return "a tensor" if isinstance(observed, Tensor) else str(observed)


def _axes(place: str) -> tuple[str, ...]:
    return LOGIT_AXES if place.startswith("logits") else axes_of(place) or ()


def _defined(observable: str, place: str, truth: Tensor, own: Tensor, texts: Texts) -> Tensor:
    """Mark what of a tensor is compared: booleans of its shape."""
    finite = truth.isfinite() & own.isfinite() & (truth > _LOWEST)
    axes, readable, real = _axes(place), texts.readable, texts.real
    if observable.startswith("cache.generated"):
        real = readable  # what hooks are shown first is the prompt
    if place == "inputs_embeds":
        return finite & readable[..., None]
    if len(axes) < 2 or axes[0] != "batch" or truth.ndim != len(axes):
        return finite
    if "query" not in axes:
        return finite & real.reshape(*real.shape, *[1] * (truth.ndim - 2))
    finite = finite & real[:, None, :, None]
    return finite & texts.attended if _is_gradient(observable) else finite
