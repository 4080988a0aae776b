"""A family from outside, Llama, through the public protocol: it holds against HF, and against TransformerLens.

What TransformerLens is found to do wrong is shown again here against HF, with no harness between the two.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from case_outcomes import apart, deep, outcomes
from llama_family import CORNERS, DIMS, FLAGS, LlamaFamily
from torch import Tensor
from torch.testing import assert_close
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import verifier
from verifier import checks, family, faults
from verifier.adapter import Inputs
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec
from verifier.checks.runner import run_case
from verifier.judging.outcome import Verdict
from verifier.reference import models

REFERENCE = "llama_family:LlamaFamily"
HERE = Path(__file__).parent
LLAMA = LlamaFamily()
CASES = {spec.label or spec.id: spec for spec in matrix.cases(LLAMA, REFERENCE)}
# Shapes in which taps, rows and rotation differ: no groups, one, between; wide, narrow and single heads; biases.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "multi-query": {"num_key_value_heads": 1, "attention_bias": True},
    "grouped": {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
    "wide-heads": {"num_key_value_heads": 4, "head_dim": 10, "tie_word_embeddings": True},
    "one-head": CORNERS["one-head"],
    "d_head-1": CORNERS["d_head-1"],
    "three-layers": CORNERS["three-layers"],
}


def build(attention: str = "sdpa", dtype: torch.dtype = torch.float64, **config: Any) -> Any:
    return LLAMA.build({**DIMS, **config}, dtype=dtype, device="cpu", attention=attention, seed=3)


def ids(batch: int = 3, pos: int = 9) -> Tensor:
    return torch.randint(0, DIMS["vocab_size"], (batch, pos), generator=torch.Generator().manual_seed(1))


def mask(*rows: str) -> Tensor:
    return torch.tensor([[int(token) for token in row] for row in rows])


LEFT, RIGHT, GAPS = "000111111", "111111000", "111010111"


def run(model: Any, **inputs: Any) -> Tensor:
    """HF's logits, as the harness calls for them."""
    with torch.no_grad():
        return models.forward(model, Inputs(**inputs)).logits


# --- the family against Hugging Face -----------------------------------------------------------------------------


def test_it_is_found_by_its_reference() -> None:
    assert isinstance(family.load(REFERENCE), LlamaFamily)


def test_only_its_own_module_knows_of_it() -> None:
    sources = list(Path(verifier.__path__[0]).rglob("*.py"))
    # `llama3` is a RoPE type of HF's, which any family may have.
    named = [path.name for path in sources if "llama" in path.read_text().lower().replace("llama3", "")]
    assert named == ["llama.py"]


ODD: tuple[Mapping[str, Any], ...] = (
    *({"num_key_value_heads": heads} for heads in (2, 3, 6, 5, 7, 13, 24, 0, -1, -4, True, "4", 4.0)),
    *({"num_attention_heads": 1, "hidden_size": 10, "num_key_value_heads": heads} for heads in (1, 2, 3)),
    *({"head_dim": size} for size in (0, 1, 2, 3, 5, 7, 8, -2, True)),
    *({"head_dim": size, "num_key_value_heads": 4} for size in (1, 2, 3)),
    *({"hidden_size": size} for size in (71, 12, 24, 36, 60, 0, -12)),
    {"hidden_size": 70, "head_dim": 6},
    *({"num_attention_heads": heads} for heads in (0, -12, None)),
    *({"num_hidden_layers": layers} for layers in (0, -1, None)),
    *({"intermediate_size": size} for size in (0, 1, -3, None)),
    *({"vocab_size": size} for size in (0, 1, -1, None)),
    # No int: importing transformer_lens makes huggingface_hub take one for a float, in the whole process.
    *({"rms_norm_eps": eps} for eps in (0.0, None)),
    *({"attention_dropout": rate} for rate in (0, 1.5, None, True)),
    *({flag: value} for flag in ("attention_bias", "mlp_bias", "tie_word_embeddings") for value in (None, "yes", 1)),
    *(
        {"num_hidden_layers": 0, name: value}
        for name, value in (
            ("num_key_value_heads", 5),
            ("num_key_value_heads", 0),
            ("head_dim", 0),
            ("head_dim", 3),
            ("head_dim", 7),
            ("head_dim", -2),
            ("hidden_size", 0),
            ("intermediate_size", -1),
        )
    ),
)


