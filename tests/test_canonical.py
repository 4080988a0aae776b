"""The vocabulary is consistent: one name for a thing, in causal order, with axes that a reader can rely on."""

from __future__ import annotations

import re
from typing import Any

import pytest

from verifier.canonical import (
    COMPONENTS,
    KINDS,
    WEIGHTS,
    Kind,
    axes_of,
    name_in,
    points,
    template_of,
    templates_by_layer,
)

HOOK_NAME = re.compile(r"(blocks\.\{i\}\.)?(\w+\.)?(\w+\.|experts\.\{e\}\.)?hook_\w+")
DENSE = ["blocks.{i}.mlp.hook_pre", "blocks.{i}.mlp.hook_post"]
EXPERTS = ["blocks.{i}.mlp.hook_expert_weights", "blocks.{i}.mlp.experts.{e}.hook_pre"]
ATTENTION = ["blocks.{i}.attn.hook_q", "blocks.{i}.attn.hook_z"]
STREAM = ["hook_embed", "blocks.{i}.hook_resid_pre", "blocks.{i}.hook_resid_post", "ln_final.hook_scale"]


def test_no_two_kinds_have_one_name() -> None:
    templates = [kind.template for kind in KINDS]
    assert len(set(templates)) == len(templates)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.template)
def test_each_kind_is_named_as_a_hook_and_says_what_it_is(kind: Kind) -> None:
    assert HOOK_NAME.fullmatch(kind.template)
    assert kind.axes[0] == "batch"
    assert len(kind.meaning) > 5


@pytest.mark.parametrize(
    "template",
    [*(kind.template for kind in KINDS), *(weight.template for weight in WEIGHTS), *COMPONENTS],
    ids=lambda template: template,
)
def test_a_name_in_a_layer_leads_back_to_its_template(template: str) -> None:
    assert template_of(name_in(template, 17, 3)) == template


def test_the_axes_of_an_experts_point_and_weight_are_found_by_name() -> None:
    assert axes_of("blocks.11.mlp.experts.12.hook_post") == ("batch", "pos", "d_mlp")
    assert axes_of("blocks.11.mlp.experts.12.W_out") == ("d_mlp", "d_model")


def test_the_gate_of_an_mlp_and_the_router_have_names_of_their_own() -> None:
    assert axes_of("blocks.0.mlp.W_gate") == ("d_model", "d_mlp")
    assert axes_of("blocks.0.mlp.router.W") == ("d_model", "expert")


def test_what_names_experts_has_whole_numbers_and_nothing_else_has() -> None:
    assert [kind.template for kind in KINDS if kind.is_discrete] == ["blocks.{i}.mlp.hook_expert_indices"]


def test_what_a_norm_divides_by_is_told_by_its_axes() -> None:
    assert {kind.template for kind in KINDS if kind.is_scale} == {
        kind.template for kind in KINDS if kind.template.endswith(".hook_scale")
    }


def test_every_norm_has_both_points_both_weights_and_a_component() -> None:
    norms = {kind.template.removesuffix(".hook_scale") for kind in KINDS if kind.is_scale}
    templates = {kind.template for kind in KINDS} | {weight.template for weight in WEIGHTS}
    assert len(norms) == 8
    for norm in norms:
        assert {f"{norm}.hook_normalized", f"{norm}.w", f"{norm}.b"} <= templates
        assert norm in COMPONENTS


@pytest.mark.parametrize("name", ["hook_embed", "ln_final.hook_scale", "logits", "blocks", "forward: left padding", ""])
def test_a_name_outside_the_blocks_is_its_own_template(name: str) -> None:
    assert template_of(name) == name


def test_points_come_in_causal_order_whatever_order_they_are_asked_for_in() -> None:
    asked = ["ln_final.hook_scale", "blocks.{i}.hook_resid_post", "blocks.{i}.attn.hook_q", "hook_embed"]
    assert [point.name for point in points(asked, 2)] == [
        "hook_embed",
        "blocks.0.attn.hook_q",
        "blocks.0.hook_resid_post",
        "blocks.1.attn.hook_q",
        "blocks.1.hook_resid_post",
        "ln_final.hook_scale",
    ]


def test_a_model_without_blocks_has_what_stands_outside_them() -> None:
    asked = ["ln_final.hook_scale", "blocks.{i}.hook_resid_post", "hook_embed"]
    assert [point.name for point in points(asked, 0)] == ["hook_embed", "ln_final.hook_scale"]


