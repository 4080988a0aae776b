"""Weight processings: norms folded, matrices centred, biases moved, without changing what the model computes.

Each processing is arithmetic on canonical weights, in their own dtype or in float32 if that is wider. Processing makes
a new model: a copy with untied weights of its own.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from verifier_bridge.components import BridgedNorm, computed_in
from verifier_bridge.errors import BridgeError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from verifier_bridge.architecture import Architecture
    from verifier_bridge.weights import WeightMap

Canonical = dict[str, Tensor]


class BridgeLike(Protocol):
    """The part of a bridge that a processing reads."""

    architecture: Architecture
    blocks: nn.ModuleList
    ln_final: BridgedNorm

    @property
    def model(self) -> nn.Module:
        """The Hugging Face model inside the bridge."""

    def weight_map(self) -> WeightMap:
        """Give the map between Hugging Face's weights and the canonical ones."""

    def canonical_weights(self) -> Canonical:
        """Give the weights by canonical names, in canonical shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processing:
    """One way of processing weights.

    Attributes:
        process: changes the canonical weights, which are wide already.
        obstacle: why it cannot be done to this model, or None.
        moves: what it changes: the ends of names of hook points, and `logits` and `log-probabilities`.
    """

    process: Callable[[BridgeLike, Canonical], None]
    obstacle: Callable[[BridgeLike, Mapping[str, Tensor]], str | None]
    moves: frozenset[str] = field(default=frozenset())


def available(bridge: BridgeLike) -> dict[str, Processing]:
    """Give the processings that can be applied to the bridge's model, by name."""
    weights = bridge.canonical_weights()
    return {name: one for name, one in PROCESSINGS.items() if one.obstacle(bridge, weights) is None}


def processed(bridge: BridgeLike, names: Collection[str]) -> nn.Module:
    """Make a copy of the bridge's Hugging Face model with all of these processings applied to its weights.

    Args:
        bridge: the bridge, which is not changed.
        names: names of processings; their order does not matter.

    Raises:
        BridgeError: there is no processing of that name, or it cannot be applied to this model; the message says why.
    """
    weight_map = bridge.weight_map()
    weights = weight_map.to_canonical(bridge.model.state_dict())
    for name in names:
        if name not in PROCESSINGS:
            raise BridgeError(unknown_name("processing", name, PROCESSINGS))
        reason = PROCESSINGS[name].obstacle(bridge, weights)
        if reason is not None:
            raise BridgeError(f"{name} cannot be done here: {reason}")
    wide = {name: weight.to(computed_in(weight.dtype)) for name, weight in weights.items()}
    for name, one in PROCESSINGS.items():  # in their order: what moves weights first, what centres them last
        if name in names:
            one.process(bridge, wide)
    narrow = {name: weight.to(weights[name].dtype) for name, weight in wide.items()}
    return _with_weights(bridge.model, weight_map.to_hugging_face(narrow))


def _with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Copy a model with these weights as its parameters, none of them tied.

    Args:
        model: stays as it is.
        weights: its whole state dict, of tensors that nobody else has.
    """
    known: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}  # replaced below
    # Most of a deep copy's time would go into the empty dicts of each module's hooks.
    for module in model.modules():
        known.update((id(one), OrderedDict()) for one in vars(module).values() if type(one) is OrderedDict and not one)
    made: Any = copy.deepcopy(model, known)
    made.load_state_dict(weights, assign=True)
    made.config.tie_word_embeddings = False
    return made  # type: ignore[no-any-return]


def _norms(bridge: BridgeLike) -> Iterator[tuple[str, BridgedNorm, tuple[str, ...]]]:
    """List every norm by name with the matrices that read it: `W_Q`'s bias is `b_Q`, and so on."""
    for layer, block in enumerate(bridge.blocks):
        attention = tuple(f"blocks.{layer}.attn.W_{letter}" for letter in "QKV")
        mlp = (f"blocks.{layer}.mlp.W_in",)
        one_for_both = block.ln2 is None and _parallel(bridge)
        yield f"blocks.{layer}.ln1", block.ln1, (*attention, *mlp) if one_for_both else attention  # type: ignore[misc]
        if block.ln2 is not None:
            yield f"blocks.{layer}.ln2", block.ln2, mlp  # type: ignore[misc]
    yield "ln_final", bridge.ln_final, ("unembed.W_U",)


def _bias_of(matrix: str) -> str:
    owner, _, name = matrix.rpartition(".")
    return f"{owner}.b{name.removeprefix('W')}"


