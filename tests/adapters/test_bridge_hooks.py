"""Hook points: reading, replacing, gradients, removal, names."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, build, gap, pair, tokens
from torch import Tensor
from torch.nn import functional
from verifier_bridge import HookError

from verifier.canonical import KINDS as CANONICAL
from verifier.canonical import points, template_of

READS = {"as it is": lambda value: value, "nothing": lambda value: None, "a copy": lambda value: value.clone()}


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_every_point_is_canonical_and_fires_once_in_causal_order(flags: dict[str, Any]) -> None:
    _, bridge = pair(**flags)
    fired: list[str] = []

    def note(name: str) -> Any:
        return lambda value: fired.append(name)

    with bridge.switched(bridge.hook_points), bridge.hooked({name: note(name) for name in bridge.hook_points}):
        bridge(tokens())
    templates = {template_of(name) for name in bridge.hook_points}
    assert fired == [point.name for point in points([k.template for k in CANONICAL if k.template in templates], 2)]


def test_points_that_must_not_exist_do_not() -> None:
    names = {kind: {template_of(name) for name in pair(**flags)[1].hook_points} for kind, flags in KINDS.items()}
    assert {kind for kind in KINDS if "blocks.{i}.hook_resid_mid" in names[kind]} == {"rw", "sequential-rope"}
    assert {kind for kind in KINDS if "blocks.{i}.ln2.hook_scale" not in names[kind]} == {"7b", "11b"}
    assert {kind for kind in KINDS if "blocks.{i}.attn.hook_rot_q" not in names[kind]} == {"rw", "alibi-grouped"}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_an_identity_changes_no_bit(flags: dict[str, Any], read: Any) -> None:
    _, bridge = pair(**flags, dtype=torch.float32)
    plain = bridge(tokens(), labels=tokens())
    plain.loss.backward()
    gradients = bridge.canonical_gradients()
    bridge.zero_grad()
    every = dict.fromkeys(bridge.hook_points, read)
    with bridge.switched(bridge.hook_points), bridge.hooked(every):
        assert torch.equal(bridge(tokens()).logits, plain.logits)
    ungated = [name for name, point in bridge.hook_points.items() if point.on]
    with bridge.hooked(backward=dict.fromkeys(ungated, lambda gradient: None)):
        hooked = bridge(tokens(), labels=tokens())
        hooked.loss.backward()
    assert torch.equal(hooked.logits, plain.logits)
    assert all(torch.equal(gradients[name], value) for name, value in bridge.canonical_gradients().items())


@pytest.mark.parametrize("kind", ["40b", "rw"])
def test_replacing_at_every_point_takes_effect_on_what_is_downstream(kind: str) -> None:
    _, bridge = pair(**KINDS[kind])
    plain = bridge(tokens()).logits
    with bridge.switched(bridge.hook_points):
        for name in bridge.hook_points:
            with bridge.hooked({name: lambda value: value + value.roll(1, -1) / 2}):
                assert gap(bridge(tokens()).logits, plain) > 1e-6, name
    assert torch.equal(bridge(tokens()).logits, plain)


@pytest.mark.parametrize("kind", ["40b", "rw"])
def test_the_gradient_at_every_point_is_the_derivative(kind: str) -> None:
    _, bridge = pair(**KINDS[kind])
    step = 1e-6
    values: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    readout = torch.randn(2, 7, 113, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def keep(where: dict[str, Tensor], name: str) -> Any:
        return lambda tensor: where.__setitem__(name, tensor.detach())

    with bridge.switched(bridge.hook_points):
        points = list(bridge.hook_points)
        with bridge.hooked({n: keep(values, n) for n in points}, {n: keep(gradients, n) for n in points}):
            (bridge(tokens()).logits * readout).sum().backward()
        for name in points:
            direction = torch.randn(values[name].shape, generator=torch.Generator().manual_seed(1)).double()

            def along(sign: int, name: str = name, by: Tensor = direction) -> float:
                with torch.no_grad(), bridge.hooked({name: lambda value: value + sign * step * by}):
                    return float((bridge(tokens()).logits * readout).sum())

            slope = (along(1) - along(-1)) / (2 * step)
            assert abs(slope - float((gradients[name] * direction).sum())) < 1e-5 * (1 + abs(slope)), name


def test_a_replaced_norm_scale_and_normalized_act_as_they_read() -> None:
    _, bridge = pair(**KINDS["rw"])
    _, seen = bridge.run_with_cache(tokens())
    scaled: dict[str, Tensor] = {}
    with bridge.hooked(
        {
            "ln_final.hook_scale": lambda scale: scale * 2,
            "ln_final.hook_normalized": lambda value: scaled.__setitem__("half", value),
        }
    ):
        bridge(tokens())
    assert gap(scaled["half"], seen["ln_final.hook_normalized"] / 2) < 1e-14
    with bridge.hooked({"ln_final.hook_normalized": torch.ones_like}):
        logits = bridge(tokens()).logits
    norm = bridge.model.get_submodule("transformer.ln_f")
    expected = bridge.model.get_submodule("lm_head")(norm.weight + norm.bias)  # type: ignore[operator]
    assert gap(logits, expected.expand_as(logits)) < 1e-14


def test_a_replaced_gradient_is_what_goes_upstream() -> None:
    _, bridge = pair(**KINDS["11b"])
    with bridge.hooked(backward={"blocks.1.hook_resid_pre": torch.zeros_like}):
        bridge(tokens(), labels=tokens()).loss.backward()
    gradients = bridge.canonical_gradients()
    assert not gradients["blocks.0.attn.W_Q"].any()
    assert gradients["blocks.1.attn.W_Q"].any()


def test_gradients_reach_points_of_a_frozen_model_and_replaced_values() -> None:
    _, bridge = pair(**KINDS["7b"])
    bridge.requires_grad_(requires_grad=False)
    seen: list[Tensor] = []
    point = "blocks.0.hook_attn_out"
    with bridge.hooked({point: torch.zeros_like}, {point: seen.append}):
        bridge(tokens(), labels=tokens()).loss.backward()
    assert len(seen) == 1
    assert bool(seen[0].any())


def test_the_value_that_a_hook_reads_is_in_the_graph() -> None:
    _, bridge = pair(**KINDS["40b"])
    seen: list[Tensor] = []
    with bridge.hooked({"blocks.0.attn.hook_k": seen.append}):
        loss = bridge(tokens(), labels=tokens()).loss
    (gradient,) = torch.autograd.grad(loss, seen)
    assert bool(gradient.any())


def test_writing_into_the_tensor_is_an_edit_of_that_point_alone() -> None:
    _, bridge = pair(**KINDS["40b"])
    _, clean = bridge.run_with_cache(tokens())

    def first_head_off(value: Tensor) -> None:
        value[:, :, 0] = 0.0

    with bridge.hooked({"blocks.1.attn.hook_v": first_head_off}):
        written, seen = bridge.run_with_cache(tokens())
    off = clean["blocks.1.attn.hook_v"].clone()
    off[:, :, 0] = 0.0
    with bridge.hooked({"blocks.1.attn.hook_v": lambda value: off}):
        assert torch.equal(bridge(tokens()).logits, written.logits)
    assert torch.equal(seen["blocks.1.attn.hook_q"], clean["blocks.1.attn.hook_q"])
    torch.autograd.backward(written.logits.sum())


def test_several_edits_at_one_point_run_in_the_order_in_which_they_came() -> None:
    _, bridge = pair(**KINDS["7b"])
    bridge.add_hook("hook_embed", lambda value: value + 1)
    second = bridge.add_hook("hook_embed", lambda value: value * 2)
    _, seen = bridge.run_with_cache(tokens(), names=["hook_embed"])
    plain = bridge.model.get_submodule("transformer.word_embeddings")(tokens())
    assert torch.equal(seen["hook_embed"], (plain + 1) * 2)
    second.remove()
    second.remove()
    _, seen = bridge.run_with_cache(tokens(), names=["hook_embed"])
    assert torch.equal(seen["hook_embed"], plain + 1)


def test_nothing_is_left_after_an_exception_in_a_hook() -> None:
    _, bridge = pair(**KINDS["7b"])
    with pytest.raises(ZeroDivisionError), bridge.hooked({"hook_embed": lambda value: value + 1 / 0}):
        bridge(tokens())
    assert not any(point.hooked for point in bridge.hook_points.values())


def test_a_backward_hook_that_was_removed_does_not_act_on_an_earlier_forward() -> None:
    _, bridge = pair(**KINDS["7b"])
    seen: list[Tensor] = []
    with bridge.hooked(backward={"hook_embed": seen.append}):
        loss = bridge(tokens(), labels=tokens()).loss
        loss.backward(retain_graph=True)
        loss.backward(retain_graph=True)
    loss.backward()
    assert len(seen) == 2


def test_backward_hooks_on_the_per_head_result_change_no_gradient_but_by_rounding() -> None:
    _, bridge = pair(**KINDS["rw"])
    gradients = []
    for switched in (False, True):
        bridge.zero_grad()
        bridge.use_attn_result = switched
        with bridge.hooked(
            backward={"blocks.0.attn.hook_result": lambda gradient: gradient.clone()} if switched else {}
        ):
            bridge(tokens()).logits.square().sum().backward()
        gradients.append(bridge.canonical_gradients())
    assert all(float((value - gradients[0][name]).abs().max()) < 1e-10 for name, value in gradients[1].items())


def test_the_per_head_result_is_gated() -> None:
    _, bridge = pair(**KINDS["40b"])
    name = "blocks.0.attn.hook_result"
    fired: list[Tensor] = []
    assert bridge.hook_points[name].switch == "use_attn_result"
    with bridge.hooked({name: fired.append}), pytest.warns(UserWarning, match="use_attn_result is off"):
        bridge(tokens())
    assert not fired
    bridge.use_attn_result = True
    with warnings.catch_warnings(action="error"), bridge.hooked({name: fired.append}):
        bridge(tokens())
    assert len(fired) == 1
    with bridge.switched([name]):
        assert bridge.use_attn_result
    assert bridge.use_attn_result
    bridge.use_attn_result = False
    assert not bridge.hook_points[name].on


def test_a_head_taken_out_of_the_result_is_a_head_taken_out_of_z() -> None:
    _, bridge = pair(**KINDS["rw"])

    def without_head(value: Tensor) -> Tensor:
        return value.index_fill(2, torch.tensor([3]), 0.0)

    with bridge.hooked({"blocks.0.attn.hook_z": without_head}):
        expected = bridge(tokens()).logits
    with bridge.switched(bridge.hook_points), bridge.hooked({"blocks.0.attn.hook_result": without_head}):
        assert gap(bridge(tokens()).logits, expected) < 1e-13


def test_a_result_that_is_zeroed_leaves_no_rounding_behind() -> None:
    """A product that is taken off a sum again leaves its last bits, which another layer's norm makes larger."""
    _, bridge = pair(**KINDS["40b"])
    written: list[Tensor] = []
    edits = {"blocks.0.attn.hook_result": torch.zeros_like, "blocks.0.hook_attn_out": written.append}
    with bridge.switched(bridge.hook_points), bridge.hooked(edits):
        bridge(tokens())
    bias = written[0][:1, :1]  # the same at every position, if there is one
    assert torch.equal(written[0], bias.expand_as(written[0]))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("blocks.0.attn.hook_Q", "blocks.0.attn.hook_q"), ("hook_emb", "hook_embed"), ("blocks.7.hook_z", "blocks")],
)
def test_an_unknown_name_is_answered_with_the_nearest_right_one(name: str, nearest: str) -> None:
    _, bridge = pair(**KINDS["40b"])
    with (
        pytest.raises(HookError, match=rf"no hook point '{name}' \(did you mean '{nearest}"),
        bridge.hooked({"hook_embed": torch.zeros_like, name: torch.zeros_like}),
    ):
        pass
    assert not bridge.hook_points["hook_embed"].hooked


