"""Falcon's reference side: its splits, points and models are Hugging Face's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from falcon_written_out import split
from falcons import DIMS, KINDS, build, tokens
from transformers import FalconConfig, FalconForCausalLM
from transformers.activations import ACT2FN

from verifier.canonical import FACTS
from verifier.errors import VerifierError
from verifier.families.falcon import FalconFamily
from verifier.families.falcon_refusals import _FIELDS
from verifier.families.refusals import ACTIVATIONS

every_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
SEQUENTIAL, GROUPED = KINDS["sequential-own-keys-rope"], KINDS["two-norms-grouped-rope"]


def test_its_facts_are_facts(falcon: FalconFamily) -> None:
    for alibi in (False, True):
        model = falcon.build(
            {**falcon.dims(), "alibi": alibi}, dtype=torch.float32, device="cpu", attention="sdpa", seed=0
        )
        assert set(falcon.facts(model)) == FACTS.keys() - ({"rotary_base"} if alibi else set())


def test_it_names_hfs_class(falcon: FalconFamily) -> None:
    assert type(build(falcon, GROUPED)).__name__ == falcon.architecture == FalconForCausalLM.__name__


def test_the_activations_that_it_knows_are_those_of_hf() -> None:
    assert set(ACT2FN) == ACTIVATIONS


def test_the_defaults_that_it_knows_are_those_of_hf() -> None:
    theirs = FalconConfig()
    for name, (value, *_) in _FIELDS.items():
        assert value is None or getattr(theirs, name) == value, name  # HF fills in some of those that are None


# --- the split -------------------------------------------------------------------------------------------------------


@every_kind
def test_rows_are_where_the_split_written_out_has_them(falcon: FalconFamily, config: Mapping[str, Any]) -> None:
    model = build(falcon, config)
    for layer in range(config["num_hidden_layers"]):
        rows = falcon.qkv_rows(model, layer)
        fused = model.get_submodule(rows.q.module)
        numbers = torch.arange(fused.weight.shape[0])
        for projection, right in zip((rows.q, rows.k, rows.v), split(numbers, config), strict=True):
            assert projection.module == f"transformer.h.{layer}.self_attention.query_key_value"
            assert torch.equal(projection.rows, right)


@every_kind
def test_every_fused_row_is_somebodys_exactly_once(falcon: FalconFamily, config: Mapping[str, Any]) -> None:
    model = build(falcon, config)
    rows = falcon.qkv_rows(model, 0)
    taken = torch.cat([one.rows.flatten() for one in (rows.q, rows.k, rows.v)])
    assert taken.sort().values.tolist() == list(range(model.get_submodule(rows.q.module).weight.shape[0]))


@pytest.mark.parametrize(
    ("kind", "reads"),
    [
        ("one-norm-multi-query-rope", [0, 0, 0, 0, 0, 0]),
        ("two-norms-multi-query-rope", [0, 0, 0, 0, 0, 0]),
        ("two-norms-grouped-rope", [0, 0, 1, 1, 2, 2]),
        ("one-norm-own-keys-rope", [0, 1, 2, 3, 4, 5]),
        ("two-norms-own-keys-alibi", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_which_key_value_head_each_query_head_reads(falcon: FalconFamily, kind: str, reads: list[int]) -> None:
    assert falcon.qkv_rows(build(falcon, KINDS[kind]), 1).reads.tolist() == reads


def test_key_value_heads_beside_multi_query_are_ignored(falcon: FalconFamily) -> None:
    rows = falcon.qkv_rows(build(falcon, {**DIMS, "num_kv_heads": 71}), 0)
    assert rows.k.rows.shape == (1, 4)


# --- points ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "sequential", "own_norm"),
    [
        ("sequential-own-keys-rope", True, True),
        ("one-norm-multi-query-rope", False, False),
        ("one-norm-grouped-rope", False, False),
        ("two-norms-grouped-rope", False, True),
    ],
)
def test_which_points_a_block_has(falcon: FalconFamily, kind: str, sequential: bool, own_norm: bool) -> None:
    names = {point.name for point in falcon.points(KINDS[kind])}
    assert ("blocks.0.hook_resid_mid" in names) == sequential
    assert ("blocks.0.ln2.hook_scale" in names) == ("blocks.0.ln2.hook_normalized" in names) == own_norm


def test_a_model_with_alibi_rotates_nothing(falcon: FalconFamily) -> None:
    rotary = {point.name for point in falcon.points(GROUPED) if "hook_rot" in point.name}
    assert len(rotary) == 2 * GROUPED["num_hidden_layers"]
    assert not any("hook_rot" in point.name for point in falcon.points({**GROUPED, "alibi": True}))


def test_a_model_without_blocks_has_points_outside_them(falcon: FalconFamily) -> None:
    assert [point.name for point in falcon.points({**DIMS, "num_hidden_layers": 0})] == [
        "hook_embed",
        "ln_final.hook_scale",
        "ln_final.hook_normalized",
    ]


@every_kind
def test_the_norms_that_it_names_are_the_ones_that_hf_reads(falcon: FalconFamily, config: Mapping[str, Any]) -> None:
    model, block = build(falcon, config), falcon.block(config, 0)
    called: list[str] = []
    for name, module in model.transformer.h[0].named_children():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model(tokens(), use_cache=False)
    assert called == [block[name] for name in ("ln1", "ln2") if name in block]


# --- components ------------------------------------------------------------------------------------------------------


@every_kind
def test_components_hold_every_parameter(falcon: FalconFamily, config: Mapping[str, Any]) -> None:
    model = build(falcon, config)
    held = {id(one) for module in falcon.components(model).values() for one in module.parameters()}
    assert held == {id(one) for one in model.parameters()}


@every_kind
def test_a_component_for_the_mlps_norm_only_where_it_has_one(falcon: FalconFamily, config: Mapping[str, Any]) -> None:
    names = falcon.components(build(falcon, config)).keys()
    declared = {point.name for point in falcon.points(config)}
    assert ("blocks.1.ln2" in names) == ("blocks.1.ln2.hook_scale" in declared)


# --- building --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_model_is_built_as_it_was_asked_for(falcon: FalconFamily, dtype: torch.dtype, attention: str) -> None:
    model = falcon.build(GROUPED, dtype=dtype, device="cpu", attention=attention, seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.config._attn_implementation == attention
    assert not model.training


def test_inverse_frequencies_keep_the_precision_that_a_cast_would_take(falcon: FalconFamily) -> None:
    model: Any = falcon.build(GROUPED, dtype=torch.bfloat16, device="cpu", attention="sdpa", seed=0)
    assert model.transformer.rotary_emb.inv_freq.dtype == torch.float32
    assert model.to(torch.bfloat16).transformer.rotary_emb.inv_freq.dtype == torch.bfloat16


def test_one_seed_gives_one_model_in_every_dtype_up_to_rounding(falcon: FalconFamily) -> None:
    double = build(falcon, GROUPED)
    half: Any = falcon.build(GROUPED, dtype=torch.bfloat16, device="cpu", attention="eager", seed=0)
    other = build(falcon, GROUPED, seed=1)
    for (name, one), rounded, unlike in zip(
        double.named_parameters(), half.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one.to(torch.bfloat16), rounded), name
        assert not torch.equal(one, unlike), name


def test_two_models_share_nothing(falcon: FalconFamily) -> None:
    first, second = build(falcon, GROUPED), build(falcon, GROUPED)
    mine = {one.untyped_storage().data_ptr() for one in (*first.parameters(), *first.buffers())}
    theirs = {one.untyped_storage().data_ptr() for one in (*second.parameters(), *second.buffers())}
    assert not mine & theirs
    assert first.config is not second.config


def test_what_is_drawn_into_one_model_is_not_drawn_into_another(falcon: FalconFamily) -> None:
    first = build(falcon, GROUPED)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7.0)
    assert not any(bool((parameter == 7.0).all()) for parameter in build(falcon, GROUPED).parameters())


def test_no_two_parameters_are_alike(falcon: FalconFamily) -> None:
    values = [tuple(one.flatten()[:4].tolist()) for one in build(falcon, SEQUENTIAL).parameters()]
    assert len(set(values)) == len(values)


def test_no_norm_or_bias_has_the_value_that_hf_gives_it_at_first(falcon: FalconFamily) -> None:
    model = build(falcon, SEQUENTIAL)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert not bool(((parameter == 0) | (parameter == 1)).any()), name


def test_attention_is_neither_uniform_nor_on_one_token(falcon: FalconFamily) -> None:
    model = build(falcon, GROUPED)
    with torch.no_grad(), falcon.taps(model) as taps:
        model(tokens(), use_cache=False)
    most = taps.values["blocks.1.attn.hook_pattern"][:, :, -1].max(-1).values.mean()  # of seven keys
    assert 0.25 < float(most) < 0.9


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_tied_as_the_config_says(falcon: FalconFamily, tied: bool) -> None:
    model = build(falcon, {**GROUPED, "tie_word_embeddings": tied})
    assert (model.lm_head.weight is model.transformer.word_embeddings.weight) == tied


@pytest.mark.parametrize("more", [{}, {"rope_parameters": {"rope_theta": 100.0}}], ids=["flat", "nested"])
def test_the_config_that_it_is_given_is_not_written_into(falcon: FalconFamily, more: Mapping[str, Any]) -> None:
    config = copy.deepcopy({**GROUPED, **more})
    build(falcon, config)
    assert config == {**GROUPED, **more}


def test_building_does_not_touch_the_global_random_numbers(falcon: FalconFamily) -> None:
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    build(falcon, GROUPED)
    assert torch.equal(torch.rand(3), untouched)


def test_an_attention_that_hf_does_not_have_is_hfs_error(falcon: FalconFamily) -> None:
    with pytest.raises((ValueError, VerifierError), match="flex"):
        build(falcon, GROUPED, attention="flexible_attention_of_mine")
