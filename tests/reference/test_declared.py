"""What follows from a declaration is Hugging Face's model, for each trait in which its architectures differ."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from short_families import FAMILIES, Gemma2, Opt, SharedBlocks
from torch import Tensor
from torch.testing import assert_close

from verifier.errors import VerifierError
from verifier.reference.declared import DeclaredFamily
from verifier.reference.weights import canonical_weights

IDS = torch.randint(3, 110, (3, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[0, -2:] = 0
every_family = pytest.mark.parametrize("name", FAMILIES)


def build(family: DeclaredFamily, **config: Any) -> Any:
    options = {"dtype": torch.float64, "device": "cpu", "attention": family.reference_attention, "seed": 1}
    return family.build({**family.dims(), **config}, **options)


def tapped(family: DeclaredFamily, model: Any, **taps: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
    with torch.no_grad(), family.taps(model, **taps) as seen:
        logits = model(IDS, attention_mask=MASK, use_cache=False).logits
    return logits, seen.values


@functools.cache
def model_of(name: str) -> Any:
    return build(FAMILIES[name])


@functools.cache
def values_of(name: str) -> Mapping[str, Tensor]:
    return tapped(FAMILIES[name], model_of(name))[1]


def moved(value: Tensor) -> Tensor:
    return value + torch.randn(value.shape, generator=torch.Generator().manual_seed(2)).to(value)


def layers(name: str) -> range:
    family = FAMILIES[name]
    return range(family.dims()["num_hidden_layers"])


@every_family
def test_the_model_under_all_taps_is_the_same_function(name: str) -> None:
    family, model = FAMILIES[name], model_of(name)
    with torch.no_grad():
        bare = model(IDS, attention_mask=MASK, use_cache=False).logits
    logits, seen = tapped(family, model)
    assert_close(logits, bare, rtol=1e-12, atol=1e-12)
    axes = {point.name: len(point.axes) for point in family.points(family.dims())}
    assert {point: value.ndim for point, value in seen.items()} == axes


@every_family
def test_an_edit_acts_at_every_point_and_none_changes_nothing(name: str) -> None:
    family, model = FAMILIES[name], model_of(name)
    names = [point.name for point in family.points(family.dims())]
    bare, _ = tapped(family, model, names=[])
    assert_close(
        tapped(family, model, names=[], edits=dict.fromkeys(names, lambda _: None))[0], bare, rtol=1e-12, atol=1e-12
    )
    for point in names:
        edited, _ = tapped(family, model, names=[], edits={point: moved})
        assert float((edited - bare)[MASK.bool()].abs().max()) > 1e-6, point


@every_family
def test_what_is_added_to_the_stream_is_what_stands_at_its_points(name: str) -> None:
    family, seen = FAMILIES[name], values_of(name)
    for layer in layers(name):
        stream, attn, mlp, mid, after = (
            seen.get(f"blocks.{layer}.hook_{point}")
            for point in ("resid_pre", "attn_out", "mlp_out", "resid_mid", "resid_post")
        )
        if family.is_sequential(family.dims()):
            assert_close(stream + attn, mid, rtol=1e-12, atol=1e-12)
            stream = mid
        else:
            assert mid is None
            stream = stream + attn
        assert_close(stream + mlp, after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2", "granite", "opt", "neox"])
def test_embeddings_are_what_the_first_block_reads(name: str) -> None:
    seen = values_of(name)
    summed = seen["hook_embed"] + seen.get("hook_pos_embed", torch.zeros(()))
    assert_close(summed, seen["blocks.0.hook_resid_pre"], rtol=1e-12, atol=1e-12)


@every_family
def test_each_head_mixes_the_values_that_it_is_said_to_read(name: str) -> None:
    for layer in layers(name):
        pattern, v, z = (values_of(name)[f"blocks.{layer}.attn.hook_{what}"] for what in ("pattern", "v", "z"))
        read = v[:, :, FAMILIES[name].qkv_rows(model_of(name), layer).reads]
        # Some take the softmax in float32.
        assert_close(torch.einsum("bhqk,bkhd->bqhd", pattern.double(), read), z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, one in FAMILIES.items() if one.POSITIONS == "rotary"])
def test_the_first_position_is_not_rotated(name: str) -> None:
    for what in "qk":
        bare, rotated = (values_of(name)[f"blocks.1.attn.hook_{point}{what}"][:, 0] for point in ("", "rot_"))
        if "attn.q_norm" in FAMILIES[name].BLOCK:
            bare, rotated = (one / one.pow(2).mean(-1, keepdim=True).sqrt() for one in (bare, rotated))
            # A weight of the norm stands between; the order of the heads does not change.
            assert_close((bare * rotated).sign().prod(-1).abs(), torch.ones(bare.shape[:-1]).double())
        elif name == "gpt-oss":
            assert_close(rotated / bare, (rotated / bare).flatten()[0].expand_as(bare))  # YaRN scales all alike
        else:
            assert_close(bare, rotated.double(), rtol=1e-6, atol=1e-6)  # some rotate in float32


@pytest.mark.parametrize("name", [name for name, one in FAMILIES.items() if one.POSITIONS != "rotary"])
def test_scores_are_of_the_queries_and_keys_that_are_shown(name: str) -> None:
    """Products of queries and keys, less what does not depend on the query but on its position: bias and mask."""
    seen = values_of(name)
    q, k, scores = (seen[f"blocks.1.attn.hook_{what}"] for what in ("q", "k", "attn_scores"))
    products = torch.einsum("bqhd,bkhd->bhqk", q, k)
    seeing = torch.ones(9, 9, dtype=torch.bool).tril() & MASK.bool()[:, None, None] & MASK.bool()[:, None, :, None]
    # Between the rows of the texts that are not padded bias and mask cancel.
    difference, of_products = (one[1] - one[2] for one in (scores, products))
    held = seeing[1].expand_as(difference)
    ratio = difference[held] / of_products[held]
    assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager"])
@pytest.mark.parametrize("name", ["gpt2", "gptj", "neox", "opt", "qwen3", "gemma2", "bloom", "gpt-oss"])
def test_the_pattern_is_the_one_that_hf_gives(name: str, attention: str) -> None:
    family = FAMILIES[name]
    model = family.build(family.dims(), dtype=torch.float32, device="cpu", attention=attention, seed=1)
    with torch.no_grad():
        theirs = model(IDS, use_cache=False, output_attentions=True).attentions
        with family.taps(model) as seen:
            model(IDS, use_cache=False)
    for layer in layers(name):
        assert_close(seen.values[f"blocks.{layer}.attn.hook_pattern"], theirs[layer])


def test_every_layer_of_a_shared_block_has_its_own_values() -> None:
    seen = values_of("shared-blocks")
    for point in ("hook_resid_pre", "ln1.hook_normalized", "attn.hook_q", "attn.hook_rot_k", "attn.hook_pattern"):
        first, second, third = (seen[f"blocks.{layer}.{point}"] for layer in range(3))
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)


def test_an_edit_of_a_shared_block_is_of_its_layer_alone() -> None:
    model = build(SharedBlocks())
    _, bare = tapped(FAMILIES["shared-blocks"], model)
    _, edited = tapped(FAMILIES["shared-blocks"], model, edits={"blocks.1.attn.hook_z": lambda z: z * 2})
    assert torch.equal(bare["blocks.1.hook_resid_pre"], edited["blocks.1.hook_resid_pre"])
    assert not torch.equal(bare["blocks.1.hook_resid_post"], edited["blocks.1.hook_resid_post"])


def test_a_norm_of_two_places_is_looked_at_in_each() -> None:
    seen = values_of("nanochat")
    assert_close(seen["embed_ln.hook_normalized"], seen["blocks.0.hook_resid_pre"], rtol=1e-6, atol=1e-6)
    last = seen["blocks.1.hook_resid_post"].pow(2).mean(-1, keepdim=True).sqrt()
    assert_close(seen["ln_final.hook_scale"], last, rtol=1e-5, atol=1e-5)


def test_an_mlp_that_is_no_module_adds_what_its_output_projection_gives() -> None:
    seen = {name.removeprefix("blocks.1."): value for name, value in values_of("opt").items()}
    assert_close(seen["hook_resid_mid"] + seen["hook_mlp_out"], seen["hook_resid_post"], rtol=0, atol=1e-12)


def test_a_module_that_attends_nowhere_is_one_line() -> None:
    class Wrong(Opt):
        BLOCK: ClassVar[Mapping[str, str]] = {**Opt.BLOCK, "attn": "fc1"}

    with pytest.raises(VerifierError, match=r"Linear of blocks\.0 attends nowhere that is seen"):
        Wrong().qkv_rows(build(Opt()), 0)


def test_probing_leaves_hooks_and_random_states_alone() -> None:
    family = Gemma2()
    model, calls = build(family).train(), []
    model.model.layers[0].register_forward_hook(lambda *_: calls.append("called"))
    before = torch.get_rng_state()
    family.qkv_rows(model, 0)
    assert calls == []
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        model(IDS)
    assert calls == ["called"]


def test_a_norms_canonical_weight_is_what_it_multiplies_by() -> None:
    model = model_of("gemma2")
    weights = canonical_weights(FAMILIES["gemma2"], model)
    assert torch.equal(weights["blocks.1.ln1_post.w"], 1 + model.model.layers[1].post_attention_layernorm.weight)
    assert torch.equal(weights["ln_final.w"], 1 + model.model.norm.weight)


@every_family
def test_every_weight_but_of_experts_has_a_canonical_name(name: str) -> None:
    model = model_of(name)
    held = sum(weight.numel() for weight in canonical_weights(FAMILIES[name], model).values())
    tied = model.lm_head.weight.numel() if model.lm_head.weight is model.get_input_embeddings().weight else 0
    shared = sum(layers.numel() for layers in model.model.layers[0].parameters()) if name == "shared-blocks" else 0
    experts = sum(one.numel() for path, one in model.named_parameters() if ".mlp." in path and name == "gpt-oss")
    before_positions = 2 * 72 if name == "opt" else 0
    there = sum(parameter.numel() for parameter in model.parameters())
    assert held == there + tied + 2 * shared - experts - before_positions


@every_family
def test_facts_are_the_models(name: str) -> None:
    facts, config = FAMILIES[name].facts(model_of(name)), model_of(name).config
    assert (
        facts["d_head"] * facts["n_heads"]
        == model_of(name)
        .get_submodule(f"{FAMILIES[name].COMPONENTS['blocks']}.0.{FAMILIES[name].BLOCK['attn.o']}")
        .weight.shape[0 if name == "gpt2" else 1]
    )
    assert facts["n_layers"] == config.num_hidden_layers
    norms = {"gpt2": "LN", "gptj": "LN", "neox": "LN", "opt": "LN", "bloom": "LN"}
    assert facts["normalization_type"] == norms.get(name, "RMS")
    epsilons = (getattr(config, one, None) for one in ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"))
    assert facts["eps"] == next((eps for eps in epsilons if eps is not None), 1e-5)


# What a script reads in a hook of PyTorch's stands where the taps see it.
# But for blocks that run several times: which run is meant no line can tell.
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "shared-blocks"])
def test_every_line_of_a_script_reads_what_the_taps_read(name: str) -> None:
    family, model, seen = FAMILIES[name], model_of(name), values_of(name)
    sources = {point: family.point_source(family.dims(), point) for point in seen}
    found: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack, torch.no_grad():
        for point, source in sources.items():
            if source is None:
                continue

            def read(module: Any, args: Any, output: Any, point: str = point, line: str = source.value) -> None:
                names = {"model": model, "module": module, "args": args, "output": output, "torch": torch}
                found[point] = eval(line, names)

            stack.enter_context(model.get_submodule(source.module).register_forward_hook(read))
        model(IDS, attention_mask=MASK, use_cache=False)
    assert {f"blocks.{layer}.hook_resid_pre" for layer in layers(name)} <= found.keys()
    for point, value in found.items():
        assert_close(value, seen[point], rtol=1e-12, atol=1e-12, msg=f"{point}: {sources[point]}")