@pytest.mark.parametrize(
    ("edit", "message"),
    [(lambda value: value[:1], r"returned shape \[1, 7, 72\].* has \[2, 7, 72\]"), (lambda value: 3, "returned a int")],
)
def test_an_edit_that_gives_back_what_does_not_fit_is_named(edit: Any, message: str) -> None:
    _, bridge = pair(**KINDS["7b"])
    with (
        pytest.raises(HookError, match=f"'blocks.0.hook_resid_pre' {message}"),
        bridge.hooked({"blocks.0.hook_resid_pre": edit}),
    ):
        bridge(tokens())
    with (
        pytest.raises(HookError, match=f"backward hook at 'hook_embed' {message}"),
        bridge.hooked(backward={"hook_embed": edit}),
    ):
        bridge(tokens(), labels=tokens()).loss.backward()


def test_an_edited_pattern_of_half_precision_keeps_its_width() -> None:
    model = build(**KINDS["40b"], dtype=torch.bfloat16)
    bridge = type(pair(**KINDS["7b"])[1])(model)
    with bridge.hooked({"blocks.0.attn.hook_pattern": lambda pattern: pattern.bfloat16()}):
        assert bridge(tokens()).logits.dtype == torch.bfloat16


def test_run_with_cache_takes_names_or_a_choice_of_them() -> None:
    _, bridge = pair(**KINDS["7b"])
    _, patterns = bridge.run_with_cache(tokens(), names=lambda name: name.endswith("hook_pattern"))
    assert list(patterns) == ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    assert gap(patterns["blocks.0.attn.hook_pattern"].sum(-1), torch.ones(2, 12, 7, dtype=torch.float64)) < 1e-14
    assert not any(value.requires_grad for value in patterns.values())
    assert functional.relu(patterns["blocks.0.attn.hook_pattern"].triu(1)).sum() == 0
