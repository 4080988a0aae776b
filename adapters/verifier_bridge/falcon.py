"""The description of Falcon: where its parts are, its block wirings and QKV layouts, and which models it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verifier_bridge.architecture import Architecture, BlockSpec, at_layer
from verifier_bridge.errors import BridgeRefusal
from verifier_bridge.qkv import QKVLayout

if TYPE_CHECKING:
    from torch import Tensor, nn

_HEAD_AND_TAIL = {
    "embed": "transformer.word_embeddings",
    "rotary_emb": "transformer.rotary_emb",
    "ln_final": "transformer.ln_f",
    "unembed": "lm_head",
}
_BLOCK = {
    "blocks.{i}": "transformer.h.{i}",
    "blocks.{i}.attn": "transformer.h.{i}.self_attention",
    "blocks.{i}.attn.qkv": "transformer.h.{i}.self_attention.query_key_value",
    "blocks.{i}.attn.o": "transformer.h.{i}.self_attention.dense",
    "blocks.{i}.mlp": "transformer.h.{i}.mlp",
    "blocks.{i}.mlp.in": "transformer.h.{i}.mlp.dense_h_to_4h",
    "blocks.{i}.mlp.act": "transformer.h.{i}.mlp.act",
    "blocks.{i}.mlp.out": "transformer.h.{i}.mlp.dense_4h_to_h",
}


def describe(model: nn.Module) -> Architecture:
    """Describe a `FalconForCausalLM`.

    Raises:
        BridgeRefusal: it is not Hugging Face's own class, or one whose forward cannot work; the message says why.
    """
    from transformers import FalconForCausalLM

    if not isinstance(model, FalconForCausalLM):
        raise BridgeRefusal(
            f"{type(model).__module__}.{type(model).__name__} is not the FalconForCausalLM of transformers"
        )
    config: Any = model.config
    n_layers = len(model.transformer.h)
    reason = refusal(config, n_layers=n_layers)
    if reason is None and n_layers:
        reason = _misfit(model, layout_of(config))
    if reason is not None:
        raise BridgeRefusal(f"this Falcon cannot be run: {reason}")
    return Architecture(
        paths={**_HEAD_AND_TAIL, **(_BLOCK | _norms(config) if n_layers else {})},
        n_layers=n_layers,
        causal=getattr(config, "is_causal", True),
        block=_block(model, config) if n_layers else None,
    )


def refusal(config: Any, *, n_layers: int) -> str | None:
    """Say why Hugging Face's own forward fails for this config; None if it works.

    A model without layers nearly always works: what fails is in the blocks.

    Args:
        config: Hugging Face's config of the model.
        n_layers: the number of blocks that the model really has.
    """
    if config.layer_norm_epsilon is None:
        return "layer_norm_epsilon is None; the layer norms need a number"
    if config.vocab_size < 1:
        return f"vocab_size is {config.vocab_size}; there is no token to embed"
    if config.num_hidden_layers < 0:
        return f"num_hidden_layers is {config.num_hidden_layers}; it must not be negative"
    return None if n_layers == 0 else _block_refusal(config)


def _block_refusal(config: Any) -> str | None:
    heads, kv_heads, norms = config.num_attention_heads, config.num_kv_heads, _norm_count(config)
    d_head = config.hidden_size // heads
    for name in ("hidden_dropout", "attention_dropout"):
        probability = getattr(config, name)
        if probability is None or not 0 <= probability <= 1:
            return f"{name} is {probability}; it must be a probability"
    if config.new_decoder_architecture:
        if not config.parallel_attn:
            return (
                "new_decoder_architecture with parallel_attn=False has no input for the MLP: its norms are built for "
                "a sequential block and read as for a parallel one; set parallel_attn=True"
            )
        if norms not in (1, 2):
            return f"new_decoder_architecture with num_ln_in_parallel_attn={norms} has no input for the MLP; set 1 or 2"
        if kv_heads < 1 or heads % kv_heads:
            return f"num_kv_heads={kv_heads} does not divide num_attention_heads={heads}"
    else:
        if config.parallel_attn and norms == 2:
            return (
                "num_ln_in_parallel_attn=2 without new_decoder_architecture builds ln_attn and ln_mlp and then looks "
                "for input_layernorm; set 1 or None"
            )
        # -1 is accepted as HF accepts it: it reshapes the keys to so many heads, and a reshape infers -1.
        if not config.multi_query and kv_heads not in (heads, -1):
            return (
                f"num_kv_heads={kv_heads} with neither multi_query nor new_decoder_architecture: the fused projection "
                f"has a key for each of the {heads} heads; set num_kv_heads={heads} or None"
            )
    if not config.alibi and d_head > 1 and d_head % 2:
        return (
            f"rotary positions need an even head dim, "
            f"and hidden_size={config.hidden_size} over {heads} heads gives {d_head}"
        )
    return None


def _misfit(model: Any, layout: QKVLayout) -> str | None:
    """Say where the built model contradicts its config; None if it does not."""
    first = model.transformer.h[0]
    missing = [path for path in (*_BLOCK.values(), *_norms(model.config).values()) if not _exists(model, path)]
    if missing:
        return f"its config says that it has {at_layer(missing[0], 0)}, which it lacks"
    rows = first.self_attention.query_key_value.weight.shape[0]
    if rows != layout.rows:
        return f"its fused projection has {rows} rows where its config means {layout.rows}"
    width = 2 * model.transformer.rotary_emb.inv_freq.numel()
    # A head of one dimension is broadcast against the two of its table.
    if not model.config.alibi and layout.d_head > 1 and width != layout.d_head:
        return f"its rotary table turns {width} dimensions, but each head has {layout.d_head}"
    return None


def _exists(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(at_layer(path, 0))
    except AttributeError:
        return False
    return True


def layout_of(config: Any) -> QKVLayout:
    """Find the fused layout: a group for each KV head (new), for all heads (multi-query), or for each head."""
    heads = config.num_attention_heads
    if config.new_decoder_architecture:
        groups = config.num_kv_heads
    elif config.multi_query:
        groups = 1
    else:
        groups = heads
    return QKVLayout(n_groups=groups, queries_per_group=heads // groups, d_head=config.hidden_size // heads)


def _norm_count(config: Any) -> int | None:
    """Read `num_ln_in_parallel_attn`, with the default that building the blocks would write into the config."""
    count: int | None = config.num_ln_in_parallel_attn
    return 2 if count is None and config.new_decoder_architecture else count


def _norms(config: Any) -> dict[str, str]:
    if config.new_decoder_architecture and _norm_count(config) == 2:
        return {"blocks.{i}.ln1": "transformer.h.{i}.ln_attn", "blocks.{i}.ln2": "transformer.h.{i}.ln_mlp"}
    first = {"blocks.{i}.ln1": "transformer.h.{i}.input_layernorm"}
    if config.new_decoder_architecture or config.parallel_attn:
        return first
    return first | {"blocks.{i}.ln2": "transformer.h.{i}.post_attention_layernorm"}


def _block(model: Any, config: Any) -> BlockSpec:
    from transformers.models.falcon import modeling_falcon

    return BlockSpec(
        layout=layout_of(config),
        parallel=bool(config.new_decoder_architecture or config.parallel_attn),
        rotate=None if config.alibi else modeling_falcon.apply_rotary_pos_emb,
        alibi=modeling_falcon.build_alibi_tensor if config.alibi else None,
        linear=unfused_linear,
        # Falcon drops entries of the pattern with ALiBi only.
        pattern_dropout=float(model.transformer.h[0].self_attention.attention_dropout.p) if config.alibi else 0.0,
        attn_dropout=float(config.attention_dropout),
        out_dropout=float(config.hidden_dropout),
    )


def unfused_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply as FalconLinear does: the bias is added after the product was rounded.

    Args:
        x: `[…, d_in]`.
        weight: `[d_out, d_in]`.
        bias: `[d_out]`, or None.

    Returns:
        `[…, d_out]`.
    """
    product = x @ weight.T
    return product if bias is None else product + bias