def _fold_norms(bridge: BridgeLike, weights: Canonical) -> None:
    """`(x · w + b) W = x (w W) + b W`: the norm's weight goes into what reads it, and its bias into their biases.

    Where a reader has no bias, the norm keeps one, `b / w`: `(x + b / w) (w W)` is the same.
    """
    for norm, _, readers in _norms(bridge):
        if f"{norm}.w" not in weights:
            continue
        scale, shift = weights[f"{norm}.w"], weights.get(f"{norm}.b")
        movable = shift is not None and all(_bias_of(reader) in weights for reader in readers)
        for reader in readers:  # [head, d_model, d_head] or [d_model, d_out]
            if shift is not None and movable:
                weights[_bias_of(reader)] = weights[_bias_of(reader)] + shift @ weights[reader]
            weights[reader] = weights[reader] * scale[:, None]
        weights[f"{norm}.w"] = torch.ones_like(scale)
        if shift is not None:
            weights[f"{norm}.b"] = torch.zeros_like(shift) if movable else shift / scale


def _unfoldable(bridge: BridgeLike, weights: Mapping[str, Tensor]) -> str | None:
    for norm, _, readers in _norms(bridge):
        biased = f"{norm}.b" in weights and not all(_bias_of(reader) in weights for reader in readers)
        if biased and not bool(weights[f"{norm}.w"].all()):
            return f"{norm} has a weight of 0, and a bias that no bias after it can take"
    return None


def _fold_value_biases(bridge: BridgeLike, weights: Canonical) -> None:
    """Move value biases into the output bias: a pattern sums to one, so they add the same to `z` at each position."""
    for layer in range(len(bridge.blocks)):
        here = f"blocks.{layer}.attn"
        values, out = weights[f"{here}.b_V"], weights[f"{here}.W_O"]  # [kv_head, d_head], [head, d_head, d_model]
        each = values.repeat_interleave(out.shape[0] // values.shape[0], dim=0)  # [head, d_head]
        weights[f"{here}.b_O"] = weights[f"{here}.b_O"] + torch.einsum("hd,hdm->m", each, out)
        weights[f"{here}.b_V"] = torch.zeros_like(values)


def _no_value_biases(bridge: BridgeLike, weights: Mapping[str, Tensor]) -> str | None:
    if not len(bridge.blocks):
        return "there are no blocks"
    biases = (f"blocks.{layer}.attn.{bias}" for layer in range(len(bridge.blocks)) for bias in ("b_V", "b_O"))
    missing = next((bias for bias in biases if bias not in weights), None)
    return None if missing is None else f"there is no {missing}"


_WRITING = ("W_E", "W_O", "b_O", "W_out", "b_out")


def _centre_writing_weights(_bridge: BridgeLike, weights: Canonical) -> None:
    """Subtract from each writing matrix its mean over `d_model`, which every norm that reads the stream subtracts."""
    for name, weight in weights.items():
        if name.rpartition(".")[2] in _WRITING:  # [..., d_model]
            weights[name] = weight - weight.mean(-1, keepdim=True)


def _mean_is_seen(bridge: BridgeLike, _weights: Mapping[str, Tensor]) -> str | None:
    for name, norm, _ in _norms(bridge):
        if not norm.centres:
            return f"{name} does not take the mean off what it reads"
    if any(block.ln2 is None for block in bridge.blocks) and not _parallel(bridge):
        return "the MLP reads the residual stream without a norm"
    return None


def _parallel(bridge: BridgeLike) -> bool:
    return bridge.architecture.block is not None and bridge.architecture.block.parallel


def _centre_unembed(_bridge: BridgeLike, weights: Canonical) -> None:
    """Subtract the mean over the vocabulary, which does not change the softmax of the logits."""
    for name in ("unembed.W_U", "unembed.b_U"):  # [..., d_vocab]
        if name in weights:
            weights[name] = weights[name] - weights[name].mean(-1, keepdim=True)


def _never(_bridge: BridgeLike, _weights: Mapping[str, Tensor]) -> None:
    return None


PROCESSINGS: Mapping[str, Processing] = {
    "fold_norms": Processing(process=_fold_norms, obstacle=_unfoldable),
    "fold_value_biases": Processing(
        process=_fold_value_biases,
        obstacle=_no_value_biases,
        # In training it holds only as long as no entry of a pattern is dropped.
        moves=frozenset({"attn.hook_v", "attn.hook_z", "attn.hook_result"}),
    ),
    "centre_writing_weights": Processing(
        process=_centre_writing_weights,
        obstacle=_mean_is_seen,
        moves=frozenset(
            {
                "hook_embed",
                "hook_resid_pre",
                "attn.hook_result",
                "hook_attn_out",
                "hook_resid_mid",
                "hook_mlp_out",
                "hook_resid_post",
            }
        ),
    ),
    "centre_unembed": Processing(process=_centre_unembed, obstacle=_never, moves=frozenset({"logits"})),
}