def hf_refuses(config: Mapping[str, Any]) -> str | None:
    try:
        run(LLAMA.build(config, dtype=torch.float64, device="cpu", attention="sdpa", seed=0), input_ids=ids() % 1)
    except Exception as error:
        return str(error) or type(error).__name__
    return None


@pytest.mark.slow
def test_it_refuses_exactly_what_hf_refuses() -> None:
    product = [dict(zip(FLAGS, values, strict=True)) for values in itertools.product(*FLAGS.values())]
    configs = [{**DIMS, **config} for config in (*product, *CORNERS.values(), *ODD)]
    wrong = [
        (config, theirs, ours)
        for config in configs
        if bool(theirs := hf_refuses(config)) != bool(ours := LLAMA.refusal(config))
    ]
    assert wrong == []


def sizes(config: Mapping[str, Any], batch: int, pos: int) -> dict[str, set[int]]:
    """How long each canonical axis may be."""
    full = {**DIMS, **config}
    d_head = full.get("head_dim") or full["hidden_size"] // full["num_attention_heads"]
    return {
        "batch": {batch},
        **{axis: {pos} for axis in ("pos", "query", "key")},
        "head": {full["num_attention_heads"]},
        "kv_head": {full.get("num_key_value_heads") or full["num_attention_heads"]},
        # HF broadcasts a single rotated dimension against the two that its tables have.
        "d_head": {1, 2} if d_head == 1 else {d_head},
        "d_model": {full["hidden_size"]},
        "d_mlp": {full["intermediate_size"]},
        "1": {1},
    }


@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
@pytest.mark.parametrize("kind", KINDS)
def test_taps_see_every_point_and_change_nothing(kind: str, padded: bool) -> None:
    model = build(**KINDS[kind])
    inputs = {"input_ids": ids(), "attention_mask": mask(LEFT, RIGHT, GAPS) if padded else None}
    with LLAMA.taps(model) as taps:
        tapped = run(model, **inputs)
    # Bit for bit what the norms give in float32, and float64 rounding elsewhere.
    assert_close(tapped, run(model, **inputs), rtol=0, atol=1e-13)
    points = LLAMA.points(model.config.to_dict())
    assert set(taps.values) == {point.name for point in points}
    lengths = sizes(KINDS[kind], 3, 9)
    for point in points:
        shape = taps.values[point.name].shape
        assert len(shape) == len(point.axes), point.name
        assert all(size in lengths[axis] for axis, size in zip(point.axes, shape, strict=True)), (point.name, shape)


@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
@pytest.mark.parametrize("kv_heads", [None, 1, 4])
def test_taps_serve_a_lone_query_over_a_cache(kv_heads: int | None, padded: bool) -> None:
    """Under a mask HF lays the heads of a lone query out as queries of the key/value head that they read."""
    model = build(num_key_value_heads=kv_heads)
    seen = mask(LEFT, RIGHT, GAPS) if padded else torch.ones(3, 9, dtype=torch.int64)
    full = run(model, input_ids=ids(), attention_mask=seen)
    with torch.no_grad():
        past = models.forward(model, Inputs(input_ids=ids()[:, :8], attention_mask=seen[:, :8], use_cache=True))
        step = Inputs(input_ids=ids()[:, 8:], attention_mask=seen, cache=past.cache, use_cache=True)
        with LLAMA.taps(model) as taps:
            logits = models.forward(model, step).logits
    assert_close(logits[:, 0], full[:, -1], rtol=0, atol=1e-5)  # the norms' float32
    assert taps.values["blocks.1.attn.hook_rot_q"].shape == (3, 1, 12, 6)
    assert taps.values["blocks.1.attn.hook_rot_k"].shape == (3, 1, kv_heads or 12, 6)
    assert taps.values["blocks.1.attn.hook_attn_scores"].shape == (3, 12, 1, 9)
    with LLAMA.taps(model) as whole:
        run(model, input_ids=ids(), attention_mask=seen)
    pattern = "blocks.1.attn.hook_pattern"
    assert_close(taps.values[pattern][..., 0, :], whole.values[pattern][..., -1, :], rtol=0, atol=1e-5)


