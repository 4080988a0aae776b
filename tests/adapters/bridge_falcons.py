"""Tiny Falcons for the bridge's tests: every flag combination, weights that show bugs, and HF's own activations."""

from __future__ import annotations

import copy
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import FalconConfig, FalconForCausalLM
from verifier_bridge import Bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

torch.set_num_threads(1)

SHAPE: dict[str, Any] = {
    "hidden_size": 72,
    "num_attention_heads": 12,  # not a power of two, and enough for ALiBi's slopes to show their rounding
    "num_hidden_layers": 2,
    "vocab_size": 113,
    "ffn_hidden_size": 100,
}
FLAGS: dict[str, tuple[Any, ...]] = {
    "multi_query": (True, False),
    "new_decoder_architecture": (True, False),
    "alibi": (True, False),
    "parallel_attn": (True, False),
    "num_ln_in_parallel_attn": (None, 1, 2),
    "bias": (True, False),
    "num_kv_heads": (None, 1, 4, 12),
}
# One of each wiring, layout and position that there is.
KINDS: dict[str, dict[str, Any]] = {
    "7b": {"multi_query": True},
    "40b": {"new_decoder_architecture": True, "num_kv_heads": 4, "bias": True},
    "11b": {"new_decoder_architecture": True, "num_kv_heads": 4, "num_ln_in_parallel_attn": 1},
    "rw": {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    "alibi-grouped": {"alibi": True, "new_decoder_architecture": True, "num_kv_heads": 4},
    "sequential-rope": {"parallel_attn": False, "multi_query": True, "bias": True},
}


def accepted(flags: dict[str, Any]) -> bool:
    """Whether HF can run it (found by running it; that the bridge agrees is a test)."""
    if flags["new_decoder_architecture"]:
        return bool(flags["parallel_attn"])
    if flags["parallel_attn"] and flags["num_ln_in_parallel_attn"] == 2:
        return False
    return bool(flags["multi_query"]) or flags["num_kv_heads"] in (None, 12)


def combinations() -> list[dict[str, Any]]:
    """Every flag combination, refused ones too."""
    return [dict(zip(FLAGS, values, strict=True)) for values in itertools.product(*FLAGS.values())]


def build(*, dtype: torch.dtype = torch.float64, attention: str = "sdpa", seed: int = 0, **config: Any) -> Any:
    """A Falcon in eval mode whose every parameter is random, biases and norms too."""
    make: Any = FalconForCausalLM._from_config
    model = make(FalconConfig(**{**SHAPE, **config}), dtype=dtype, attn_implementation=attention)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            fan_in = parameter.shape[-1] if parameter.ndim == 2 else 1
            spread = noise * fan_in**-0.5 * (1.0 if parameter.ndim == 2 else 0.3)
            parameter.copy_(spread + (1.0 if parameter.ndim == 1 else 0.0))
    return model.eval()


def pair(**config: Any) -> tuple[Any, Bridge]:
    """HF's model, and a bridge over a copy of it: the two share nothing."""
    model = build(**config)
    return model, Bridge(copy.deepcopy(model))


def tokens(batch: int = 2, length: int = 7, seed: int = 1) -> Tensor:
    """`[batch, pos]`."""
    return torch.randint(0, SHAPE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def gap(ours: Tensor, theirs: Tensor) -> float:
    """The greatest difference, relative to the greatest value; infinite entries must stand in the same places."""
    assert ours.shape == theirs.shape
    assert torch.equal(ours.isinf(), theirs.isinf())
    finite = theirs.isfinite()
    if not finite.any():
        return 0.0
    ours, theirs = ours.detach()[finite].double(), theirs.detach()[finite].double()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-300))


