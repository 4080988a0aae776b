"""HF's parameters under the canonical names that not every architecture has: they compute what HF's modules compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BloomConfig, BloomModel, GptOssConfig, MixtralConfig, OPTConfig, OPTModel, Qwen2MoeConfig
from transformers import Llama4TextConfig as Llama4Config
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention, GptOssExperts, GptOssTopKRouter
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts, MixtralTopKRouter
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

from verifier.canonical import WEIGHTS, axes_of
from verifier.family import Projection, QKVRows
from verifier.reference import weights
from verifier.reference.weights import attention_layers, canonical_gradients, canonical_of, canonical_weights

D_MODEL, D_MLP, EXPERTS, HEADS = 12, 5, 3, 3
SIZES: dict[str, Any] = {
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": D_MODEL // HEADS,
    "num_hidden_layers": 2,
    "vocab_size": 31,
    "num_experts_per_tok": 2,
    "_experts_implementation": "eager",
}


class Parts:
    """A family that names these modules; the rows of its projections, one for each letter, are in order."""

    def __init__(self, **parts: nn.Module) -> None:
        self.parts = {name.replace("__", "."): module for name, module in parts.items()}

    def components(self, _model: nn.Module) -> Mapping[str, nn.Module]:
        return self.parts

    def qkv_rows(self, _model: nn.Module, layer: int) -> QKVRows:
        rows = torch.arange(D_MODEL).view(HEADS, -1)
        q, k, v = (Projection(module=f"attention_{layer}.{letter}_proj", rows=rows) for letter in "qkv")
        return QKVRows(q=q, k=k, v=v, reads=torch.arange(HEADS))


def drawn(module: nn.Module) -> Any:
    """The module with random parameters in float64."""
    numbers = torch.Generator().manual_seed(3)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=numbers, dtype=torch.float64)
    return module


def named(family: Parts, model: nn.Module | None = None) -> dict[str, Tensor]:
    found = canonical_weights(family, nn.Module() if model is None else model)  # type: ignore[arg-type]
    for name, weight in found.items():
        axes = axes_of(name)
        assert axes is not None
        assert weight.ndim == len(axes), name
    return found


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


# Each keeps its experts in another way: joint or interleaved, transposed or not, with biases or without.
LAYOUTS = {
    "mixtral": (MixtralExperts, MixtralConfig(num_local_experts=EXPERTS, **SIZES)),
    "gpt-oss": (GptOssExperts, GptOssConfig(num_local_experts=EXPERTS, **SIZES)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_expert_computes_with_its_canonical_weights(layout: str) -> None:
    kind, config = LAYOUTS[layout]
    module = drawn(kind(config))
    found = named(Parts(blocks__0__mlp__experts=module))
    x, chosen = draw(7, D_MODEL), torch.tensor([[2]] * 7)
    with torch.no_grad():
        truth = module(x, chosen, torch.ones(7, 1, dtype=torch.float64))
    here = "blocks.0.mlp.experts.2"
    zero = torch.zeros(1, dtype=torch.float64)
    gate = x @ found[f"{here}.W_gate"] + found.get(f"{here}.b_gate", zero)
    linear = x @ found[f"{here}.W_in"] + found.get(f"{here}.b_in", zero)
    if layout == "gpt-oss":
        gate, linear = gate.clamp(max=module.limit), linear.clamp(-module.limit, module.limit)
        post = (linear + 1) * gate * torch.sigmoid(gate * module.alpha)
    else:
        post = module.act_fn(gate) * linear
    out = post @ found[f"{here}.W_out"] + found.get(f"{here}.b_out", zero)
    torch.testing.assert_close(out, truth, rtol=1e-12, atol=1e-12)
    assert found[f"{here}.W_in"].shape == (D_MODEL, D_MLP)
    assert (f"{here}.b_in" in found) == (layout == "gpt-oss")
    assert len(found) == EXPERTS * (6 if layout == "gpt-oss" else 3)


def test_experts_that_say_nothing_of_their_layout_are_read_the_right_way_round() -> None:
    module = drawn(Llama4TextExperts(Llama4Config(num_local_experts=EXPERTS, **SIZES)))
    assert not hasattr(module, "is_transposed")
    found = named(Parts(blocks__0__mlp__experts=module))
    x = draw(EXPERTS, 4, D_MODEL)
    with torch.no_grad():
        truth = module(x.flatten(0, 1)).view(EXPERTS, 4, D_MODEL)
    for expert in range(EXPERTS):
        here = f"blocks.0.mlp.experts.{expert}"
        post = module.act_fn(x[expert] @ found[f"{here}.W_gate"]) * (x[expert] @ found[f"{here}.W_in"])
        torch.testing.assert_close(post @ found[f"{here}.W_out"], truth[expert], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "router",
    [
        MixtralTopKRouter(MixtralConfig(num_local_experts=EXPERTS, **SIZES)),
        GptOssTopKRouter(GptOssConfig(num_local_experts=EXPERTS, **SIZES)),
    ],
    ids=["without a bias", "with a bias"],
)
def test_a_router_computes_its_logits_with_its_canonical_weights(router: nn.Module) -> None:
    found = named(Parts(blocks__1__mlp__router=drawn(router), blocks__0=nn.Module()))
    x = draw(7, D_MODEL)
    logits = x @ found["blocks.1.mlp.router.W"] + found.get("blocks.1.mlp.router.b", torch.zeros(()))
    with torch.no_grad():
        torch.testing.assert_close(logits, router(x)[0], rtol=1e-12, atol=1e-12)


def test_a_shared_expert_and_the_routed_ones_have_every_parameter_between_them() -> None:
    config = Qwen2MoeConfig(num_experts=EXPERTS, moe_intermediate_size=7, shared_expert_intermediate_size=4, **SIZES)
    block = drawn(Qwen2MoeSparseMoeBlock(config))
    shared, here = block.shared_expert, "blocks__0__mlp__"
    parts = {"router": block.gate, "experts": block.experts, "shared_expert_gate": block.shared_expert_gate}
    inside = {"in": shared.up_proj, "gate": shared.gate_proj, "out": shared.down_proj}
    found = named(
        Parts(
            **{f"{here}{name}": module for name, module in parts.items()},
            **{f"{here}shared_expert__{name}": module for name, module in inside.items()},
        )
    )
    given = torch.cat([parameter.detach().flatten() for parameter in block.parameters()])
    assert torch.equal(torch.cat([one.flatten() for one in found.values()]).sort().values, given.sort().values)
    assert found["blocks.0.mlp.shared_expert.W_gate"].shape == (D_MODEL, 4)
    assert found["blocks.0.mlp.shared_expert_gate.W"].shape == (D_MODEL, 1)


def test_the_rows_that_no_position_uses_are_no_position_embeddings() -> None:
    sizes = {**SIZES, "ffn_dim": D_MLP, "word_embed_proj_dim": D_MODEL}
    model = drawn(OPTModel(OPTConfig(max_position_embeddings=8, **sizes)).decoder)
    found = named(Parts(pos_embed=model.embed_positions))["pos_embed.W_pos"]
    assert found.shape == (8, D_MODEL)
    with torch.no_grad():
        torch.testing.assert_close(found[None], model.embed_positions(torch.ones(1, 8, dtype=torch.long)))


def test_a_norm_on_the_embeddings_has_its_weights() -> None:
    model = drawn(BloomModel(BloomConfig(n_head=HEADS, n_layer=1, **{**SIZES, "num_hidden_layers": 1})))
    found = named(Parts(embed_ln=model.word_embeddings_layernorm))
    assert torch.equal(found["embed_ln.w"], model.word_embeddings_layernorm.weight)
    assert list(found) == ["embed_ln.w", "embed_ln.b"]


class Hybrid(nn.Module):
    """Three blocks, of which the middle one has an attention."""

    def __init__(self) -> None:
        super().__init__()
        config = GptOssConfig(num_local_experts=EXPERTS, **SIZES)
        config._attn_implementation = "eager"
        self.attention_1 = GptOssAttention(config, 1)


def test_a_block_without_attention_is_asked_for_no_heads() -> None:
    model = drawn(Hybrid())
    attention = model.attention_1
    norm = nn.LayerNorm(D_MODEL)
    family: Any = Parts(
        blocks__0__ln1=norm,
        blocks__1__ln1=norm,
        blocks__1__attn=attention,
        blocks__1__attn__o=attention.o_proj,
        blocks__2__ln1=norm,
    )
    assert attention_layers(family, model) == [1]
    found = named(family, model)
    assert {name.split(".")[1] for name in found if ".attn." in name} == {"1"}
    assert found["blocks.1.attn.sinks"] is not None
    assert torch.equal(found["blocks.1.attn.sinks"], attention.sinks)
    assert found["blocks.1.attn.W_O"].shape == (HEADS, D_MODEL // HEADS, D_MODEL)
    assert torch.equal(found["blocks.1.attn.b_K"].flatten(), attention.k_proj.bias)
    order = [weight.template for weight in WEIGHTS]
    inside = [name.replace("blocks.1.", "blocks.{i}.") for name in found if name.startswith("blocks.1.")]
    assert inside == sorted(inside, key=order.index)


def test_what_a_norm_multiplies_by_is_made_of_its_weight_and_no_gradient_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_norm_weight", lambda _module, value: 1 + value)
    norm, family = nn.LayerNorm(D_MODEL), Parts()
    family.parts = {"blocks.0.ln1_post": norm, "ln_final": norm}
    model, known = nn.Module(), ["blocks.0.ln1_post.w", "ln_final.w"]
    norm.weight.grad = torch.full((D_MODEL,), 7.0)
    norm.bias = None
    for name in known:
        assert torch.equal(canonical_weights(family, model)[name], 1 + norm.weight)  # type: ignore[arg-type]
        assert torch.equal(canonical_gradients(family, model)[name], norm.weight.grad)  # type: ignore[arg-type]
    assert list(canonical_of(family, model, lambda one: one)) == known  # type: ignore[arg-type]
    kept = canonical_weights(family, model, lambda one: one)  # type: ignore[arg-type]
    assert all(kept[name].requires_grad for name in known)


def test_a_norm_without_a_weight_and_a_table_without_parameters_have_none() -> None:
    table = nn.Module()
    table.register_buffer("weight", torch.ones(8, D_MODEL))
    assert named(Parts(ln_final=nn.LayerNorm(D_MODEL, elementwise_affine=False), pos_embed=table)) == {}