def test_tapped_values_are_those_of_hfs_own_modules() -> None:
    model = build(**KINDS["grouped"])
    with torch.no_grad(), LLAMA.taps(model) as taps:
        hidden = model(ids(), use_cache=False, output_hidden_states=True).hidden_states
    block, seen = model.model.layers[1], {name.removeprefix("blocks.1."): value for name, value in taps.values.items()}
    attention, mlp, stream = block.self_attn, block.mlp, hidden[1]
    with torch.no_grad():
        normed = block.input_layernorm(stream)
        q, k, v = (
            project(normed).view(3, 9, -1, 6) for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        tables = model.model.rotary_emb(stream, torch.arange(9)[None])
        rot_q, rot_k = apply_rotary_pos_emb(q, k, *tables, unsqueeze_dim=2)
        scores = torch.einsum("bqhd,bkhd->bhqk", rot_q, rot_k.repeat_interleave(3, dim=2)) * 6**-0.5
        scores = scores.masked_fill(~torch.ones(9, 9, dtype=torch.bool).tril(), float("-inf"))
        z = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v.repeat_interleave(3, dim=2))
        attn_out = attention.o_proj(z.flatten(2))
        middle = stream + attn_out
        x = block.post_attention_layernorm(middle)
        post = torch.nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x)
    float32 = stream.float()
    scale = (float32.square().mean(-1, keepdim=True) + model.config.rms_norm_eps).sqrt()
    expected = {
        "hook_resid_pre": stream,
        "attn.hook_q": q,
        "attn.hook_k": k,
        "attn.hook_v": v,
        "attn.hook_rot_q": rot_q,
        "attn.hook_rot_k": rot_k,
        "attn.hook_attn_scores": scores,
        "attn.hook_pattern": scores.softmax(-1),
        "attn.hook_z": z,
        "hook_attn_out": attn_out,
        "hook_resid_mid": middle,
        "mlp.hook_pre": mlp.gate_proj(x),
        "mlp.hook_pre_linear": mlp.up_proj(x),
        "mlp.hook_post": post,
        "hook_mlp_out": mlp.down_proj(post),
        "hook_resid_post": middle + mlp.down_proj(post),
    }
    for name, value in expected.items():
        assert seen[name].shape == value.shape, name
        assert torch.allclose(seen[name], value, rtol=0, atol=1e-12), name
    assert_close(seen["attn.hook_result"].sum(2) + attention.o_proj.bias, attn_out, rtol=0, atol=1e-12)
    assert_close(seen["ln1.hook_scale"].float(), scale, rtol=1e-6, atol=0)
    assert_close(seen["ln1.hook_normalized"] * block.input_layernorm.weight, normed, rtol=0, atol=0)


def test_the_pattern_is_the_one_that_hf_gives_on_request() -> None:
    with torch.no_grad():
        theirs = build("eager", **KINDS["grouped"])(ids(), output_attentions=True).attentions
        model = build(**KINDS["grouped"])
        with LLAMA.taps(model) as taps:
            run(model, input_ids=ids())
    for layer, pattern in enumerate(theirs):  # in float32, whatever the model's dtype
        assert_close(taps.values[f"blocks.{layer}.attn.hook_pattern"], pattern, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "point", ["ln2.hook_scale", "attn.hook_v", "attn.hook_rot_k", "hook_resid_mid", "mlp.hook_pre_linear"]
)
def test_an_edit_acts_and_its_point_has_a_gradient(point: str) -> None:
    name, model = f"blocks.0.{point}", build(**KINDS["grouped"])
    with LLAMA.taps(model, names=[], edits={name: lambda value: 1.5 * value}) as taps:
        edited = models.forward(model, Inputs(input_ids=ids())).logits
    (gradient,) = torch.autograd.grad(edited.square().sum(), taps.values[name])
    assert gradient.abs().max() > 0
    assert (edited - run(model, input_ids=ids())).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_reads_give_hfs_attention_back(kind: str) -> None:
    model = build(**KINDS[kind])
    rows = LLAMA.qkv_rows(model, 1)
    with torch.no_grad(), LLAMA.taps(model) as taps:
        run(model, input_ids=ids())
    normed = taps.values["blocks.1.ln1.hook_normalized"] * model.model.layers[1].input_layernorm.weight
    for letter in "qkv":
        projection = getattr(rows, letter)
        assert projection.module == f"model.layers.1.self_attn.{letter}_proj"
        module = model.get_submodule(projection.module)
        weight = module.weight[projection.rows]  # [head, d_head, d_model]
        heads = torch.einsum("bpm,hdm->bphd", normed, weight)
        heads = heads if module.bias is None else heads + module.bias[projection.rows]
        assert_close(taps.values[f"blocks.1.attn.hook_{letter}"], heads.detach(), rtol=0, atol=1e-12)
    pattern, value = (taps.values[f"blocks.1.attn.hook_{what}"] for what in ("pattern", "v"))
    z = torch.einsum("bhqk,bkhd->bqhd", pattern, value[:, :, rows.reads])
    assert_close(taps.values["blocks.1.attn.hook_z"], z, rtol=0, atol=1e-12)


