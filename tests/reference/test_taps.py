"""The taps show, and change, what really stands in Hugging Face's untouched model, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from falcon_written_out import WrittenOut
from falcons import KINDS, build, mostly_slow, tokens
from torch import Tensor, nn

from verifier.errors import VerifierError
from verifier.families.falcon import FalconFamily
from verifier.reference import taps as at
from verifier.reference.attention_taps import AttentionTaps

IDS = tokens()
# Padded on the left, on the right, and not.
MASK = torch.ones_like(IDS)
MASK[0, :3] = 0
MASK[1, -2:] = 0
REAL = MASK.bool()
# What is hidden by the mask is nobody's business.
VISIBLE = torch.ones(IDS.shape[1], IDS.shape[1], dtype=torch.bool).tril() & REAL[:, None, None] & REAL[:, None, :, None]
ATTENTION = ("hook_attn_scores", "hook_pattern")
# Float64 rounding, of values near one, through two blocks.
ROUNDING = 1e-11


def defined(name: str, value: Tensor) -> Tensor:
    """What is defined of an activation: of attention what may be seen, of all others the real tokens' rows."""
    return value[VISIBLE.expand_as(value)] if name.endswith(ATTENTION) else value[REAL]


def near(mine: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(mine, theirs, rtol=0.0, atol=ROUNDING)


def shift(value: Tensor) -> Tensor:
    """Another tensor of that shape, the same one every time."""
    return value + 0.25 * torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(5))


def shifts(names: Iterable[str]) -> dict[str, Callable[[Tensor], Tensor]]:
    """An edit for each point, of what is defined there: attention to padding would show what padding holds."""
    return {
        name: (lambda value: torch.where(VISIBLE, shift(value), value)) if name.endswith(ATTENTION) else shift
        for name in names
    }


@pytest.fixture(scope="module", params=mostly_slow(KINDS))
def model(request: pytest.FixtureRequest, falcon: FalconFamily) -> Any:
    """One model of each kind; `model.kind` is its config."""
    config = KINDS[request.param]
    made = build(falcon, config)
    made.kind = config
    return made


