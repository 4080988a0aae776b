"""Blocks of one model may differ: a right adapter is called right, and what is wrong is found in its block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from falcons import spec
from made_once import MadeOnce
from one_check import DEFAULT, Judge
from unequal_blocks import UnequalFamily

from verifier import checks, faults
from verifier.adapter import Adapter, Edit
from verifier.canonical import points
from verifier.cases.circumstances import PLAIN, Circumstance
from verifier.checks.runner import run_case
from verifier.families.falcon import FalconFamily
from verifier.faults.altered_hooks import altered, at
from verifier.faults.mutants import MutantAdapter, with_methods
from verifier.judging.outcome import Outcome, Verdict
from verifier.observing.circumstances.row import Row


@pytest.fixture(scope="module")
def family(falcon: FalconFamily) -> Any:
    return UnequalFamily(falcon)


@pytest.fixture(scope="module")
def adapter(family: Any, bridge: Adapter) -> Adapter:
    """The right adapter, which offers of each block what that is said to have."""

    def had(named: Mapping[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in named.items() if not name.startswith(("blocks.0.attn.", "blocks.1.mlp."))}

    offering = MutantAdapter(bridge, lambda _model: altered(names=had))
    weights = with_methods("weights", canonical=lambda right: had(right.canonical()))
    parts = {**weights.parts, "restore": lambda _subject, _right: None}  # the bridge needs every weight for that
    return MutantAdapter(offering, lambda _model: replace(weights, parts=parts))


@pytest.fixture(scope="module")
def outcomes(family: Any, adapter: Adapter, made_once: MadeOnce) -> Mapping[str, Outcome]:
    """What every check says of the right adapter."""

    def run() -> Mapping[str, Outcome]:
        ran = run_case(spec(DEFAULT, depth="sampled"), family, adapter, checks.registered())
        return {outcome.check: outcome for outcome in ran}

    return made_once.value("unequal-blocks", run)


def test_a_right_adapter_is_wrong_in_nothing(outcomes: Mapping[str, Outcome]) -> None:
    assert {check: outcome for check, outcome in outcomes.items() if outcome.verdict.gates} == {}


@pytest.mark.parametrize(
    "check",
    [
        *("reference.taps", "hooks.values", "hooks.axes", "hooks.order", "backward.identity", "build.parameters"),
        *("qkv.rows", "qkv.projections", "qkv.reads", "qkv.aliasing"),
        *("weights.names", "weights.attention", "weights.modules", "weights.values", "weights.writing"),
        *("component.norms", "component.projections", "component.attention", "component.mlp", "component.blocks"),
    ],
)
def test_what_the_blocks_have_is_looked_at(outcomes: Mapping[str, Outcome], check: str) -> None:
    assert outcomes[check].verdict is Verdict.PASS, outcomes[check]


@pytest.mark.parametrize(
    ("point", "where"), [("attn.hook_z", "blocks.1.attn.hook_z"), ("mlp.hook_post", "blocks.0.mlp.hook_post")]
)
def test_a_difference_starts_in_the_block_that_has_the_point(
    judge: Judge, family: Any, adapter: Adapter, point: str, where: str
) -> None:
    def shown_larger(edit: Edit) -> Edit:
        return lambda value: edit(value * 1.01)

    wrong = MutantAdapter(adapter, lambda _model: altered(forward=at(point, shown_larger)))
    found = judge("hooks.values", adapter=wrong, family=family)
    assert (found.verdict, found.where) == (Verdict.FAIL, where)


@pytest.mark.parametrize(
    ("name", "check", "where"),
    [
        ("hook-that-cannot-be", "hooks.absent", "blocks.0.attn.hook_q"),
        ("kv-tiled", "qkv.reads", "blocks.1"),
        ("value-biases-tiled", "weights.processings", None),
    ],
)
def test_a_fault_that_asks_what_the_model_has_is_planted_and_caught(
    judge: Judge, family: Any, adapter: Adapter, name: str, check: str, where: str | None
) -> None:
    (fault,) = (one for one in faults.list_faults(family) if one.name == name)
    assert check in fault.caught_by
    _, wrong = fault.plant(family, adapter)
    found = judge(check, adapter=wrong, family=family)
    assert found.verdict is Verdict.FAIL
    assert where is None or (found.where or "").startswith(where)


def test_a_model_without_any_attention_has_no_split(judge: Judge, falcon: FalconFamily) -> None:
    one_block = {**DEFAULT, "num_hidden_layers": 1}
    family = UnequalFamily(falcon)
    for check in ("qkv.rows", "weights.attention"):
        found = judge(check, family=family, config=one_block)
        assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: the model has no attention")


@pytest.mark.parametrize(
    "circumstance",
    [{"grad": "grad"}, {"mask": "left", "grad": "grad"}, {"history": "nested"}, {"past": "generation"}],
    ids=str,
)
def test_a_right_adapter_is_right_in_circumstances(family: Any, adapter: Adapter, circumstance: Circumstance) -> None:
    found = Row(spec(DEFAULT), family, {**PLAIN, **circumstance}).run(adapter).findings
    assert len(found) > 5
    wrong = [one for findings in found.values() for one in findings if one.verdict is not Verdict.PASS]
    assert wrong == []


class SixthBlock(UnequalFamily):
    """Of eleven blocks the sixth alone has no attention, and none lacks an MLP."""

    def __init__(self, original: Any) -> None:
        super().__init__(original)
        self.lacking = {5: "attn"}


def test_every_kind_of_block_of_a_deep_model_is_looked_at(falcon: FalconFamily) -> None:
    family: Any = SixthBlock(falcon)
    for tokens in ("ids", "embeddings"):
        row = Row(spec(DEFAULT), family, {**PLAIN, "depth": "eleven", "tokens": tokens})
        looked_at = {point.layer for point in row.points if point.layer is not None}
        assert {0, 1, 5, 10} <= looked_at
        assert len(looked_at) <= 5


def test_what_names_experts_is_no_point_of_circumstances(falcon: FalconFamily) -> None:
    class Choosing(UnequalFamily):
        def points(self, config: Any) -> Any:
            return points(["hook_embed", "blocks.{i}.mlp.hook_expert_indices"], 1)

    family: Any = Choosing(falcon)
    assert [point.name for point in Row(spec(DEFAULT), family, PLAIN).points] == ["hook_embed"]