def test_without_a_mask_hf_takes_positions_that_jump_for_packed_sequences() -> None:
    """Why the harness gives a full mask beside position ids: without one HF's own answer depends on `use_cache`."""
    model, positions = build(), torch.arange(0, 18, 2).expand(3, 9)
    given = {"input_ids": ids(), "position_ids": positions}
    with torch.no_grad():
        cached, bare = (model(**given, use_cache=use).logits for use in (True, False))
        masked = [model(**given, attention_mask=torch.ones_like(ids()), use_cache=use).logits for use in (True, False)]
    assert (cached - bare).abs().max() > 0.1
    assert_close(masked[0], cached, rtol=0, atol=1e-12)
    assert_close(masked[1], cached, rtol=0, atol=1e-12)


# --- the harness with it, against TransformerLens ----------------------------------------------------------------

LENS = "transformer-lens"
FOUND = {  # on every config that HF accepts and that has layers
    ("reference.attention", Verdict.UPSTREAM),
    # The table of positions has a point that never fires.
    ("hooks.fires", Verdict.FAIL),
    # Where a hook gives back another tensor, or gradients are read, norms are computed on another path.
    ("hooks.identity", Verdict.FAIL),
    ("backward.identity", Verdict.FAIL),
    # A hook of gradients is in the graph of the forward, and acts after it was removed.
    ("hooks.removed", Verdict.FAIL),
}
# On a sampled case too: a copy of a hooked bridge keeps the hooks.
FOUND_IN_SAMPLED = {("state.copy_hooks", Verdict.FAIL)}
# Folding value biases does not know of grouped heads.
FOUND_GROUPED_AND_BIASED = {("weights.processings", Verdict.ERROR)}
# Its config looks for the base of rotary positions where transformers no longer has it.
FOUND_WITH_ANOTHER_BASE = {("build.facts", Verdict.FAIL)}
# It takes the softmax in float32 whatever the model's dtype: what rests on it is right to that only. So is what its
# weight processings, and its norms' hooks, have been through.
REDUCED = {
    "forward.logits",
    "hooks.values",
    "state.interleaved",
    "weights.processings_together",
    "component.attention",
    "component.blocks",
}
REDUCED_THOROUGHLY = {"weights.writing", "weights.processed_points"}
SKIPPED = {"weights.restore": "not applicable: the adapter offers no restore"}


@pytest.fixture(scope="module")
def lens() -> Any:
    pytest.importorskip("transformer_lens")
    from verifier_lens import LensAdapter

    return LensAdapter()


