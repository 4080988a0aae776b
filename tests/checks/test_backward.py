"""The checks of gradients: right ones pass, and wrong ones are told at their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from falcons import KINDS, SPREAD, mostly_slow
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor

from verifier.adapter import Edit
from verifier.faults.altered_hooks import altered, at, shown_as
from verifier.faults.mutants import Mutation, replacing
from verifier.judging.outcome import Verdict

IDS = [one.id for one in of_area("backward")]
SAMPLED = [one.id for one in of_area("backward") if one.applies == "sampled"]
SEQUENTIAL = KINDS["sequential-own-keys-alibi"]


@pytest.mark.parametrize("check", [check for check in IDS if check not in SAMPLED])
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    found = among_all(kind)[check]
    assert found.verdict is Verdict.PASS, found


# Sequential, parallel under two norms with shared keys, and no blocks: the others are seconds each.
FIRST = ("sequential-own-keys-alibi", "two-norms-grouped-rope", "no-layers")


@pytest.mark.thinned(2)
@pytest.mark.parametrize("check", SAMPLED)
@pytest.mark.parametrize("kind", mostly_slow(SPREAD, few=FIRST))
def test_a_right_adapter_passes_what_only_some_cases_are_asked(judge: Judge, kind: str, check: str) -> None:
    found = judge(check, config=SPREAD[kind], depth="sampled")
    assert found.verdict is Verdict.PASS, found


@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_is_far_from_its_bounds(among_all: AmongAll, kind: str) -> None:
    for check, found in among_all(kind).items():
        if check in IDS and found.measured is not None and found.bound:
            assert found.measured < 0.8 * found.bound, f"{kind}: {found}"


def raising(_edit: Edit) -> Edit:
    def act(_gradient: Tensor) -> Tensor:
        raise RuntimeError("a view is being modified inplace")

    return act


def test_an_error_of_autograds_comes_with_its_point(judge: Judge, broken: Broken) -> None:
    found = judge("backward.identity", adapter=broken(altered(backward=at("blocks.1.hook_attn_out", raising))))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.hook_attn_out")
    assert found.message == "a backward hook there raises RuntimeError: a view is being modified inplace"


def test_an_error_that_no_point_raises_alone_says_so(judge: Judge, broken: Broken) -> None:
    def hooked(hooks: Any, forward: Any, backward: Any) -> Any:
        if len(backward) > 1:
            raise RuntimeError("one backward hook at a time")
        return hooks.hooked(forward, backward)

    found = judge("backward.identity", adapter=broken(Mutation(parts={"hooks": replacing(hooked=hooked)})))
    assert (found.verdict, found.where) == (Verdict.FAIL, "all points together")
    assert found.message == (
        "a backward hook at every point raises RuntimeError: one backward hook at a time, at none of them alone"
    )


def gradients(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Mutation:
    """The gradients that the adapter gives of its weights are others."""
    return Mutation(parts={"weights": replacing(gradients=lambda weights: change(dict(weights.gradients())))})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda given: {**given, "blocks.0.attn.W_K": given["blocks.0.attn.W_V"]}, "blocks.0.attn.W_K"),
        (lambda given: {name: one for name, one in given.items() if name != "ln_final.b"}, "ln_final.b"),
    ],
    ids=["another", "none"],
)
def test_each_weights_gradient_is_looked_at(judge: Judge, broken: Broken, change: Any, place: str) -> None:
    found = judge("backward.weights", adapter=broken(gradients(change)), circumstances=({"grad": "grad"},))
    assert (found.verdict, found.where) == (Verdict.FAIL, place)


def test_gradients_are_not_judged_in_a_model_that_is_another_one(judge: Judge, broken: Broken) -> None:
    wrong = broken(Mutation(edits={"attn.hook_v": lambda value: value * 2}))
    for check in ("backward.identity", "backward.weights", "backward.effects"):
        found = judge(check, adapter=wrong, circumstances=({"grad": "grad"},))
        assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.logits")


def test_of_two_wrong_gradients_the_one_nearer_to_the_logits_is_named(judge: Judge, broken: Broken) -> None:
    doubled = altered(backward=at("mlp.hook_post", shown_as(lambda gradient: gradient * 2)))
    found = judge("backward.shown", adapter=broken(doubled), circumstances=({"grad": "grad"},))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.mlp.hook_post")


def dropped(edit: Edit) -> Edit:
    def act(gradient: Tensor) -> None:
        edit(gradient)

    return act


def test_an_edited_gradient_that_is_lost_is_found_where_it_is(judge: Judge, broken: Broken) -> None:
    adapter = broken(altered(backward=at("blocks.1.attn.hook_result", dropped)))
    found = judge("backward.effects", adapter=adapter, circumstances=({"grad": "grad"},))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.attn.hook_result")
