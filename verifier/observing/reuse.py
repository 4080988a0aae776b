"""Cases whose models are one and the same to Hugging Face: what it makes of the first stands for the others, too.

A config has values that HF does not look at where others are set, and every combination of them is a case, because an
adapter may look. To HF those cases are one model, and most of what a case costs on its side (activations under taps,
interventions, noise) is computed once for all of them.

That they are one is never assumed of a config. Each case's own model is built, and run forwards and backwards; only
where its modules, its weights, what the family says of it, its logits and its gradients are all equal to those of an
earlier case, on the same inputs, is that case's cache taken. What the adapter computes is in no cache.
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

# How many bytes of fingerprints a process keeps; what is made of them takes about seven times as much. A tiny model's
# is a megabyte: enough for a matrix of some hundred cases to meet its like.
KEPT_BYTES = 2**25
# What is computed anyhow, of each model by itself: all of its tokens real, and padding of every kind.
SEEN_ON = (Scenario.PLAIN, Scenario.PADDED)

T = TypeVar("T")


class SharedReference:
    """Results of Hugging Face's side that cases may share.

    Invariant: a result stands for another case only where the two models, built and run apart, are equal in all that
    `ModelFingerprint` holds. No result depends on an adapter, and nobody writes into one.
    """

    def __init__(self, reference: CaseReference, memo: Memo) -> None:
        self.reference = reference
        self._memo = memo

    def memoize(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned for this key, for this case or for one with the same model.

        Args:
            key: names the result; with `run_key` in it, where it hangs on a scenario.
            make: computes it from HF's model and the inputs alone.
        """

        def find() -> T:
            cache = self._cache
            if key not in cache:
                cache[key] = make()
            value: T = cache[key]
            return value

        return self._memo.memoize(key, find)

    def run_key(self, scenario: Scenario) -> tuple[Scenario, bytes]:
        """The scenario, and what tells this case's run of it from another's.

        On other inputs than those of the fingerprint two models may differ, as where positions are scaled beyond a
        length.
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
    """What is compared of two models.

    Attributes:
        family: whose reference it is.
        described: the case but for its config and for how much of it is looked at, the model's modules, and what the
            family says of them.
        tensors: weights, which fused row is whose, logits and gradients.
    """

    family: Family
    described: tuple[Hashable, ...]
    tensors: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """How many bytes its tensors take."""
        return sum(one.numel() * one.element_size() for one in self.tensors)

    def equals(self, other: ModelFingerprint) -> bool:
        """Whether nothing tells the two models apart."""
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


_caches: list[_Cache] = []  # the one that was asked for last comes last


def forget() -> None:
    """Let go of every cache; for tests, whose cases are to start from nothing."""
    _caches.clear()


def cache_for(reference: CaseReference) -> dict[Hashable, Any]:
    """The results of an earlier case with the same model, by key; empty where there is none."""
    try:
        fingerprint = _fingerprint(reference)
    except Exception:  # what HF cannot do is raised again where a check asks for it
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
