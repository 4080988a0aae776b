"""The family protocol: what describes a model family of Hugging Face, the reference side, which knows no adapter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

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
    """The place of a projection's rows: `rows [head, d_head]` index the outputs of the linear module `module`."""

    module: str
    rows: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class QKVRows:
    """The rows of each head's query, key and value in HF's modules, read off HF's own code.

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
    """The activations of one forward at the points that were asked for."""

    @property
    def values(self) -> Mapping[str, Tensor]:
        """The tensor at each point before any edit, in canonical axes and in the graph."""


@runtime_checkable
class Family(Protocol):
    """One model family of Hugging Face.

    Attributes:
        name: the name on the command line.
        architecture: HF's class name, `FalconForCausalLM`.
        reference_attention: the attention implementation of HF that is right; the family's module says why.
        attentions: every attention implementation of HF that runs here, including the reference.
    """

    @property
    def name(self) -> str:
        """The name on the command line."""

    @property
    def architecture(self) -> str:
        """HF's class name, `FalconForCausalLM`."""

    @property
    def reference_attention(self) -> str:
        """The attention implementation of HF that is right, one of `attentions`."""

    @property
    def attentions(self) -> tuple[str, ...]:
        """Every attention implementation of HF that runs here, including the reference."""

    def flags(self) -> Mapping[str, Sequence[Any]]:
        """List the values of every flag, the plainest first; the matrix is their product. Imports no torch."""

    def dims(self) -> Config:
        """Give the tiny dims of every flag combination in the matrix. Imports no torch."""

    def corners(self) -> Mapping[str, Config]:
        """Name configs beside the matrix: other shapes, published traps, odd ones that HF refuses. Imports no torch."""

    def presets(self) -> Mapping[str, Config]:
        """Give the configs of published checkpoints by name, at full width and reduced depth. Imports no torch."""

    def dropouts(self) -> Config:
        """Give what to set in a config so that every dropout acts; empty if there is none. Imports no torch."""

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
        """Build HF's own model in evaluation mode, in its dtype and not cast to it.

        Its weights are random, or those of the folder `checkpoint`. Two calls with one seed give equal weights (up
        to rounding to the dtype) and share nothing.

        Args:
            config: the flags and dims of the model.
            dtype: the dtype of the weights.
            device: where the model is, as torch names it.
            attention: the attention implementation, as HF names it.
            seed: of the random weights.
            checkpoint: the folder whose weights are loaded; None for random weights.

        Raises:
            Unrunnable: HF accepts the config and cannot load the checkpoint.
            Exception: whatever HF raises for a config that it refuses.
        """

    def points(self, config: Config) -> Sequence[Point]:
        """List the canonical hook points of a model of this config, in causal order. Imports no torch.

        A family that does not say which configs HF refuses is also asked about such configs.
        """

    def taps(
        self, model: nn.Module, *, names: Collection[str] | None = None, edits: Mapping[str, Edit] | None = None
    ) -> AbstractContextManager[Taps]:
        """Read (all points, or those named) and edit activations of an untouched model, in canonical axes.

        Args:
            model: a model that `build` gave.
            names: the canonical names of the points to read, besides those with edits; None for all.
            edits: by canonical name, what replaces the activation at a point.

        Returns:
            A context in which to run one forward. It gives the `Taps`; when it is left, the model is as it was before.
        """

    def qkv_rows(self, model: nn.Module, layer: int) -> QKVRows:
        """Find which fused row is which head's query, key or value, read off HF's own split.

        Args:
            model: a model that `build` gave.
            layer: the number of the block, from 0.
        """

    def components(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Give HF's module for each canonical component that has one."""


@runtime_checkable
class RefusesConfigs(Protocol):
    """A family that also says in words which configs HF refuses; HF itself is asked about those of other families.

    The check `reference.acceptance` holds what it says against HF.
    """

    def refusal(self, config: Config) -> str | None:
        """Say why HF refuses a config; None if HF accepts it. Imports no torch."""


@runtime_checkable
class Fuzzes(Protocol):
    """A family that also says what else in its configs varies, for `verifier fuzz`."""

    def fuzzed(self) -> Mapping[str, Sequence[Any]]:
        """List the values of further fields, the plainest first: heads, head dims, depths, activations and so on.

        A flag that is named here has these values instead of those of `flags()`. Imports no torch.
        """

    def fuzzed_config(self, chosen: Mapping[str, Any]) -> Config:
        """Make the config of one value for each flag and field, which HF may refuse.

        What the config leaves out is as in `dims()`. Imports no torch.
        """


@runtime_checkable
class Reshapes(Protocol):
    """A family that also has other shapes for its configs, for the axis `dims` of circumstances."""

    def reshaped(self, config: Config, dims: str) -> dict[str, Any] | None:
        """Give a config other shapes, with every flag as it is; None if there are no such shapes. Imports no torch.

        Args:
            config: the flags and dims of a model.
            dims: one of the values of that axis: `even`, `many` or `wide`.
        """


@runtime_checkable
class RefusesCircumstances(Protocol):
    """A family that also knows circumstances in which HF's model of a config cannot be called."""

    def circumstance_refusal(self, config: Config, circumstance: Mapping[str, str]) -> str | None:
        """Say why HF's model cannot be called in a circumstance; None if it can. Imports no torch.

        Args:
            config: the flags and dims of the model.
            circumstance: a value for each axis.
        """


@runtime_checkable
class TellsLongestText(Protocol):
    """A family that also knows how many positions its models have, where a longer text cannot be given to them."""

    def longest_text(self, config: Config) -> int | None:
        """Say how many positions HF's model of a config has; None if a text may be of any length. Imports no torch.

        The tokens of a cache and those that are generated count. A model that learns a vector for each position has as
        many as vectors; one whose positions are rotary or ALiBi's has no limit, whatever its config calls its maximum.

        Args:
            config: the flags and dims of the model, as a circumstance may have changed them.
        """


@runtime_checkable
class TellsFacts(Protocol):
    """A family that also says facts of its models, against which the `facts` of adapters are held."""

    def facts(self, model: Any) -> Mapping[str, object]:
        """Give what is so of HF's model, read off it and its config, by the names of `verifier.canonical.FACTS`.

        A fact that the model does not have, as the base of rotary positions where there are none, is left out.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSource:
    """Where Hugging Face's model shows an activation, as Python code that needs torch alone.

    Attributes:
        module: the submodule whose forward hook sees the activation: `transformer.h.0.mlp`.
        value: an expression for the activation in its canonical axes, of what a forward hook is given (`module`,
            `args`, `output`) and of the whole `model`. It clones what the model writes into afterwards.
    """

    module: str
    value: str


@runtime_checkable
class ShowsPoints(Protocol):
    """A family that also says where HF's model shows its activations, for `verifier repro --script`."""

    def point_source(self, config: Config, name: str) -> PointSource | None:
        """Say where one of `points(config)` is seen; None if that takes more than a line. Imports no torch.

        Args:
            config: the flags and dims of the model.
            name: the canonical name of the point.
        """


def predicate_of(family: Family) -> RefusesConfigs | None:
    """Give the family if it says in words which configs HF refuses, else None."""
    # A planted family passes the right one's methods on, which `isinstance` does not see from Python 3.12 on.
    return cast(RefusesConfigs, family) if hasattr(family, "refusal") else None


def longest_text_of(family: Family, config: Config) -> int | None:
    """Ask a family how many positions its model of a config has; None where it tells no limit.

    Args:
        family: of the config.
        config: the flags and dims of the model.
    """
    return family.longest_text(config) if isinstance(family, TellsLongestText) else None


def is_family(candidate: object) -> bool:
    """Whether an object has a family's attributes."""
    return isinstance(candidate, Family)


def load(reference: str) -> Family:
    """Load a family by its registered name or as `module:object`.

    Raises:
        UsageError: nothing has that name, or the object is no family.
        ImportFailed: importing it raised.
    """
    needs = plugins.members(Family)
    family: Family = plugins.load(reference, group=GROUP, kind="family", is_one=is_family, needs=needs)
    return family


def registered() -> tuple[str, ...]:
    """List the names of the installed families."""
    return plugins.names(GROUP)