def hooks_on(model: nn.Module) -> int:
    """How many forward hooks there are on the model's modules."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_every_declared_point_is_seen_and_no_other(model: Any, falcon: FalconFamily) -> None:
    with torch.no_grad(), falcon.taps(model) as taps:
        model(IDS, use_cache=False)
    assert list(taps.values) != []
    assert taps.values.keys() == {point.name for point in falcon.points(model.kind)}


def test_every_point_has_its_declared_axes(model: Any, falcon: FalconFamily) -> None:
    config = model.kind
    with torch.no_grad(), falcon.taps(model) as taps:
        model(IDS, use_cache=False)
    sizes = {
        "batch": IDS.shape[0],
        "pos": IDS.shape[1],
        "query": IDS.shape[1],
        "key": IDS.shape[1],
        "head": config["num_attention_heads"],
        "kv_head": falcon.qkv_rows(model, 0).k.rows.shape[0],
        "d_head": config["hidden_size"] // config["num_attention_heads"],
        "d_model": config["hidden_size"],
        "d_mlp": config["ffn_hidden_size"],
        "1": 1,
    }
    for point in falcon.points(config):
        assert taps.values[point.name].shape == tuple(sizes[axis] for axis in point.axes), point.name


def test_points_are_seen_in_causal_order(model: Any, falcon: FalconFamily) -> None:
    """But for the MLP of a parallel block, which HF runs in an order that no point depends on."""
    declared = [point.name for point in falcon.points(model.kind)]
    with torch.no_grad(), falcon.taps(model) as taps:
        model(IDS, use_cache=False)
    seen = [name for name in taps.values if ".ln2." not in name]
    assert seen == [name for name in declared if ".ln2." not in name]


@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "padded"])
def test_each_value_is_the_one_written_out(model: Any, falcon: FalconFamily, mask: Tensor | None) -> None:
    written = WrittenOut(model, model.kind)
    with torch.no_grad():
        right = written(IDS, mask)
        with falcon.taps(model) as taps:
            logits = model(IDS, attention_mask=mask, use_cache=False).logits
    assert near(logits[REAL], right[REAL])
    for name, value in taps.values.items():
        assert near(defined(name, value), defined(name, written.shown[name])), name


def test_what_may_not_be_seen_has_the_lowest_score_and_no_attention(model: Any, falcon: FalconFamily) -> None:
    with torch.no_grad(), falcon.taps(model) as taps:
        model(IDS, attention_mask=MASK, use_cache=False)
    hidden = ~VISIBLE & REAL[:, None, :, None]
    scores, pattern = taps.values["blocks.1.attn.hook_attn_scores"], taps.values["blocks.1.attn.hook_pattern"]
    assert bool((scores[hidden.expand_as(scores)] <= torch.finfo(torch.float64).min).all())
    assert bool((pattern[hidden.expand_as(pattern)] == 0).all())


def test_the_results_of_the_heads_add_up_to_what_the_attention_writes(model: Any, falcon: FalconFamily) -> None:
    with torch.no_grad(), falcon.taps(model) as taps:
        model(IDS, use_cache=False)
    for layer, block in enumerate(model.transformer.h):
        bias = block.self_attention.dense.bias
        summed = taps.values[f"blocks.{layer}.attn.hook_result"].sum(2)
        written = taps.values[f"blocks.{layer}.hook_attn_out"]
        assert near(summed, written if bias is None else written - bias)


def test_what_is_asked_for_alone_is_what_is_seen_among_all(model: Any, falcon: FalconFamily) -> None:
    with torch.no_grad(), falcon.taps(model) as everything:
        model(IDS, use_cache=False)
    for name, value in everything.values.items():
        with torch.no_grad(), falcon.taps(model, names=[name]) as alone:
            model(IDS, use_cache=False)
        assert alone.values.keys() == {name}
        assert near(alone.values[name], value), name


# --- what is left alone ----------------------------------------------------------------------------------------------


def test_nothing_asked_for_changes_no_bit(model: Any, falcon: FalconFamily) -> None:
    with torch.no_grad():
        bare = model(IDS, attention_mask=MASK, use_cache=False).logits
        with falcon.taps(model, names=[]) as taps:
            tapped = model(IDS, attention_mask=MASK, use_cache=False).logits
    assert torch.equal(bare, tapped)
    assert not taps.values


def test_reading_what_hf_materialises_changes_no_bit(model: Any, falcon: FalconFamily) -> None:
    plain = ("resid", "embed", "attn_out", "mlp_out", "hook_pre", "hook_post", "hook_q", "hook_k", "hook_v", "hook_z")
    names = [point.name for point in falcon.points(model.kind) if any(word in point.name for word in plain)]
    with torch.no_grad():
        bare = model(IDS, use_cache=False).logits
        with falcon.taps(model, names=names):
            tapped = model(IDS, use_cache=False).logits
    assert torch.equal(bare, tapped)


def test_nothing_is_left_on_the_model(model: Any, falcon: FalconFamily) -> None:
    with torch.no_grad(), falcon.taps(model) as taps:
        inside = hooks_on(model)
        model(IDS, use_cache=False)
    taps.values.clear()
    with torch.no_grad():
        model(IDS, use_cache=False)
    assert (inside > 0, hooks_on(model), taps.values) == (True, 0, {})


def test_nothing_is_left_after_an_exception_inside(model: Any, falcon: FalconFamily) -> None:
    def fail(_value: Tensor) -> Tensor:
        raise ZeroDivisionError("inside an edit")

    bare = model(IDS, use_cache=False).logits
    with (
        pytest.raises(ZeroDivisionError),
        falcon.taps(model, names=["blocks.0.attn.hook_pattern"], edits={"blocks.1.attn.hook_z": fail}),
    ):
        model(IDS, use_cache=False)
    assert hooks_on(model) == 0
    assert torch.equal(model(IDS, use_cache=False).logits, bare)


def test_nothing_is_left_on_a_model_that_cannot_be_tapped(falcon: FalconFamily) -> None:
    broken = build(falcon, KINDS["two-norms-grouped-rope"])
    del broken.transformer.h[1].mlp
    with pytest.raises(VerifierError, match="where HF's model has no module"), falcon.taps(broken):
        pass
    assert hooks_on(broken) == 0


def test_a_second_forward_inside_is_refused(model: Any, falcon: FalconFamily) -> None:
    with torch.no_grad(), falcon.taps(model, names=["blocks.1.hook_resid_pre"]):
        model(IDS, use_cache=False)
        with pytest.raises(RuntimeError, match=r"blocks\.1\.hook_resid_pre was visited twice"):
            model(IDS, use_cache=False)


def test_the_models_weights_and_config_are_not_written_into(model: Any, falcon: FalconFamily) -> None:
    weights, config = {name: one.clone() for name, one in model.state_dict().items()}, model.config.to_dict()
    edits = shifts(point.name for point in falcon.points(model.kind))
    with torch.no_grad(), falcon.taps(model, edits=edits):
        model(IDS, use_cache=False)
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())
    assert model.config.to_dict() == config


# --- what is changed -------------------------------------------------------------------------------------------------


def test_an_edit_at_each_point_does_what_the_same_edit_does_written_out(model: Any, falcon: FalconFamily) -> None:
    with torch.no_grad():
        bare = model(IDS, attention_mask=MASK, use_cache=False).logits
        for point in falcon.points(model.kind):
            edits = shifts([point.name])
            right = WrittenOut(model, model.kind, edits)(IDS, MASK)
            with falcon.taps(model, names=[], edits=edits):
                edited = model(IDS, attention_mask=MASK, use_cache=False).logits
            assert near(edited[REAL], right[REAL]), point.name
            assert not near(edited[REAL], bare[REAL]), point.name


def test_edits_everywhere_at_once_do_what_they_do_written_out(model: Any, falcon: FalconFamily) -> None:
    edits = shifts(point.name for point in falcon.points(model.kind))
    with torch.no_grad():
        right = WrittenOut(model, model.kind, edits)(IDS)
        with falcon.taps(model, edits=edits):
            edited = model(IDS, use_cache=False).logits
    assert near(edited, right)


def test_an_edit_that_gives_nothing_changes_nothing(model: Any, falcon: FalconFamily) -> None:
    edits: Mapping[str, Callable[[Tensor], Tensor | None]] = {
        point.name: lambda _value: None for point in falcon.points(model.kind)
    }
    with torch.no_grad(), falcon.taps(model, edits=edits):
        read = model(IDS, use_cache=False).logits
    assert near(read, model(IDS, use_cache=False).logits)


def test_what_is_kept_is_what_stood_there_before_the_edit(model: Any, falcon: FalconFamily) -> None:
    for point in falcon.points(model.kind):
        with torch.no_grad(), falcon.taps(model, names=[point.name]) as read:
            model(IDS, use_cache=False)
        with torch.no_grad(), falcon.taps(model, edits={point.name: shift}) as edited:
            model(IDS, use_cache=False)
        assert near(edited.values[point.name], read.values[point.name]), point.name


# --- gradients -------------------------------------------------------------------------------------------------------


def weighted(logits: Tensor) -> Tensor:
    """A scalar that every real logit matters for."""
    weights = torch.randn(logits.shape, dtype=logits.dtype, generator=torch.Generator().manual_seed(6))
    return (logits * weights)[REAL].sum()


@pytest.mark.parametrize("edited", [False, True], ids=["read", "edited"])
def test_the_gradient_at_each_point_is_that_of_the_model_written_out(
    model: Any, falcon: FalconFamily, edited: bool
) -> None:
    names = [point.name for point in falcon.points(model.kind)]
    edits = shifts(names) if edited else {}
    written = WrittenOut(model, model.kind, edits)
    right = torch.autograd.grad(weighted(written(IDS, MASK)), [written.shown[name] for name in names])
    with falcon.taps(model, names=names, edits=edits) as taps:
        logits = model(IDS, attention_mask=MASK, use_cache=False).logits
    found = torch.autograd.grad(weighted(logits), [taps.values[name] for name in names])
    for name, mine, theirs in zip(names, found, right, strict=True):
        assert near(defined(name, mine), defined(name, theirs)), name


def test_the_gradient_is_the_limit_of_small_edits(falcon: FalconFamily) -> None:
    model, name, step = build(falcon, KINDS["two-norms-grouped-rope"]), "blocks.0.attn.hook_q", 1e-6
    with falcon.taps(model, names=[name]) as taps:
        loss = weighted(model(IDS, use_cache=False).logits)
    (gradient,) = torch.autograd.grad(loss, taps.values[name])
    direction = shift(torch.zeros_like(gradient))

    def moved(by: float) -> Tensor:
        with torch.no_grad(), falcon.taps(model, edits={name: lambda q: q + by * direction}):
            return weighted(model(IDS, use_cache=False).logits)

    slope = (moved(step) - moved(-step)) / (2 * step)
    assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_parameters_get_the_same_gradients_under_the_taps(model: Any, falcon: FalconFamily) -> None:
    parameters = list(model.parameters())
    bare = torch.autograd.grad(weighted(model(IDS, use_cache=False).logits), parameters)
    with falcon.taps(model):
        loss = weighted(model(IDS, use_cache=False).logits)
    for mine, theirs in zip(torch.autograd.grad(loss, parameters), bare, strict=True):
        assert near(mine, theirs)


# --- the calls of scaled_dot_product_attention -----------------------------------------------------------------------

HEADS, KV_HEADS, D_HEAD, LENGTH = 6, 3, 4, 5
READS = torch.tensor([0, 0, 1, 1, 2, 2])


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


Q = drawn(2, HEADS, LENGTH, D_HEAD)
K, V = drawn(2, KV_HEADS, LENGTH, D_HEAD), drawn(2, KV_HEADS, LENGTH, D_HEAD) + 1
BOOLEAN = torch.rand(2, 1, LENGTH, LENGTH, generator=torch.Generator().manual_seed(9)) < 0.6
BOOLEAN[..., 0] = True


class Attention(nn.Module):
    """A module that calls torch's attention, in one form or the other."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, expanded: bool, **more: Any) -> Tensor:
        if expanded:
            return F.scaled_dot_product_attention(query, key[:, READS], value[:, READS], **more)
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=True, **more)


