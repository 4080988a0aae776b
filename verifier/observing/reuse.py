"""Share Hugging Face's results between cases whose models are equal.

HF ignores some values of a config where others are set. Every combination of them is still a case, because an adapter
may read them. To HF these cases are one model, and most of the cost on HF's side (activations under taps,
interventions, noise) is paid once for all of them.

Equality is never inferred from a config. Each case's own model is built, and run forwards and backwards. A case takes
the results of an earlier one only where modules, weights, the family's description, logits and gradients are all
equal on the same inputs. No result of an adapter is shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from verifier.cases.spec import Depth, Scenario
from verifier.family import Family
from verifier.observing.case_reference import CaseReference
from verifier.observing.memo import Memo
from verifier.reference import models

# How many bytes of fingerprints a process keeps; the results beside them take about seven times as much. A tiny model's
# fingerprint is a megabyte, so equal cases of a matrix of some hundred cases meet.
KEPT_BYTES = 2**25
# The runs that are compared between models. Each case needs them anyway: one with real tokens only, one with padding.
SEEN_ON = (Scenario.PLAIN, Scenario.PADDED)

T = TypeVar("T")


class SharedReference:
    """Results of Hugging Face's side that cases with equal models share.

    Invariant: two cases share results only where their models, built and run apart, are equal in all that
    `ModelFingerprint` holds. No result depends on an adapter, and nobody writes into one.
    """

    def __init__(self, reference: CaseReference, memo: Memo) -> None:
        self.reference = reference
        self._memo = memo

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

        return self._memo.memoize(key, find)

    def run_key(self, scenario: Scenario) -> tuple[Scenario, bytes]:
        """Name this case's run of a scenario, alike only for cases whose logits are equal there.

        Two models with one fingerprint may differ on other inputs, for example where RoPE is scaled beyond a length.
        """
        if scenario in SEEN_ON:
            return scenario, b""

        def make() -> bytes:
            return hashlib.blake2b(self.reference.output(scenario).logits.cpu().numpy().tobytes()).digest()

        return scenario, self._memo.memoize(("run", scenario), make)

    @cached_property
    def _cache(self) -> dict[Hashable, Any]:
        return {} if self.reference.is_large else cache_for(self.reference)


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
        return sum(one.numel() * one.element_size() for one in self.tensors)

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cache:
    fingerprint: ModelFingerprint
    bytes: int
    results: dict[Hashable, Any] = field(default_factory=dict)


_caches: list[_Cache] = []  # the most recently used comes last


def forget() -> None:
    """Free every cache; for tests that must start without one."""
    _caches.clear()


def cache_for(reference: CaseReference) -> dict[Hashable, Any]:
    """Find the results of an earlier case with an equal model, by key; start an empty cache where there is none."""
    try:
        fingerprint = _fingerprint(reference)
    except Exception:  # a check that asks for the same result raises it again
        return {}
    found = next((one for one in _caches if one.fingerprint.equals(fingerprint)), None)
    if found is None:
        found = _Cache(fingerprint=fingerprint, bytes=fingerprint.bytes)
    else:
        _caches.remove(found)
    _caches.append(found)
    while sum(one.bytes for one in _caches) > KEPT_BYTES:
        _caches.pop(0)
    return found.results


def _fingerprint(reference: CaseReference) -> ModelFingerprint:
    model, family = reference.model(), reference.family
    named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    paths = {module: name for name, module in model.named_modules()}
    layers = sorted({point.layer for point in reference.points if point.layer is not None})
    rows = [family.qkv_rows(model, layer) for layer in layers]
    described = (
        replace(reference.spec, config={}, label=None, depth=Depth.ALL),
        tuple((name, type(module), module.extra_repr()) for name, module in model.named_modules()),
        tuple((name, one.shape) for name, one in named.items()),
        tuple(point.name for point in reference.points),
        tuple((name, paths[module]) for name, module in family.components(model).items()),
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
