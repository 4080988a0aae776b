"""The vocabulary is consistent: one name for a thing, in causal order, with axes that a reader can rely on."""

from __future__ import annotations

import re

import pytest

from verifier.canonical import COMPONENTS, KINDS, WEIGHTS, Kind, points, template_of

HOOK_NAME = re.compile(r"(blocks\.\{i\}\.)?(\w+\.)?hook_\w+")


def test_no_two_kinds_have_one_name() -> None:
    templates = [kind.template for kind in KINDS]
    assert len(set(templates)) == len(templates)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.template)
def test_each_kind_is_named_as_a_hook_and_says_what_it_is(kind: Kind) -> None:
    assert HOOK_NAME.fullmatch(kind.template)
    assert kind.axes[0] == "batch"
    assert len(kind.meaning) > 5


def test_a_name_in_a_layer_leads_back_to_its_template() -> None:
    for kind in KINDS:
        assert template_of(kind.at(17)) == kind.template


def test_a_component_in_a_layer_leads_back_to_its_template() -> None:
    for component in COMPONENTS:
        assert template_of(component.replace("{i}", "3")) == component


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


def test_a_kind_that_nobody_knows_is_refused() -> None:
    with pytest.raises(KeyError, match="hook_nothing"):
        points(["blocks.{i}.hook_nothing"], 1)


def test_no_two_weights_have_one_name() -> None:
    templates = [weight.template for weight in WEIGHTS]
    assert len(set(templates)) == len(templates)


def test_a_weight_has_a_bias_with_the_axes_that_it_gives() -> None:
    axes = {weight.template: weight.axes for weight in WEIGHTS}
    for letter, out in (("Q", "head"), ("K", "kv_head"), ("V", "kv_head")):
        assert axes[f"blocks.{{i}}.attn.b_{letter}"] == (out, "d_head")
        assert axes[f"blocks.{{i}}.attn.W_{letter}"] == (out, "d_model", "d_head")
    assert axes["blocks.{i}.attn.b_O"] == axes["blocks.{i}.attn.W_O"][-1:]
    assert axes["blocks.{i}.mlp.b_in"] == axes["blocks.{i}.mlp.W_in"][-1:]
    assert axes["blocks.{i}.mlp.b_out"] == axes["blocks.{i}.mlp.W_out"][-1:]
    assert axes["unembed.b_U"] == axes["unembed.W_U"][-1:]
