"""The adapter `bridge`: it offers the bridge to the harness, and adds nothing that the bridge does not do itself."""

from __future__ import annotations

import copy
import importlib.metadata
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

from verifier.adapter import (
    LOG_PROBABILITIES,
    LOGITS,
    AdapterRefusal,
    Edit,
    HookInfo,
    Inputs,
    Output,
    ProjectionLike,
    SplitQKV,
    Subject,
    Usage,
)
from verifier.canonical import template_of
from verifier_bridge.bridge import Bridge, BridgeOutput
from verifier_bridge.components import BridgedLinear, SplitProjection
from verifier_bridge.errors import BridgeError, BridgeRefusal
from verifier_bridge.facts import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set
    from contextlib import AbstractContextManager

    import torch
    from torch import Tensor, nn

    from verifier_bridge.kv_cache import KeyValueCache
    from verifier_bridge.qkv import Part

Capability = TypeVar("Capability")


def _version() -> str:
    try:
        return importlib.metadata.version("adapter-verifier")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class BridgeAdapter:
    """The adapter `bridge`: it wraps a Hugging Face model in a `Bridge`."""

    name = "bridge"
    version = _version()

    def wrap(self, model: nn.Module) -> BridgeSubject:
        """Bridge the model, which is not changed.

        Raises:
            AdapterRefusal: the model cannot be bridged.
        """
        try:
            return BridgeSubject(Bridge(model))
        except BridgeRefusal as refusal:
            raise AdapterRefusal(str(refusal)) from refusal

    def usage(self, given: Sequence[str]) -> Usage:
        """Give the code of a forward: the bridge takes its inputs by Hugging Face's names."""
        return Usage(
            imports=("from verifier_bridge import Bridge",),
            wrap=("subject = Bridge(model)",),
            logits=f"subject({', '.join(f'{name}={name}' for name in given)}).logits",
        )

    def reading(self, given: Sequence[str], point: str) -> tuple[str, ...]:
        """Give the code that reads an activation; `hook_result` needs `use_attn_result`.

        Args:
            given: the names of the inputs that the code passes.
            point: the name of the hook point that is read.

        Returns:
            The lines of code, which end with the activation in `found`.
        """
        inputs = ", ".join(f"{name}={name}" for name in given)
        return (
            *(("subject.use_attn_result = True",) if point.endswith(".hook_result") else ()),
            f'_, activations = subject.run_with_cache({inputs}, names=["{point}"])',
            f'found = activations["{point}"]',
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeHooks:
    """The hook points of a bridge, whose names are the canonical ones; there are no aliases."""

    bridge: Bridge

    def names(self) -> Mapping[str, HookInfo]:
        """Describe every hook point of the bridge, by name."""
        return {
            name: HookInfo(native_name=name, switch=point.switch) for name, point in self.bridge.hook_points.items()
        }

    def switched(self, names: Set[str]) -> AbstractContextManager[None]:
        """Turn on those of these hook points that are gated, until the context is left."""
        return self.bridge.switched(names)

    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """Attach the edits with `Bridge.hooked` until the context is left.

        Args:
            forward: edits of values, by hook point name.
            backward: edits of gradients with respect to values, by hook point name.
        """
        return self.bridge.hooked(forward, backward)

    def run_with_cache(self, inputs: Inputs, names: Set[str]) -> tuple[Output, Mapping[str, Tensor]]:
        """Run one forward with `Bridge.run_with_cache`.

        Args:
            inputs: of the forward.
            names: of the hook points.
        """
        output, activations = self.bridge.run_with_cache(**_arguments(inputs), names=names)
        return _as_output(output), activations


def _arguments(inputs: Inputs) -> dict[str, Any]:
    """Give the inputs that are given as arguments of a bridge's forward, which have the names of the fields."""
    given = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return {name: value for name, value in given.items() if value is not None}


def _as_output(output: BridgeOutput) -> Output:
    return Output(logits=output.logits, loss=output.loss, cache=output.cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeWeights:
    """The parameters of a bridge, in canonical names and shapes."""

    bridge: Bridge

    def split(self, layer: int) -> SplitQKV:
        """Give a layer's query, key and value projections as linear maps, split from the fused one.

        Raises:
            BridgeError: there is no such layer.
        """
        spec = self.bridge.architecture.block
        if spec is None or not 0 <= layer < len(self.bridge.blocks):
            raise BridgeError(f"there is no layer {layer}: the model has {len(self.bridge.blocks)}")
        fused = cast("BridgedLinear", self.bridge.get_submodule(f"blocks.{layer}.attn.qkv"))

        def projection(part: Part) -> ProjectionLike:
            # Its weight is a copy of the fused one as it is now: read, not assigned to.
            return SplitProjection(fused, layout=spec.layout, part=part, linear=spec.linear)

        return SplitQKV(q=projection("q"), k=projection("k"), v=projection("v"))

    def canonical(self) -> Mapping[str, Tensor]:
        """Give the bridge's weights by canonical names, in canonical shapes."""
        return self.bridge.canonical_weights()

    def gradients(self) -> Mapping[str, Tensor]:
        """Give the weights' gradients in canonical names and shapes; a weight that has none is left out."""
        return self.bridge.canonical_gradients()


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeProcessings:
    """The weight processings that a bridge can apply to its model."""

    bridge: Bridge

    def promises(self) -> Mapping[str, frozenset[str]]:
        """Promise everything except what the processing says that it moves."""
        points = {template_of(name) for name in self.bridge.hook_points} | {LOGITS, LOG_PROBABILITIES}
        return {
            name: frozenset(point for point in points if not point.endswith(tuple(one.moves)))
            for name, one in self.bridge.processings().items()
        }

    def apply(self, names: Set[str]) -> BridgeSubject:
        """Make a new subject, of a copy of the model with these processings applied."""
        return BridgeSubject(self.bridge.processed(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeCache:
    """Generation with the cache of a bridge."""

    bridge: Bridge

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
        """Continue greedily with the cache: `[batch, pos + max_new_tokens]`.

        Args:
            input_ids: `[batch, pos]`, the tokens to continue.
            max_new_tokens: the number of tokens to add to each row.
            attention_mask: `[batch, pos]`, 1 for a token and 0 for padding; None where nothing is padded.
        """
        return self.bridge.generate(input_ids, max_new_tokens=max_new_tokens, attention_mask=attention_mask)

    def crop(self, cache: KeyValueCache, length: int) -> KeyValueCache:
        """Give a new cache of the first positions.

        Args:
            cache: of an output of the bridge.
            length: how many positions are left.
        """
        return cache.crop(length)


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeComponents:
    """The components of a bridge, which take the arguments of the Hugging Face modules that they stand for."""

    bridge: Bridge

    def modules(self) -> Mapping[str, nn.Module]:
        """Give the bridged parts by canonical name."""
        return self.bridge.components()

    def run(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Run a bridged part alone; if it gives several outputs, take the first.

        Args:
            name: the canonical name of the part.
            args: positional arguments, as Hugging Face's module takes them.
            kwargs: keyword arguments, as Hugging Face's module takes them.
        """
        out = self.bridge.component(name)(*args, **kwargs)
        main: Tensor = out[0] if isinstance(out, tuple) else out
        return main


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeModes:
    """The modes of a bridge: training, casting, checkpointing, copies and state dicts."""

    bridge: Bridge

    def train(self, mode: bool) -> None:
        """Switch the bridge to training, or with False to evaluation."""
        self.bridge.train(mode)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        """Cast or move the bridge with `Bridge.to`.

        Args:
            dtype: the new dtype; None to keep it.
            device: the new device; None to stay.
        """
        self.bridge.to(device=device, dtype=dtype)

    def checkpointing(self, enabled: bool) -> None:
        """Turn gradient checkpointing of the bridge on or off."""
        self.bridge.gradient_checkpointing = enabled

    def copy(self) -> BridgeSubject:
        """Make a new subject, of a deep copy of the bridge."""
        return BridgeSubject(copy.deepcopy(self.bridge))

    def state_dict(self) -> Mapping[str, Tensor]:
        """Read the bridge's state dict, in its own keys."""
        return self.bridge.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict in the bridge's own keys, strictly."""
        self.bridge.load_state_dict(state)


def _of_bridge(part: Callable[..., Capability]) -> Capability:
    """Make a property that builds a capability from the subject's bridge; it is typed as the capability."""
    return cast("Capability", property(lambda subject: part(bridge=subject.bridge)))


class BridgeSubject(Subject):
    """A bridged model; each capability is built from the bridge when it is read."""

    hooks = _of_bridge(BridgeHooks)
    weights = _of_bridge(BridgeWeights)
    processings = _of_bridge(BridgeProcessings)
    cache = _of_bridge(BridgeCache)
    components = _of_bridge(BridgeComponents)
    modes = _of_bridge(BridgeModes)

    def __init__(self, bridge: Bridge) -> None:
        self._bridge: Bridge | None = bridge

    @property
    def bridge(self) -> Bridge:
        """The bridge of this subject.

        Raises:
            BridgeError: the subject was closed.
        """
        if self._bridge is None:
            raise BridgeError("this subject was closed; wrap the model again")
        return self._bridge

    def forward(self, inputs: Inputs) -> Output:
        """Run one forward through the bridge's own code."""
        return _as_output(self.bridge(**_arguments(inputs)))

    def facts(self) -> Mapping[str, object]:
        """Give what the bridge says of its model."""
        return facts(self.bridge)

    def close(self) -> None:
        """Remove every hook and release the model."""
        if self._bridge is not None:
            self._bridge.reset_hooks()
        self._bridge = None

    def restore(self, canonical: Mapping[str, Tensor], /) -> Mapping[str, Tensor]:
        """Turn canonical weights of a model like this one into Hugging Face's names and shapes."""
        return self.bridge.weight_map().to_hugging_face(canonical)