@pytest.fixture(scope="module")
def bridge_of(lens: Any) -> Any:
    """TransformerLens' own way of wrapping a model of HF's; nothing of the harness in it."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    return lambda model: build_bridge_from_module(model, "LlamaForCausalLM", hf_config=model.config)


def product_case(**flags: Any) -> CaseSpec:
    wanted = {name: flags.get(name, values[0]) for name, values in FLAGS.items()}
    (spec,) = [
        spec
        for spec in CASES.values()
        if spec.label is None and all(spec.config[name] == value for name, value in wanted.items())
    ]
    return deep(spec)


SPREAD = {
    "plainest": product_case(),
    "biased-multi-query": product_case(attention_bias=True, num_key_value_heads=1),
    "everything-grouped": product_case(
        attention_bias=True, mlp_bias=True, num_key_value_heads=4, tie_word_embeddings=True, head_dim=10
    ),
    **{label: deep(CASES[label]) for label in ("three-layers", "one-head", "d_head-1", "relu", "rope-llama3")},
}


@pytest.mark.slow
@pytest.mark.parametrize("label", SPREAD)
def test_what_is_found_in_transformer_lens_is_this(label: str, lens: Any) -> None:
    spec = SPREAD[label]
    found = outcomes(spec, LLAMA, lens)
    grouped = spec.config.get("num_key_value_heads") not in (None, spec.config["num_attention_heads"])
    odd = grouped and spec.config.get("attention_bias", False)
    assert {one.check.partition(".")[0] for one in found} == set(checks.AREAS) - {"cache"}
    based = spec.config.get("rope_parameters", {}).get("rope_theta", 1e4) != 1e4
    assert {(one.check, one.verdict) for one in found if one.verdict.is_finding} == (
        FOUND
        | (FOUND_IN_SAMPLED if spec.is_sampled else set())
        | (FOUND_GROUPED_AND_BIASED if odd else set())
        | (FOUND_WITH_ANOTHER_BASE if based else set())
    )
    assert {one.check for one in found if one.verdict is Verdict.REDUCED} == (
        REDUCED | (REDUCED_THOROUGHLY if spec.is_sampled else set()) | (set() if odd else {"weights.processings"})
    )
    assert {one.check: one.message for one in found if one.verdict is Verdict.SKIP} == SKIPPED


@pytest.mark.slow
def test_without_layers_only_what_needs_none_is_found(lens: Any) -> None:
    found = outcomes(CASES["no-layers"], LLAMA, lens)
    assert {one.check for one in found if one.verdict.is_finding} == {
        "hooks.fires",
        "hooks.identity",
        "hooks.removed",
        "backward.identity",
    }
    assert sum(one.verdict is Verdict.PASS for one in found) > len(found) / 2


@pytest.mark.slow
@pytest.mark.parametrize("label", ["kv-heads-not-divided", "kv-heads-too-many", "d_head-3"])
def test_what_hf_refuses_only_at_its_forward_is_wrapped(label: str, lens: Any) -> None:
    found = {one.check: one for one in outcomes(CASES[label], LLAMA, lens)}
    assert found["reference.acceptance"].verdict is Verdict.PASS
    assert found["build.refusal"].verdict is Verdict.FAIL
    assert "it wraps what HF refuses" in (found["build.refusal"].message or "")


@pytest.mark.parametrize("label", ["kv-heads-zero", "d_head-5", "bias-none"])
def test_what_hf_does_not_even_build_is_not_the_adapters(label: str, lens: Any) -> None:
    found = {one.check: one for one in outcomes(CASES[label], LLAMA, lens)}
    assert found["reference.acceptance"].verdict is Verdict.PASS
    assert found["build.refusal"].verdict is Verdict.SKIP


# --- the same findings with no harness: torch, transformers and transformer_lens alone ---------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@torch.no_grad()
def test_transformer_lens_counts_positions_by_the_mask(bridge_of: Any, dtype: torch.dtype) -> None:
    model, bridge = build(dtype=dtype), bridge_of(build(dtype=dtype))
    padding, told = mask(GAPS), {"position_ids": torch.arange(9)[None]}
    real, tokens = padding.bool(), ids(1)
    theirs, ours = model(tokens, attention_mask=padding).logits, bridge(tokens, attention_mask=padding)
    assert apart(ours, theirs, real) > 0.1
    assert apart(bridge(tokens, attention_mask=padding, **told), theirs, real) < 1e-4
    counted = (padding.cumsum(-1) - 1).clamp(min=0)
    assert apart(ours, model(tokens, attention_mask=padding, position_ids=counted).logits, real) < 1e-4
    ours_pattern, theirs_pattern = [], build("eager", dtype)(tokens, attention_mask=padding, output_attentions=True)
    bridge.run_with_hooks(
        tokens,
        attention_mask=padding,
        fwd_hooks=[("blocks.0.attn.hook_pattern", lambda value, hook: ours_pattern.append(value.clone()))],
    )
    assert apart(ours_pattern[0][:, 0], theirs_pattern.attentions[0][:, 0], real) > 1e-2


@torch.no_grad()
def test_under_left_padding_it_is_no_number_in_float64_as_hfs_eager_attention_is(bridge_of: Any) -> None:
    """Float64's lowest number, which hides the padding, is -inf in the float32 in which both take the softmax."""
    padding = mask(LEFT)
    for dtype, finite in ((torch.float64, False), (torch.float32, True)):
        inputs = {"attention_mask": padding}
        sdpa, eager = (build(path, dtype)(ids(1), **inputs).logits[padding.bool()] for path in ("sdpa", "eager"))
        ours = bridge_of(build(dtype=dtype))(ids(1), **inputs)[padding.bool()]
        assert sdpa.isfinite().all()
        assert bool(eager.isfinite().all()) is finite
        assert bool(ours.isfinite().all()) is finite