POINTS = [f"here.hook_{what}" for what in ("rot_q", "rot_k", "attn_scores", "pattern")]


def attend(
    names: list[str],
    edits: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    expanded: bool,
    query: Tensor = Q,
    **more: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    module, taps = Attention(), at.TapRecorder(names, edits)
    with taps:
        AttentionTaps(taps, {"here": (module, READS)})
        return module(query, K, V, expanded=expanded, **more), taps.values


WAYS: Mapping[str, Mapping[str, Any]] = {
    "nothing hidden": {},
    "causal": {"is_causal": True},
    "a boolean mask": {"attn_mask": BOOLEAN},
    "a mask of numbers": {"attn_mask": drawn(2, 1, LENGTH, LENGTH)},
    "a mask for each head": {"attn_mask": drawn(2, HEADS, LENGTH, LENGTH)},
    "a scale": {"scale": 0.3},
}
both_forms = pytest.mark.parametrize("expanded", [False, True], ids=["enable_gqa", "expanded"])


@both_forms
@pytest.mark.parametrize("way", WAYS)
def test_recomposed_attention_is_torchs_own(way: str, expanded: bool) -> None:
    for names in ([], POINTS[:2], POINTS[2:], POINTS):
        mixed, seen = attend(names, {}, expanded=expanded, **WAYS[way])
        assert near(mixed, Attention()(Q, K, V, expanded=expanded, **WAYS[way]))
        assert list(seen) == names


@both_forms
def test_keys_are_shown_once_for_each_key_value_head(expanded: bool) -> None:
    _, seen = attend(POINTS, {}, expanded=expanded)
    assert torch.equal(seen["here.hook_rot_q"], Q.transpose(1, 2))
    assert torch.equal(seen["here.hook_rot_k"], K.transpose(1, 2))


@both_forms
def test_an_edited_key_is_read_by_the_queries_of_its_head_alone(expanded: bool) -> None:
    def second(keys: Tensor) -> Tensor:  # [batch, pos, kv_head, d_head]
        return keys + torch.tensor([0.0, 1.0, 0.0], dtype=keys.dtype)[:, None] * drawn(*keys.shape)

    bare, _ = attend([], {}, expanded=expanded)
    mixed, _ = attend([], {"here.hook_rot_k": second}, expanded=expanded)
    assert [near(mixed[:, head], bare[:, head]) for head in range(HEADS)] == [True, True, False, False, True, True]


@both_forms
def test_the_pattern_mixes_the_values(expanded: bool) -> None:
    def onto_the_third(pattern: Tensor) -> Tensor:
        return F.one_hot(torch.tensor(2), LENGTH).to(pattern.dtype).expand_as(pattern)

    mixed, _ = attend([], {"here.hook_pattern": onto_the_third}, expanded=expanded)
    assert torch.equal(mixed, V[:, READS, 2:3].expand_as(mixed))


@both_forms
def test_a_query_that_may_see_nothing_gets_nothing_as_from_torch(expanded: bool) -> None:
    blind = BOOLEAN.clone()
    blind[0, :, 3] = False
    mixed, seen = attend(POINTS, {}, expanded=expanded, attn_mask=blind)
    assert bool((seen["here.hook_pattern"][0, :, 3] == 0).all())
    assert near(mixed, Attention()(Q, K, V, expanded=expanded, attn_mask=blind))


@both_forms
def test_of_keys_from_a_cache_only_the_new_are_shown(expanded: bool) -> None:
    mixed, seen = attend(POINTS, {}, expanded=expanded, query=Q[:, :, -2:])
    assert torch.equal(seen["here.hook_rot_k"], K[:, :, -2:].transpose(1, 2))
    assert near(mixed, Attention()(Q[:, :, -2:], K, V, expanded=expanded))
