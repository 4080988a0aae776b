"""Cases whose models are one and the same to Hugging Face: what it makes of the first stands for the others, too.

A config has values that HF does not look at where others are set, and every combination of them is a case, because an
adapter may look. To HF those cases are one model, and most of what a case costs on its side (activations under taps,
experiments, noise) is computed once for all of them.

That they are one is never assumed of a config. Each case's own model is built, and run forwards and backwards; only
where its modules, its weights, what the family says of it, its logits and its gradients are all equal to those of an
earlier case, on the same inputs, is that case's cache taken. What the adapter computes is in no cache.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from verifier.cases.spec import DEPTHS, Scenario
from verifier.family import Family
from verifier.observing import activations
from verifier.reference import models

if TYPE_CHECKING:
    from verifier.observing.case import Case

# How many bytes of fingerprints a process keeps; what is made of them takes about seven times as much. A tiny model's
# is a megabyte: enough for a matrix of some hundred cases to meet its like.
KEPT_BYTES = 2**25
# What is computed anyhow, of each model by itself: all of its tokens real, and padding of every kind.
SEEN_ON = (Scenario.PLAIN, Scenario.PADDED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelFingerprint:
    """What is compared of a case and its model.

    Attributes:
        family: whose reference it is.
        told: the case but for its config and for how much of it is looked at, the model's modules, and what the family
            says of them.
        tensors: weights, which fused row is whose, logits and gradients.
    """

    family: Family
    told: tuple[Hashable, ...]
    tensors: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """What its tensors take."""
        return sum(one.numel() * one.element_size() for one in self.tensors)

    def equals(self, other: ModelFingerprint) -> bool:
        """Whether nothing tells them apart."""
        return (
            self.family is other.family
            and self.told == other.told
            and all(
                one.dtype == another.dtype and torch.equal(one, another)
                for one, another in zip(self.tensors, other.tensors, strict=True)
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cache:
    fingerprint: ModelFingerprint
    bytes: int
    made: dict[Hashable, Any] = field(default_factory=dict)


_caches: list[_Cache] = []  # the one that was asked for last comes last


def forget() -> None:
    """Let go of everything; for tests, whose cases are to start from nothing."""
    _caches.clear()


def cache_for(case: Case) -> dict[Hashable, Any]:
    """What HF made of an earlier case whose model is the same one to it, by key; empty where there is none."""
    try:
        fingerprint = _fingerprint(case)
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
    return found.made


def _fingerprint(case: Case) -> ModelFingerprint:
    model: Any = case.reference()
    named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    paths = {module: name for name, module in model.named_modules()}
    components = {name: paths[module] for name, module in case.family.components(model).items()}
    layers = sorted({point.layer for point in case.points if point.layer is not None})
    rows = [case.family.qkv_rows(model, layer) for layer in layers]
    told = (
        replace(case.spec, config={}, label=None, depth=DEPTHS[0]),
        tuple((name, type(module), module.extra_repr()) for name, module in model.named_modules()),
        tuple((name, one.shape) for name, one in named.items()),
        tuple(point.name for point in case.points),
        tuple(components.items()),
        tuple((one.q.module, one.k.module, one.v.module) for one in rows),
    )
    return ModelFingerprint(
        family=case.family,
        told=told,
        tensors=(
            *(one.detach() for one in named.values()),
            *(part for one in rows for part in (one.q.rows, one.k.rows, one.v.rows, one.reads)),
            *(case.expected(scenario).logits for scenario in SEEN_ON),
            *_gradients(case, model),
        ),
    )


def _gradients(case: Case, model: nn.Module) -> list[Tensor]:
    scenario = SEEN_ON[0]
    with torch.enable_grad():
        logits = models.forward(model, case.inputs(scenario)).logits
        return activations.differentiate(logits, activations.cotangent(case, scenario), list(model.parameters()))