def test_no_blocks_asked_for_leaves_the_order_of_the_rest() -> None:
    assert [point.name for point in points(["ln_final.hook_scale", "hook_embed"], 3)] == [
        "hook_embed",
        "ln_final.hook_scale",
    ]


def test_a_point_knows_its_layer_and_axes() -> None:
    (point,) = (one for one in points(["blocks.{i}.attn.hook_z"], 3) if one.layer == 2)
    assert (point.name, point.axes) == ("blocks.2.attn.hook_z", ("batch", "pos", "head", "d_head"))


@pytest.mark.parametrize("given", [{"n_layers": 1}, {"by_layer": [[]]}])
def test_a_kind_that_nobody_knows_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="hook_nothing"):
        points(["blocks.{i}.hook_nothing"], **given)
    with pytest.raises(KeyError, match="hook_nothing"):
        points([], by_layer=[["blocks.{i}.hook_nothing"]])


def test_each_block_may_have_kinds_of_its_own_in_causal_order() -> None:
    found = points(STREAM, by_layer=[[*DENSE, *ATTENTION], EXPERTS], n_experts=2)
    assert [point.name for point in found] == [
        "hook_embed",
        "blocks.0.hook_resid_pre",
        "blocks.0.attn.hook_q",
        "blocks.0.attn.hook_z",
        "blocks.0.mlp.hook_pre",
        "blocks.0.mlp.hook_post",
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_pre",
        "blocks.1.mlp.hook_expert_weights",
        "blocks.1.mlp.experts.0.hook_pre",
        "blocks.1.mlp.experts.1.hook_pre",
        "blocks.1.hook_resid_post",
        "ln_final.hook_scale",
    ]
    assert [(point.layer, point.expert) for point in found if point.kind.in_expert] == [(1, 0), (1, 1)]


def test_blocks_that_are_alike_may_be_said_one_by_one() -> None:
    assert points(STREAM, by_layer=[ATTENTION] * 3) == points([*STREAM, *ATTENTION], 3)
    assert points(STREAM, 0, by_layer=[]) == points(STREAM, 0)


def test_the_kinds_of_blocks_are_told_apart() -> None:
    by_layer = templates_by_layer(points(STREAM, by_layer=[DENSE, EXPERTS, DENSE], n_experts=2))
    assert list(by_layer) == [0, 1, 2]
    assert by_layer[0] == by_layer[2] == {*STREAM[1:3], *DENSE}
    assert by_layer[1] == {*STREAM[1:3], *EXPERTS}


@pytest.mark.parametrize(
    ("templates", "given", "words"),
    [
        (STREAM, {}, "needs n_layers or by_layer"),
        (STREAM, {"n_layers": 2, "by_layer": [[]]}, "by_layer has 1 blocks, and n_layers is 2"),
        (STREAM, {"by_layer": [["ln_final.hook_scale"]]}, "ln_final.hook_scale stands in no block"),
        (EXPERTS, {"n_layers": 2}, "blocks.{i}.mlp.experts.{e}.hook_pre stands in experts, and n_experts is 0"),
    ],
)
def test_what_fits_no_model_is_refused(templates: list[str], given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        points(templates, **given)


def test_no_two_weights_have_one_name() -> None:
    templates = [weight.template for weight in WEIGHTS]
    assert len(set(templates)) == len(templates)


def test_a_weight_has_a_bias_with_the_axes_that_it_gives() -> None:
    axes = {weight.template: weight.axes for weight in WEIGHTS}
    for letter, out in (("Q", "head"), ("K", "kv_head"), ("V", "kv_head")):
        assert axes[f"blocks.{{i}}.attn.b_{letter}"] == (out, "d_head")
        assert axes[f"blocks.{{i}}.attn.W_{letter}"] == (out, "d_model", "d_head")
    assert axes["blocks.{i}.attn.b_O"] == axes["blocks.{i}.attn.W_O"][-1:]
    for mlp in ("blocks.{i}.mlp", "blocks.{i}.mlp.experts.{e}", "blocks.{i}.mlp.shared_expert"):
        for part in ("in", "gate", "out"):
            assert axes[f"{mlp}.b_{part}"] == axes[f"{mlp}.W_{part}"][-1:]
    assert axes["blocks.{i}.mlp.router.b"] == axes["blocks.{i}.mlp.router.W"][-1:]
    assert axes["unembed.b_U"] == axes["unembed.W_U"][-1:]