@torch.no_grad()
def test_its_softmax_is_of_float32_in_a_float64_model(bridge_of: Any) -> None:
    ours = bridge_of(build())(ids())
    assert 1e-9 < apart(ours, build()(ids()).logits) < 1e-4
    assert apart(ours, build("eager")(ids()).logits) < 1e-12


def test_its_config_tells_the_usual_base_of_rotary_positions_whatever_the_models_is(bridge_of: Any) -> None:
    model = build(rope_parameters={"rope_type": "default", "rope_theta": 500_000.0})
    logits = model(ids()).logits
    bridge = bridge_of(model)
    assert bridge.cfg.rotary_base == 10_000
    assert apart(bridge(ids()), logits) < 1e-4  # it computes by Hugging Face's own


def test_it_wraps_a_model_whose_heads_cannot_be_grouped(bridge_of: Any) -> None:
    with pytest.raises(RuntimeError):
        build(num_key_value_heads=5)(ids())
    bridge = bridge_of(build(num_key_value_heads=5))
    with pytest.raises(RuntimeError):
        bridge(ids())


# --- the planted faults ------------------------------------------------------------------------------------------

PLANTED = (
    ("split-heads-reversed", "qkv.rows"),
    ("split-k-v-swapped", "qkv.projections"),
    ("split-bias-lost", "qkv.rows"),
    ("split-kv-expanded", "qkv.heads"),
    ("split-downcast", "qkv.placement"),
    ("kv-tiled", "qkv.reads"),
    ("parameters-unreachable", "build.parameters"),
    ("untied", "build.tied"),
    ("mask-off-by-one", "forward.causality"),
    ("logits-scaled", "forward.logits"),
    ("tap-touches", "reference.taps"),
    ("weights-uniform", "reference.seeds"),
)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("name", "check"), PLANTED)
def test_a_planted_fault_is_seen(name: str, check: str, lens: Any) -> None:
    spec = SPREAD["everything-grouped"]
    (fault,) = [one for one in faults.list_faults(LLAMA) if one.name == name]
    assert check in fault.caught_by
    (clean,) = outcomes(spec, LLAMA, lens, check)
    assert clean.verdict in (Verdict.PASS, Verdict.REDUCED)
    broken_family, broken_adapter = fault.plant(LLAMA, lens)
    (broken,) = run_case(spec, broken_family, broken_adapter, checks.select([check]))
    assert broken.verdict is Verdict.FAIL, broken


# --- the command -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_runs_it_from_the_folder_that_it_is_in(lens: Any, tmp_path: Path) -> None:
    command = ["run", REFERENCE, "--adapter", LENS, "--workers", "1", "--only", "qkv", "--only", "hooks.fires"]
    where = ["--where", "attention_bias=true,mlp_bias=false,tie_word_embeddings=true,num_key_value_heads=4"]
    ended = subprocess.run(
        [sys.executable, "-m", "verifier", *command, *where, "--out", tmp_path],
        cwd=HERE,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "DOES NOT CONFORM (1 bug in 2 cases)" in ended.stdout, ended.stdout
    lines = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    verdicts = [(line["check"], line["verdict"]) for line in lines if line["kind"] == "outcome"]
    assert len(verdicts) == 2 * (6 + 1)
    assert {check for check, verdict in verdicts if verdict != "pass"} == {"hooks.fires"}
