"""The subject: one TransformerBridge, called as TransformerLens' documentation tells its users to."""

from __future__ import annotations

import copy
from itertools import chain
from typing import TYPE_CHECKING, Any

from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.sources import build_bridge_from_module

from verifier.adapter import Change, Inputs, Output, Subject
from verifier_lens.calling import call
from verifier_lens.components import LensComponents
from verifier_lens.facts import facts
from verifier_lens.generation import LensCache
from verifier_lens.hooks import LensHooks
from verifier_lens.modes import LensModes
from verifier_lens.processing import LensProcessings
from verifier_lens.weights import LensWeights

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from torch import nn
    from transformer_lens.model_bridge import TransformerBridge

# "Modifies it in place: bridge components replace its submodules, and adapter.prepare_model may switch it to eager
# attention or patch forwards and buffers" (build_bridge_from_module); bridge blocks and split attentions register
# module hooks of their own on what they put in (BlockBridge, JointQKVAttentionBridge).
CHANGES: frozenset[Change] = frozenset({"modules", "forwards", "buffers", "attention", "hooks"})


def architectures() -> Set[str]:
    """List the names of Hugging Face's classes for which TransformerLens, or a plugin of it, has an adapter."""
    ArchitectureAdapterFactory.discover_entry_points()
    return ArchitectureAdapterFactory._adapters.keys()  # its public table lacks what was registered later


def wrap(model: nn.Module) -> LensSubject:
    """Make a subject of the model, which TransformerLens takes apart."""
    source = structure(model)
    return LensSubject(build(model), source)


def build(model: nn.Module) -> TransformerBridge:
    """Build TransformerLens' bridge around the model, which it modifies."""
    return build_bridge_from_module(model, type(model).__name__, hf_config=model.config)


def structure(model: nn.Module) -> nn.Module:
    """Copy the model's modules and config, and share its parameters and buffers.

    A bridge cannot be taken back apart, and TransformerLens tells its users to build a fresh one for another weight
    processing. This is what a fresh one is built from, at no memory of its own.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


class LensSubject(Subject):
    """A wrapped model.

    `source` is the model as it was given: the same tensors in modules that no bridge has touched.
    """

    declared_mutations = CHANGES

    def __init__(self, bridge: TransformerBridge, source: nn.Module) -> None:
        self.bridge = bridge
        self.source = source
        self.hooks = LensHooks(bridge)
        self.weights = LensWeights(bridge)
        self.components = LensComponents(bridge)
        self.modes = LensModes(bridge, self._copied)
        # An adapter of TransformerLens says so itself where its models cannot be decoded with a key/value cache.
        if bridge.adapter.supports_generation and bridge.adapter.supports_kv_cache:
            self.cache = LensCache(bridge)
        # And where its compatibility mode, through which weights are processed, is known to be wrong.
        if bridge.adapter.supports_compatibility_mode:
            self.processings = LensProcessings(bridge, self._processed)

    def forward(self, inputs: Inputs) -> Output:
        """Run one forward of the bridge.

        Raises:
            AdapterRefusal: labels with a cache asked for; the bridge gives back one of the two.
        """
        return call(self.bridge, inputs)

    def facts(self) -> Mapping[str, object]:
        """Give what the bridge's config says of the model."""
        return facts(self.bridge)

    def close(self) -> None:
        """Let the bridge release what it holds, and let go of the bridge."""
        self.bridge.close()
        vars(self).clear()

    def _processed(self, flags: Mapping[str, bool]) -> LensSubject:
        fresh = copy.deepcopy(self.source)
        source = structure(fresh)
        bridge = build(fresh)
        bridge.enable_compatibility_mode(disable_warnings=True, **flags)
        # Only now: compatibility mode makes the registry of hook points anew.
        return LensSubject(bridge, source)

    def _copied(self) -> LensSubject:
        # In one go, so that what the two share here they share in the copy.
        return LensSubject(*copy.deepcopy((self.bridge, self.source)))
