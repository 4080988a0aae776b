"""The checks of gradients: at hook points, of weights, replaced, recomputed, and in every dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
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


def feels(end: str, change: Callable[[Tensor], Tensor]) -> Mutation:
    return altered(backward=at(end, shown_as(change)))


@pytest.mark.parametrize(
    ("end", "inputs"),
    [
        ("blocks.0.attn.hook_z", "what flows back into it agrees (blocks.0.attn.hook_result)"),
        ("ln_final.hook_normalized", "what flows back into it is the logits alone"),
    ],
)
def test_a_wrong_gradient_is_placed_and_what_flows_back_into_it_is_looked_at(
    judge: Judge, broken: Broken, end: str, inputs: str
) -> None:
    found = judge("backward.hooks", adapter=broken(feels(end, lambda gradient: gradient * 2)))
    assert (found.verdict, found.where) == (Verdict.FAIL, end)
    assert inputs in (found.message or "")


def test_of_two_wrong_gradients_the_one_nearer_to_the_logits_is_named(judge: Judge, broken: Broken) -> None:
    found = judge("backward.hooks", adapter=broken(feels("mlp.hook_post", lambda gradient: gradient * 2)))
    assert found.where == "blocks.1.mlp.hook_post"


def test_a_gradient_that_is_lost_upstream_is_named_where_it_is_lost(judge: Judge, broken: Broken) -> None:
    cut = Mutation(edits={"blocks.1.attn.hook_v": lambda value: value.detach()})
    found = judge("backward.hooks", adapter=broken(cut))
    # What is cut off still has a gradient of its own; what flows into it has one too few.
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.ln1.hook_normalized")
    assert "what flows back into it agrees (blocks.1.attn.hook_k, " in (found.message or "")


def raising(_edit: Edit) -> Edit:
    def act(_gradient: Tensor) -> Tensor:
        raise RuntimeError("a view is being modified inplace")

    return act


@pytest.mark.parametrize("check", ["backward.hooks", "backward.identity", "backward.replace", "backward.checkpointing"])
def test_an_error_of_autograds_comes_with_its_point(judge: Judge, broken: Broken, check: str) -> None:
    found = judge(check, adapter=broken(altered(backward=at("blocks.1.hook_attn_out", raising))))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.hook_attn_out")
    assert found.message == "a backward hook there raises RuntimeError: a view is being modified inplace"


def test_an_error_that_no_point_raises_alone_says_so(judge: Judge, broken: Broken) -> None:
    def hooked(hooks: Any, forward: Any, backward: Any) -> Any:
        if len(backward) > 1:
            raise RuntimeError("one backward hook at a time")
        return hooks.hooked(forward, backward)

    found = judge("backward.hooks", adapter=broken(Mutation(parts={"hooks": replacing(hooked=hooked)})))
    assert (found.verdict, found.where) == (Verdict.FAIL, "all points together")
    assert found.message == (
        "a backward hook at every point raises RuntimeError: one backward hook at a time, at none of them alone"
    )


def gradients(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Mutation:
    """The gradients that the adapter gives of its weights are others."""
    return Mutation(parts={"weights": replacing(gradients=lambda weights: change(dict(weights.gradients())))})


def test_each_weights_gradient_is_looked_at(judge: Judge, broken: Broken) -> None:
    def swap(given: dict[str, Tensor]) -> dict[str, Tensor]:
        here = "blocks.0.attn"
        return {**given, f"{here}.W_K": given[f"{here}.W_V"]}

    found = judge("backward.parameters", adapter=broken(gradients(swap)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.W_K")


def test_a_weight_without_a_gradient_is_found(judge: Judge, broken: Broken) -> None:
    found = judge(
        "backward.parameters",
        adapter=broken(gradients(lambda given: {name: one for name, one in given.items() if name != "ln_final.b"})),
    )
    assert (found.verdict, found.where, found.message) == (Verdict.FAIL, "ln_final.b", "it has no gradient")


def test_gradients_are_not_judged_in_a_model_that_is_another_one(judge: Judge, broken: Broken) -> None:
    wrong = broken(Mutation(edits={"attn.hook_v": lambda value: value * 2}))
    for check in ("backward.hooks", "backward.parameters", "backward.replace", "backward.float32"):
        found = judge(check, adapter=wrong)
        assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.logits")


def test_a_replaced_gradient_that_is_lost_is_found_where_it_is(judge: Judge, broken: Broken) -> None:
    def dropped(edit: Edit) -> Edit:
        def act(gradient: Tensor) -> None:
            edit(gradient)

        return act

    found = judge(
        "backward.replace",
        adapter=broken(altered(backward=at("blocks.1.attn.hook_result", dropped))),
    )
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.attn.hook_result")
    assert (found.message or "").startswith("replacing its gradient changes nothing")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_nobody_asked_for_is_not_judged(judge: Judge, dtype: str) -> None:
    found = judge(f"backward.{dtype}", dtypes=tuple({"float32", "bfloat16", "float16"} - {dtype}))
    assert (found.verdict, found.message) == (Verdict.SKIP, f"not applicable: {dtype} was not asked for")


@pytest.mark.slow
def test_precision_is_judged_in_the_dtype_alone(judge: Judge, broken: Broken) -> None:
    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor) -> Tensor:
            return value.view_as(value)

        @staticmethod
        def backward(ctx: Any, *given: Tensor) -> Tensor:
            return given[0].to(torch.bfloat16).to(given[0].dtype) if given[0].dtype == torch.float32 else given[0]

    def through(value: Tensor) -> Tensor:
        rounded: Tensor = Rounded.apply(value)  # type: ignore[no-untyped-call]
        return rounded

    coarse = broken(Mutation(edits=dict.fromkeys(("hook_resid_pre", "hook_z", "hook_pre", "hook_q"), through)))
    assert judge("backward.float32", adapter=coarse).verdict is Verdict.FAIL
    for check in ("backward.hooks", "backward.parameters", "backward.bfloat16", "backward.float16"):
        assert judge(check, adapter=coarse).verdict is Verdict.PASS
