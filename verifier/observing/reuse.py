"""Share Hugging Face's results between cases whose models are equal.

HF ignores some values of a config where others are set. Every combination of them is still a case, because an adapter
may read them. To HF these cases are one model, and most of the cost on HF's side (activations under taps,
interventions, noise) is paid once for all of them.

Equality is never inferred from a config. Each case's own model is built, and run forwards and backwards. A case takes
the results of an earlier one only where modules, weights, the family's description, logits and gradients are all
equal on the same inputs. No result of an adapter is shared.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from verifier.cases.spec import Depth, Scenario
from verifier.errors import Unrunnable
from verifier.family import Family
from verifier.judging.outcome import Blocked
from verifier.observing.case_reference import CaseReference
from verifier.observing.memo import arguments_of, memoized
from verifier.reference import models
from verifier.reference.weights import attention_layers

# How many bytes of fingerprints a process keeps; the results beside them take about seven times as much. A tiny model's
# fingerprint is a megabyte, so equal cases of a matrix of some hundred cases meet.
KEPT_BYTES = 2**25
# The runs that are compared between models. Each case needs them anyway: one with real tokens only, one with padding.
SEEN_ON = (Scenario.PLAIN, Scenario.PADDED)

T = TypeVar("T")
P = ParamSpec("P")


class SharedReference:
    """Results of Hugging Face's side that cases with equal models share.

    Invariant: two cases share results only where their models, built and run apart, are equal in all that
    `ModelFingerprint` holds. No result depends on an adapter, and nobody writes into one.
    """

    def __init__(self, reference: CaseReference) -> None:
        self.reference = reference
        self.memo = reference.memo

    def memoize(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned for this key, in this case or in one with an equal model.

        Args:
            key: names the result; it contains `run_key` where the result depends on a scenario.
            make: computes the result from HF's model and the inputs alone.
        """

        def find() -> T:
            cache = self._cache
            if key not in cache:
                cache[key] = make()
            value: T = cache[key]
            return value

        return self.memo.memoize(key, find)

    def run_key(self, scenario: Scenario) -> tuple[Scenario, bytes]:
        """Name this case's run of a scenario, alike only for cases whose logits are equal there.

        Two models with one fingerprint may differ on other inputs, for example where RoPE is scaled beyond a length.
        """
        return scenario, b"" if scenario in SEEN_ON else self._logits_digest(scenario)

    @memoized
    def _logits_digest(self, scenario: Scenario) -> bytes:
        return hashlib.blake2b(self.reference.output(scenario).logits.cpu().numpy().tobytes()).digest()

    @cached_property
    def _cache(self) -> dict[Hashable, Any]:
        return {} if self.reference.is_large else cache_for(self.reference)


def memoized_for_equal_models(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function of Hugging Face's model and the inputs run once for all cases whose models are equal.

    The function's first argument is the case, or the part of a case whose method it is; the others must be hashable. In
    its key a scenario stands as its `SharedReference.run_key`.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def recall(*args: P.args, **kwargs: P.kwargs) -> T:
        case, *given = arguments_of(signature, *args, **kwargs)
        shared: SharedReference = case.shared_reference
        key = (function, *(shared.run_key(one) if isinstance(one, Scenario) else one for one in given))
        return shared.memoize(key, lambda: function(*args, **kwargs))

    return recall


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelFingerprint:
    """What must be equal of two models for their cases to share results.

    Attributes:
        family: whose reference it is.
        described: the case without its config and depth, the model's modules, and what the family says of them.
        tensors: weights, rows of the fused projections, logits and gradients.
    """

    family: Family
    described: tuple[Hashable, ...]
    tensors: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """How many bytes the tensors take."""
        return sum(one.nbytes for one in self.tensors)

    def equals(self, other: ModelFingerprint) -> bool:
        """Whether the two models are equal in every part."""
        return (
            self.family is other.family
            and self.described == other.described
            and all(
                one.dtype == another.dtype and torch.equal(one, another)
                for one, another in zip(self.tensors, other.tensors, strict=True)
            )
        )


# Each model's results by key; the most recently used comes last.
_caches: list[tuple[ModelFingerprint, dict[Hashable, Any]]] = []


def forget() -> None:
    """Free every cache; for tests that must start without one."""
    _caches.clear()


def cache_for(reference: CaseReference) -> dict[Hashable, Any]:
    """Find the results of an earlier case with an equal model, by key; start an empty cache where there is none.

    The results of a model that cannot be built or run are not shared, and a check that asks for one meets the same
    exception. Any other exception is a mistake of this module, and is raised.
    """
    try:
        fingerprint = _fingerprint(reference)
    except (Blocked, Unrunnable):
        return {}
    except Exception as error:
        if _raised_by_model_or_family(error):
            return {}
        raise
    place = next((place for place, (one, _) in enumerate(_caches) if one.equals(fingerprint)), None)
    cache = (fingerprint, {}) if place is None else _caches.pop(place)
    _caches.append(cache)
    while sum(one.bytes for one, _ in _caches) > KEPT_BYTES:
        _caches.pop(0)
    return cache[1]


def _raised_by_model_or_family(error: Exception) -> bool:
    """Whether an exception came out of a method of Hugging Face's model, of a module in it, or of the family."""
    callers = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(isinstance(caller, nn.Module | Family) for caller in callers)


def _fingerprint(reference: CaseReference) -> ModelFingerprint:
    model, family = reference.model(), reference.family
    named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    paths = {module: name for name, module in model.named_modules()}
    rows = [family.qkv_rows(model, layer) for layer in attention_layers(family, model)]
    described = (
        replace(reference.spec, config={}, label=None, depth=Depth.ALL, circumstances=()),
        tuple((name, type(module), module.extra_repr()) for name, module in model.named_modules()),
        tuple((name, one.shape) for name, one in named.items()),
        tuple(point.name for point in reference.points),
        tuple((name, paths.get(module)) for name, module in family.components(model).items()),
        tuple((one.q.module, one.k.module, one.v.module) for one in rows),
    )
    with torch.enable_grad():
        logits = models.forward(model, reference.inputs()).logits
        gradients = models.differentiate(logits, reference.cotangent(), list(model.parameters()))
    return ModelFingerprint(
        family=family,
        described=described,
        tensors=(
            *(one.detach() for one in named.values()),
            *(part for one in rows for part in (one.q.rows, one.k.rows, one.v.rows, one.reads)),
            *(reference.output(scenario).logits for scenario in SEEN_ON),
            *gradients,
        ),
    )
