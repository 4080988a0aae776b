"""The checks of interventions in other ways of calling: what is dropped in one of them is found there, and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from falcons import DIMS, KINDS
from one_check import DEFAULT, Broken, Judge
from torch import Tensor, nn

from verifier.adapter import Edit, Inputs, Output, Subject
from verifier.faults.altered_hooks import altered, at
from verifier.faults.mutants import Mutation
from verifier.judging.outcome import Verdict

POINT = "attn.hook_z"
DEEP = {**DIMS, "num_hidden_layers": 3}


def dropped(edit: Edit, now: Callable[[Tensor], bool]) -> Edit:
    """What the hook gives back is not used while that holds."""

    def act(value: Tensor) -> Tensor | None:
        edited = edit(value)
        return None if now(value) else edited

    return act


def in_calls(condition: Callable[[Inputs], bool]) -> Callable[[nn.Module], Mutation]:
    def breaks(_model: nn.Module) -> Mutation:
        now = {"dropped": False}

        def forward(subject: Subject, inputs: Inputs) -> Output:
            now["dropped"] = condition(inputs)
            return subject.forward(inputs)

        made = altered(forward=at(POINT, lambda edit: dropped(edit, lambda _: now["dropped"])))
        return replace(made, forward=forward)

    return breaks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "way"),
    [
        (lambda inputs: inputs.attention_mask is not None and inputs.position_ids is None, "with padding"),
        (lambda inputs: inputs.position_ids is not None, "with padding and positions"),
        (lambda inputs: inputs.inputs_embeds is not None, "from embeddings"),
        (lambda inputs: inputs.cache is not None, "with a cache"),
        (lambda inputs: inputs.input_ids is not None and len(inputs.input_ids) == 1, "on one row"),
    ],
)
def test_an_edit_that_is_dropped_in_one_way_of_calling_is_found_there(
    judge: Judge, broken: Broken, condition: Callable[[Inputs], bool], way: str
) -> None:
    found = judge("intervene.calls", adapter=broken(in_calls(condition)))
    assert (found.verdict, found.where) == (Verdict.FAIL, f"blocks.0.{POINT}, {way}")


@pytest.mark.slow
def test_an_edit_that_is_dropped_everywhere_is_told_by_what_is_simpler(judge: Judge, broken: Broken) -> None:
    always = broken(altered(forward=at(POINT, lambda edit: dropped(edit, lambda _: True))))
    assert judge("intervene.calls", adapter=always).verdict is Verdict.PASS, "the other points act"
    assert judge("intervene.replace", adapter=always).verdict is Verdict.FAIL


def test_what_is_another_model_without_an_edit_is_told_elsewhere(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return output if inputs.cache is None else replace(output, logits=output.logits * 2)

    assert judge("intervene.calls", adapter=broken(Mutation(forward=forward))).verdict is Verdict.PASS


def test_every_point_can_be_edited_alone(judge: Judge) -> None:
    assert judge("intervene.alone", depth="sampled").verdict is Verdict.PASS


def test_an_edit_that_needs_another_hook_is_found(judge: Judge, broken: Broken) -> None:
    def hooked(right: Callable[..., Any], forward: dict[str, Edit], backward: dict[str, Edit]) -> Any:
        lone = len(forward) == 1
        return right({name: dropped(edit, lambda _: lone) for name, edit in forward.items()}, backward)

    found = judge("intervene.alone", adapter=broken(altered(hooked=hooked)), depth="sampled")
    assert found.verdict is Verdict.FAIL
    assert (found.message or "").startswith("the edit changes nothing")


def test_generation_under_an_edit_is_what_hf_would_choose(judge: Judge) -> None:
    assert judge("intervene.generation").verdict is Verdict.PASS


@pytest.mark.parametrize("layers", [2, 3])
def test_layers_are_told_apart_where_there_are_three(judge: Judge, layers: int) -> None:
    found = judge("intervene.layers", config={**DIMS, "num_hidden_layers": layers})
    assert found.verdict is (Verdict.PASS if layers == 3 else Verdict.SKIP)


def test_an_edit_that_acts_in_another_layer_too_is_found(judge: Judge, broken: Broken) -> None:
    def hooked(right: Callable[..., Any], forward: dict[str, Edit], backward: dict[str, Edit]) -> Any:
        also = {name.replace("blocks.1.", "blocks.2."): edit for name, edit in forward.items()}
        return right({**also, **forward}, backward)

    found = judge("intervene.layers", adapter=broken(altered(hooked=hooked)), config=DEEP)
    assert found.verdict is Verdict.FAIL
    assert (found.where or "").startswith("blocks.1.")


@pytest.mark.parametrize("kind", ["sequential-own-keys-alibi", "two-norms-grouped-rope"])
def test_gradients_behind_edits_are_hfs(judge: Judge, kind: str) -> None:
    assert judge("backward.edited", config=KINDS[kind]).verdict is Verdict.PASS


def past(edit: Edit) -> Edit:
    def act(value: Tensor) -> Tensor | None:
        edited = edit(value)
        return None if edited is None else value + (edited - value).detach()

    return act


@pytest.mark.slow
@pytest.mark.parametrize("config", [DEFAULT, KINDS["sequential-own-keys-alibi"]])
def test_a_gradient_that_goes_past_an_edit_is_found_at_its_point(
    judge: Judge, broken: Broken, config: dict[str, Any]
) -> None:
    found = judge("backward.edited", adapter=broken(altered(forward=at(POINT, past))), config=config)
    assert (found.verdict, found.where) == (Verdict.FAIL, f"blocks.0.{POINT}")
    assert (found.message or "").startswith("behind an edit, at hook_embed: ")


def test_that_gradients_cannot_be_edited_at_all_is_told_by_what_is_simpler(judge: Judge, broken: Broken) -> None:
    def read_only(edit: Edit) -> Edit:
        return lambda gradient: dropped(edit, lambda _: True)(gradient)

    adapter = broken(altered(backward=lambda _, edit: read_only(edit)))
    assert judge("backward.edited", adapter=adapter).verdict is Verdict.PASS
    assert judge("backward.replace", adapter=adapter).verdict is Verdict.FAIL


def test_edits_that_undo_each_other_are_not_taken_for_none(judge: Judge) -> None:
    """Without layers a norm's scale and its output are all that there is, and this epsilon is nothing to float32."""
    config = {**DIMS, "num_hidden_layers": 0, "layer_norm_epsilon": 1e-12}
    assert judge("state.acting", config=config).verdict is Verdict.PASS