class _AttentionCalls(TorchFunctionMode):
    """Keeps what goes into `scaled_dot_product_attention` and what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            self.calls.append((*args, kwargs["attn_mask"], out))
        return out


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


@contextmanager
def _outputs(model: nn.Module) -> Iterator[dict[str, tuple[Any, Any]]]:
    """Input and output of every module, copied: HF adds in place."""
    seen: dict[str, tuple[Any, Any]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            first = args[0] if args else kwargs.get("hidden_states", kwargs.get("input_ids"))
            main = out[0] if isinstance(out, tuple) else out
            seen[name] = (_copied(first), _copied(main))

        return hook

    handles = [
        module.register_forward_hook(keep(name), with_kwargs=True) for name, module in model.named_modules() if name
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def hugging_face_activations(model: Any, **inputs: Any) -> dict[str, Tensor]:
    """Every canonical activation of HF's own run, from its modules and its attention calls; logits beside them."""
    with _AttentionCalls() as attention, _outputs(model) as seen:
        logits = model(**inputs, use_cache=False).logits
    found: dict[str, Tensor] = {"logits": logits, "hook_embed": seen["transformer.word_embeddings"][1]}
    for layer, (q, k, v, mask, mixed) in enumerate(attention.calls):
        found |= {f"blocks.{layer}.{name}": value for name, value in _block(model, layer, seen, q, k, v, mask, mixed)}
    return found | {
        f"ln_final.{name}": value for name, value in _norm(model.transformer.ln_f, *seen["transformer.ln_f"])
    }


def _norm(module: Any, x: Tensor, out: Tensor) -> Iterator[tuple[str, Tensor]]:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + module.eps).sqrt()
    assert gap(centred / scale * module.weight + module.bias, out) < 1e-13
    yield "hook_scale", scale
    yield "hook_normalized", centred / scale


def _block(
    model: Any,
    layer: int,
    seen: dict[str, tuple[Any, Any]],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    mixed: Tensor,
) -> Iterator[tuple[str, Tensor]]:
    config, block, path = model.config, model.transformer.h[layer], f"transformer.h.{layer}"
    one_norm = hasattr(block, "input_layernorm")
    first = "input_layernorm" if one_norm else "ln_attn"
    second = "ln_mlp" if not one_norm else "post_attention_layernorm"
    yield "hook_resid_pre", seen[path][0]
    for name, value in _norm(getattr(block, first), *seen[f"{path}.{first}"]):
        yield f"ln1.{name}", value
    fused = seen[f"{path}.self_attention.query_key_value"][1]
    split = block.self_attention._split_heads(fused)
    kv_heads = config.num_kv_heads if config.new_decoder_architecture or not config.multi_query else 1
    every = config.num_attention_heads // kv_heads if config.new_decoder_architecture else 1
    yield "attn.hook_q", split[0]
    yield "attn.hook_k", split[1][:, :, ::every]
    yield "attn.hook_v", split[2][:, :, ::every]
    if not config.alibi:
        yield "attn.hook_rot_q", q.transpose(1, 2)
        yield "attn.hook_rot_k", k[:, ::every].transpose(1, 2)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    pattern = scores.softmax(-1)
    yield "attn.hook_attn_scores", scores
    yield "attn.hook_pattern", pattern
    assert gap(pattern.nan_to_num() @ v, mixed) < 1e-13
    z = mixed.transpose(1, 2)
    yield "attn.hook_z", z
    weight = block.self_attention.dense.weight.reshape(config.hidden_size, config.num_attention_heads, -1)
    yield "attn.hook_result", torch.einsum("bphd,mhd->bphm", z, weight)
    yield "hook_attn_out", seen[f"{path}.self_attention"][1]
    if not (config.parallel_attn or config.new_decoder_architecture):
        yield "hook_resid_mid", seen[f"{path}.{second}"][0]
    if hasattr(block, second):
        for name, value in _norm(getattr(block, second), *seen[f"{path}.{second}"]):
            yield f"ln2.{name}", value
    yield "mlp.hook_pre", seen[f"{path}.mlp.dense_h_to_4h"][1]
    yield "mlp.hook_post", seen[f"{path}.mlp.act"][1]
    yield "hook_mlp_out", seen[f"{path}.mlp.dense_4h_to_h"][1]
    yield "hook_resid_post", seen[path][1]
