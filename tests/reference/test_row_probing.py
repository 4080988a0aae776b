"""What is read off attention: rows, and where heads stand in front of norms on queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from transformers import PhiConfig, PhiForCausalLM, Qwen3Config, Qwen3ForCausalLM

from verifier.errors import VerifierError
from verifier.reference.declared import DeclaredFamily
from verifier.reference.row_probing import AttentionParts, AttentionRows, read_rows

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 50}
# Two heads are as many as the probe has positions.
HEADS = [(6, 3), (6, 2), (2, 2), (2, 1), (1, 1)]


def phi(heads: int, kv_heads: int) -> Any:
    config = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "qk_layernorm": True}
    return PhiForCausalLM(PhiConfig(**SIZES, **config)).double().eval()


def qwen(heads: int, kv_heads: int) -> Any:
    config = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": 4}
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, **config)).double().eval()


def read(model: Any, norms: dict[str, nn.Module]) -> AttentionRows:
    path = "model.layers.0.self_attn"
    parts = AttentionParts(
        attention=model.get_submodule(path),
        projections={letter: f"{path}.{letter}_proj" for letter in "qkv"},
        norms=norms,
    )
    return read_rows(model, {"blocks.0": parts})["blocks.0"]


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_heads_stand_before_positions_in_phi(heads: int, kv_heads: int) -> None:
    model = phi(heads, kv_heads)
    attention = model.model.layers[0].self_attn
    found = read(model, {"q": attention.q_layernorm, "k": attention.k_layernorm})
    assert found.heads_first == {"q", "k"}
    assert len(found.rows.k.rows) == kv_heads


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_heads_stand_after_positions_in_qwen3(heads: int, kv_heads: int) -> None:
    model = qwen(heads, kv_heads)
    attention = model.model.layers[0].self_attn
    assert read(model, {"q": attention.q_norm, "k": attention.k_norm}).heads_first == frozenset()


def test_a_norm_that_is_not_declared_is_told() -> None:
    with pytest.raises(VerifierError, match=r"blocks\.0 attends with queries .* not declared as attn\.q_norm"):
        read(phi(6, 3), {})


class _Phi(DeclaredFamily):
    name = "phi"
    architecture = "PhiForCausalLM"
    COMPONENTS: ClassVar[Mapping[str, str]] = {
        "embed": "model.embed_tokens",
        "blocks": "model.layers",
        "ln_final": "model.final_layernorm",
        "unembed": "lm_head",
    }
    BLOCK: ClassVar[Mapping[str, str]] = {
        "ln1": "input_layernorm",
        "attn": "self_attn",
        **{f"attn.{letter}": f"self_attn.{letter}_proj" for letter in "qkv"},
        "attn.o": "self_attn.dense",
        **{f"attn.{letter}_norm": f"self_attn.{letter}_layernorm" for letter in "qk"},
        "mlp": "mlp",
        "mlp.in": "mlp.fc1",
        "mlp.out": "mlp.fc2",
    }


class _Qwen(DeclaredFamily):
    name = "qwen"
    architecture = "Qwen3ForCausalLM"
    COMPONENTS: ClassVar[Mapping[str, str]] = {**_Phi.COMPONENTS, "ln_final": "model.norm"}
    BLOCK: ClassVar[Mapping[str, str]] = {
        "ln1": "input_layernorm",
        "attn": "self_attn",
        **{f"attn.{letter}": f"self_attn.{letter}_proj" for letter in "qkvo"},
        **{f"attn.{letter}_norm": f"self_attn.{letter}_norm" for letter in "qk"},
    }


def _normed(module: Any, heads: Tensor) -> Tensor:
    """`[batch, pos, head, d_head]` through a norm over the last axis, whatever else it is."""
    return module.forward(heads)


@pytest.mark.parametrize(
    "model", [phi(6, 3), phi(2, 1), qwen(6, 3), qwen(2, 1)], ids=["phi", "phi-2", "qwen", "qwen-2"]
)
def test_norms_of_heads_are_shown_and_edited_in_canonical_axes(model: Any) -> None:
    family: Any = _Phi() if isinstance(model, PhiForCausalLM) else _Qwen()
    attention = model.model.layers[0].self_attn
    norms = [
        getattr(attention, one) for one in ("q_norm", "q_layernorm", "k_norm", "k_layernorm") if hasattr(attention, one)
    ]
    for norm in norms:
        nn.init.normal_(norm.weight)
    ids = torch.randint(50, (2, 5))
    with family.taps(model) as taps:
        tapped = model(ids).logits
    bare = model(ids).logits
    assert torch.allclose(tapped, bare)
    for letter, norm in zip("qk", norms, strict=True):
        heads = taps.values[f"blocks.0.attn.hook_{letter}"]  # [batch, pos, head, d_head]
        normed = taps.values[f"blocks.0.attn.hook_{letter}_normed"]
        assert torch.allclose(normed, _normed(norm, heads))
        scale, normalized = (
            taps.values[f"blocks.0.attn.{letter}_norm.hook_{what}"] for what in ("scale", "normalized")
        )
        assert scale.shape == (*heads.shape[:-1], 1)
        assert normalized.shape == heads.shape
        # An edit of one head changes what that head rotates, and no other's.
        rotated = f"blocks.0.attn.hook_rot_{letter}"

        def last_head_doubled(value: Tensor) -> Tensor:
            edited = value.clone()
            edited[:, :, -1] *= 2
            return edited

        with family.taps(
            model, names=[rotated], edits={f"blocks.0.attn.hook_{letter}_normed": last_head_doubled}
        ) as after:
            model(ids)
        assert torch.allclose(after.values[rotated][:, :, -1], 2 * taps.values[rotated][:, :, -1])
        assert torch.allclose(after.values[rotated][:, :, :-1], taps.values[rotated][:, :, :-1])
