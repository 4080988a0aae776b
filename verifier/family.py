"""What a model family must look like: the reference side of the comparison, which knows no adapter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from verifier import plugins
from verifier.adapter import Edit
from verifier.canonical import Point

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


GROUP = "verifier.families"

Config = Mapping[str, Any]
"""Flags and dims by the names of HF's config class: plain values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Where a projection's rows are: `rows [head, d_head]` index the outputs of the linear module at `module`."""

    module: str
    rows: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class QKVRows:
    """Which row of which module is which head's query, key or value, read off HF's own code.

    Attributes:
        q: rows `[head, d_head]`.
        k: rows `[kv_head, d_head]`, unexpanded.
        v: rows `[kv_head, d_head]`, unexpanded.
        reads: `[head]`: the key/value head that each query head reads.
    """

    q: Projection
    k: Projection
    v: Projection
    reads: Tensor


class Taps(Protocol):
    """What one forward showed at the points that were asked for."""

    @property
    def values(self) -> Mapping[str, Tensor]:
        """By point: the tensor before any edit, in canonical axes and in the graph."""


@runtime_checkable
class Family(Protocol):
    """One model family of Hugging Face.

    Attributes:
        name: as on the command line.
        architecture: HF's class name, `FalconForCausalLM`.
        reference_attention: HF's attention implementation that is right; the family's module says why.
        attentions: every implementation of HF's that runs here, the reference one included.
    """

    @property
    def name(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def reference_attention(self) -> str: ...
    @property
    def attentions(self) -> tuple[str, ...]: ...

    def flags(self) -> Mapping[str, Sequence[Any]]:
        """Every flag and its values; the matrix is their product. The first value is the flag's plainest. No torch."""

    def dims(self) -> Config:
        """The tiny dims that the matrix gives to every flag combination. No torch."""

    def corners(self) -> Mapping[str, Config]:
        """Named configs beyond the product: other shapes, published traps, odd ones that HF refuses. No torch."""

    def presets(self) -> Mapping[str, Config]:
        """Published checkpoints by name, at full width and reduced depth. No torch."""

    def dropouts(self) -> Config:
        """What to set in a config for every dropout of the model to act; empty where it has none. No torch."""

    def refusal(self, config: Config) -> str | None:
        """Why HF refuses the config, in words, or None where it accepts it. No torch."""

    def build(
        self,
        config: Config,
        *,
        dtype: torch.dtype,
        device: str,
        attention: str,
        seed: int,
        checkpoint: str | None = None,
    ) -> PreTrainedModel:
        """HF's own model in evaluation mode, built in its dtype and not cast to it.

        Its weights are random, or those of the folder `checkpoint`. Two calls with one seed give equal weights (up
        to rounding to the dtype) and share nothing.
        """

    def points(self, config: Config) -> Sequence[Point]:
        """The canonical hook points that a model of this config has, in causal order. No torch."""

    def taps(
        self, model: nn.Module, *, names: Collection[str] | None = None, edits: Mapping[str, Edit] | None = None
    ) -> AbstractContextManager[Taps]:
        """Read (all points, or those named) and edit activations of an untouched model, in canonical axes."""

    def qkv_rows(self, model: nn.Module, layer: int) -> QKVRows:
        """Which fused row is which head's query, key or value, read off HF's own split."""

    def components(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """HF's module for each canonical component that has one."""


@runtime_checkable
class Fuzzes(Protocol):
    """What a family may say besides: what else of its configs varies, for `verifier fuzz`."""

    def fuzzed(self) -> Mapping[str, Sequence[Any]]:
        """Fields and their values, the plainest first: heads, head dims, depths, activations, … A flag that is named
        here has these values instead of those of `flags()`. No torch."""

    def fuzzed_config(self, chosen: Mapping[str, Any]) -> Config:
        """The config of one value for each flag and field; what it leaves out is as in `dims()`. HF may refuse it. No
        torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSource:
    """Where Hugging Face's model shows an activation, as Python code that needs torch alone.

    Attributes:
        module: the submodule whose forward hook sees it: `transformer.h.0.mlp`.
        value: an expression for it, in its canonical axes, of what a forward hook is given (`module`, `args`, `output`)
            and of the whole `model`. What the model writes into afterwards is cloned.
    """

    module: str
    value: str


@runtime_checkable
class ShowsPoints(Protocol):
    """What a family may say besides: where HF's model shows its activations, for `verifier repro --script`."""

    def point_source(self, config: Config, name: str) -> PointSource | None:
        """Where the activation at one of `points(config)` is seen; None where that takes more than a line. No torch."""


def is_family(candidate: object) -> bool:
    """Whether it has a family's attributes."""
    return isinstance(candidate, Family)


def load(reference: str) -> Family:
    """The family of that registered name or `module:object`.

    Raises:
        UsageError: nothing has that name, or it is no family.
        ImportFailed: it raised at import.
    """
    found: Family = plugins.load(reference, group=GROUP, kind="family", is_one=is_family, needs=plugins.members(Family))
    return found


def registered() -> tuple[str, ...]:
    """The names of the installed families."""
    return plugins.names(GROUP)
