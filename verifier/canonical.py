"""The vocabulary: canonical hook points and weights, their axes, order and conventions.

Names, axes and conventions are TransformerLens'. An adapter says which of its own names is which; the checks
speak only these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of hook point: what stands there in every layer that has it.

    `axes` name the tensor's dimensions: `head` runs over query heads, `kv_head` over key/value heads (unexpanded:
    one entry for each head that the weights have), `query` and `key` over positions.
    """

    template: str
    axes: tuple[str, ...]
    meaning: str

    @property
    def in_block(self) -> bool:
        """Whether it stands once in each block."""
        return "{i}" in self.template

    def at(self, layer: int) -> str:
        """The name in one layer."""
        return self.template.replace("{i}", str(layer))


RESIDUAL = ("batch", "pos", "d_model")
SCALE = ("batch", "pos", "1")
QUERY = ("batch", "pos", "head", "d_head")
KEY_VALUE = ("batch", "pos", "kv_head", "d_head")
ATTENTION = ("batch", "head", "query", "key")
RESULT = ("batch", "pos", "head", "d_model")
HIDDEN = ("batch", "pos", "d_mlp")

_BLOCK = "blocks.{i}."

# In causal order: a point's value never depends on one that stands after it.
KINDS: tuple[Kind, ...] = (
    Kind(template="hook_embed", axes=RESIDUAL, meaning="token embeddings"),
    Kind(template=_BLOCK + "hook_resid_pre", axes=RESIDUAL, meaning="residual stream into the block"),
    Kind(template=_BLOCK + "ln1.hook_scale", axes=SCALE, meaning="what the attention's norm divides by"),
    Kind(
        template=_BLOCK + "ln1.hook_normalized",
        axes=RESIDUAL,
        meaning="the attention's input, centred where the norm centres and divided by its scale; "
        "before the norm's weight and bias",
    ),
    Kind(template=_BLOCK + "attn.hook_q", axes=QUERY, meaning="queries before rotary"),
    Kind(template=_BLOCK + "attn.hook_k", axes=KEY_VALUE, meaning="keys before rotary"),
    Kind(template=_BLOCK + "attn.hook_v", axes=KEY_VALUE, meaning="values"),
    Kind(template=_BLOCK + "attn.hook_rot_q", axes=QUERY, meaning="queries after rotary"),
    Kind(template=_BLOCK + "attn.hook_rot_k", axes=KEY_VALUE, meaning="keys after rotary"),
    Kind(
        template=_BLOCK + "attn.hook_attn_scores",
        axes=ATTENTION,
        meaning="what the softmax is taken of: scaled, position bias and mask in it",
    ),
    Kind(template=_BLOCK + "attn.hook_pattern", axes=ATTENTION, meaning="attention probabilities"),
    Kind(template=_BLOCK + "attn.hook_z", axes=QUERY, meaning="values mixed by the pattern"),
    Kind(
        template=_BLOCK + "attn.hook_result",
        axes=RESULT,
        meaning="what each head writes to the residual stream, without the output bias",
    ),
    Kind(template=_BLOCK + "hook_attn_out", axes=RESIDUAL, meaning="the attention's output, bias in it"),
    Kind(
        template=_BLOCK + "hook_resid_mid",
        axes=RESIDUAL,
        meaning="residual stream between attention and MLP; a parallel block has none",
    ),
    Kind(template=_BLOCK + "ln2.hook_scale", axes=SCALE, meaning="what the MLP's own norm divides by"),
    Kind(
        template=_BLOCK + "ln2.hook_normalized", axes=RESIDUAL, meaning="as ln1.hook_normalized, of the MLP's own norm"
    ),
    Kind(template=_BLOCK + "mlp.hook_pre", axes=HIDDEN, meaning="the MLP's hidden units before the activation"),
    Kind(template=_BLOCK + "mlp.hook_pre_linear", axes=HIDDEN, meaning="a gated MLP's other half, before the product"),
    Kind(
        template=_BLOCK + "mlp.hook_post",
        axes=HIDDEN,
        meaning="the MLP's hidden units, as its output matrix reads them",
    ),
    Kind(template=_BLOCK + "hook_mlp_out", axes=RESIDUAL, meaning="the MLP's output"),
    Kind(template=_BLOCK + "hook_resid_post", axes=RESIDUAL, meaning="residual stream out of the block"),
    Kind(template="ln_final.hook_scale", axes=SCALE, meaning="what the final norm divides by"),
    Kind(template="ln_final.hook_normalized", axes=RESIDUAL, meaning="as ln1.hook_normalized, of the final norm"),
)
_BY_TEMPLATE = {kind.template: kind for kind in KINDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One canonical hook point of one model: a kind, and the layer that it stands in (None outside the blocks)."""

    kind: Kind
    layer: int | None

    @property
    def name(self) -> str:
        return self.kind.template if self.layer is None else self.kind.at(self.layer)

    @property
    def axes(self) -> tuple[str, ...]:
        return self.kind.axes


def points(templates: Sequence[str], n_layers: int) -> tuple[Point, ...]:
    """The hook points of a model of `n_layers` blocks that has the given kinds, in causal order.

    Raises:
        KeyError: a template is not in the vocabulary.
    """
    wanted = {_BY_TEMPLATE[template].template for template in templates}
    kinds = [kind for kind in KINDS if kind.template in wanted]
    inner = [kind for kind in kinds if kind.in_block]
    first, last = (inner[0], inner[-1]) if inner else (None, None)
    before = kinds[: kinds.index(first)] if first else [kind for kind in kinds if kind.template == "hook_embed"]
    after = kinds[kinds.index(last) + 1 :] if last else [kind for kind in kinds if kind not in before]
    return (
        *(Point(kind=kind, layer=None) for kind in before),
        *(Point(kind=kind, layer=layer) for layer in range(n_layers) for kind in inner),
        *(Point(kind=kind, layer=None) for kind in after),
    )


def template_of(name: str) -> str:
    """`blocks.3.attn.hook_q` → `blocks.{i}.attn.hook_q`, HF's `h.3.mlp` → `h.{i}.mlp`: the place in any layer."""
    return ".".join("{i}" if part.isdigit() else part for part in name.split("."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A canonical weight: its name in the model and the meaning of its axes."""

    template: str
    axes: tuple[str, ...]


# Absent ones (no bias, no second norm, no gate) are simply not there.
WEIGHTS: tuple[Weight, ...] = (
    Weight(template="embed.W_E", axes=("d_vocab", "d_model")),
    Weight(template=_BLOCK + "ln1.w", axes=("d_model",)),
    Weight(template=_BLOCK + "ln1.b", axes=("d_model",)),
    Weight(template=_BLOCK + "attn.W_Q", axes=("head", "d_model", "d_head")),
    Weight(template=_BLOCK + "attn.W_K", axes=("kv_head", "d_model", "d_head")),
    Weight(template=_BLOCK + "attn.W_V", axes=("kv_head", "d_model", "d_head")),
    Weight(template=_BLOCK + "attn.W_O", axes=("head", "d_head", "d_model")),
    Weight(template=_BLOCK + "attn.b_Q", axes=("head", "d_head")),
    Weight(template=_BLOCK + "attn.b_K", axes=("kv_head", "d_head")),
    Weight(template=_BLOCK + "attn.b_V", axes=("kv_head", "d_head")),
    Weight(template=_BLOCK + "attn.b_O", axes=("d_model",)),
    Weight(template=_BLOCK + "ln2.w", axes=("d_model",)),
    Weight(template=_BLOCK + "ln2.b", axes=("d_model",)),
    Weight(template=_BLOCK + "mlp.W_in", axes=("d_model", "d_mlp")),
    Weight(template=_BLOCK + "mlp.W_gate", axes=("d_model", "d_mlp")),
    Weight(template=_BLOCK + "mlp.b_in", axes=("d_mlp",)),
    Weight(template=_BLOCK + "mlp.b_gate", axes=("d_mlp",)),
    Weight(template=_BLOCK + "mlp.W_out", axes=("d_mlp", "d_model")),
    Weight(template=_BLOCK + "mlp.b_out", axes=("d_model",)),
    Weight(template="ln_final.w", axes=("d_model",)),
    Weight(template="ln_final.b", axes=("d_model",)),
    Weight(template="unembed.W_U", axes=("d_model", "d_vocab")),
    Weight(template="unembed.b_U", axes=("d_vocab",)),
)

# The canonical components, which `Components` of an adapter and `components` of a family name alike.
COMPONENTS: tuple[str, ...] = (
    "embed",
    "rotary_emb",
    "blocks.{i}",
    "blocks.{i}.ln1",
    "blocks.{i}.attn",
    "blocks.{i}.attn.qkv",
    "blocks.{i}.attn.q",
    "blocks.{i}.attn.k",
    "blocks.{i}.attn.v",
    "blocks.{i}.attn.o",
    "blocks.{i}.ln2",
    "blocks.{i}.mlp",
    "blocks.{i}.mlp.in",
    "blocks.{i}.mlp.gate",
    "blocks.{i}.mlp.out",
    "ln_final",
    "unembed",
)


LOGIT_AXES = ("batch", "pos", "d_vocab")

_AXES = {
    "logits": LOGIT_AXES,
    **{kind.template: kind.axes for kind in KINDS},
    **{weight.template: weight.axes for weight in WEIGHTS},
}


def axes_of(name: str) -> tuple[str, ...] | None:
    """The axes of a hook point, of a weight, or of the logits, by name; None of anything else."""
    return _AXES.get(template_of(name))
