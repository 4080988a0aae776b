"""What depends on what is found by trying, and told without what lies behind it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from falcons import KINDS, spec

from verifier.adapter import Adapter
from verifier.families.falcon import FalconFamily
from verifier.observing import dependencies
from verifier.observing.case import Case
from verifier.observing.dependencies import Dependencies, nearest, out_of_order

# a → b → d, a → c → d; d reads a too.
DIAMOND: Dependencies = {
    "a": frozenset(),
    "b": frozenset("a"),
    "c": frozenset("a"),
    "d": frozenset("abc"),
}


def test_what_changes_with_a_point_depends_on_it() -> None:
    base = torch.arange(4.0).double()
    values = {"a": torch.stack([base, base + 1, base]), "b": torch.stack([base, base * 3, base + 5])}
    found = dependencies.read_dependencies(values, {"a": 1e-16, "b": 1e-16}, {"a": 1, "b": 2})
    assert found == {"a": frozenset(), "b": {"a"}}


def test_what_moves_by_rounding_alone_does_not_depend() -> None:
    base = torch.ones(1, 4, dtype=torch.float64)
    values = {"b": torch.cat([base, base + 2**-52])}
    assert dependencies.read_dependencies(values, {"b": 2**-52}, {"a": 1}) == {"b": frozenset()}


def test_masked_scores_are_equal_to_themselves() -> None:
    values = {"scores": torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf], [1.0, -torch.inf]]).double()}
    found = dependencies.read_dependencies(values, {"scores": 1e-16}, {"a": 1, "b": 2})
    assert found == {"scores": {"b"}}


def test_the_nearest_are_those_with_nothing_between() -> None:
    assert sorted(nearest(DIAMOND, "d")) == ["b", "c"]
    assert nearest(DIAMOND, "b") == ["a"]
    assert nearest(DIAMOND, "a") == []


@pytest.mark.parametrize(
    ("fired", "early"),
    [
        ("abcd", None),
        ("acbd", None),
        ("bacd", ("b", "a")),
        ("abdc", ("d", "c")),
        ("d", None),
        ("dcba", ("d", "c")),
        ("abcda", None),
    ],
)
def test_a_point_that_fires_before_one_that_it_depends_on_is_too_early(
    fired: str, early: tuple[str, str] | None
) -> None:
    assert out_of_order(DIAMOND, list(fired)) == early


# By kind of block: what flows into some points of it, from within the block.
FLOWS: Mapping[str, Mapping[str, set[str]]] = {
    "sequential-own-keys-alibi": {
        "attn.hook_attn_scores": {"attn.hook_q", "attn.hook_k"},
        "hook_resid_mid": {"hook_attn_out"},
        "ln2.hook_scale": {"hook_resid_mid"},
        "hook_resid_post": {"hook_mlp_out"},
    },
    "two-norms-grouped-rope": {
        "attn.hook_rot_q": {"attn.hook_q"},
        "attn.hook_attn_scores": {"attn.hook_rot_q", "attn.hook_rot_k"},
        "attn.hook_z": {"attn.hook_pattern", "attn.hook_v"},
        "mlp.hook_pre": {"ln2.hook_normalized"},
        "hook_resid_post": {"hook_attn_out", "hook_mlp_out"},
    },
    "one-norm-own-keys-rope": {
        "attn.hook_v": {"ln1.hook_normalized"},
        "mlp.hook_pre": {"ln1.hook_normalized"},
        "hook_resid_post": {"hook_attn_out", "hook_mlp_out"},
    },
}


@pytest.fixture(scope="module", params=FLOWS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def before(kind: str, falcon: FalconFamily, bridge: Adapter) -> Dependencies:
    return dependencies.reference_dependencies(Case(spec(KINDS[kind]), falcon, bridge))


def test_every_point_is_in_it_and_none_depends_on_a_later_one(
    before: Dependencies, kind: str, falcon: FalconFamily
) -> None:
    order = [point.name for point in falcon.points(KINDS[kind])]
    assert set(before) == set(order)
    assert all(order.index(one) < order.index(name) for name, inputs in before.items() for one in inputs)


def test_it_is_the_block_that_hugging_face_computes(before: Dependencies, kind: str) -> None:
    for name, inputs in FLOWS[kind].items():
        assert {one.removeprefix("blocks.0.") for one in nearest(before, f"blocks.0.{name}")} == inputs
