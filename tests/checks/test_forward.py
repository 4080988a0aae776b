"""The checks of the forward: what they say of a wrong one, and that a right one passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import KINDS, SPREAD, mostly_slow
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor

from verifier.adapter import Inputs, Output, Subject
from verifier.faults.altered_hooks import showing
from verifier.faults.mutants import Mutation
from verifier.judging.outcome import Verdict
from verifier.reference import models

IDS = [one.id for one in of_area("forward")]
ROPE, ALIBI = KINDS["two-norms-grouped-rope"], KINDS["sequential-own-keys-alibi"]


def scaled(output: Output, by: float) -> Output:
    return replace(output, logits=output.logits * by)


def when(condition: Callable[[Inputs], bool], by: float = 2.0) -> Mutation:
    """Logits off by that factor, for some inputs."""

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return scaled(output, by) if condition(inputs) else output

    return Mutation(forward=forward)


@pytest.mark.parametrize("check", IDS)
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    assert among_all(kind)[check].verdict is Verdict.PASS, among_all(kind)[check]


@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_is_far_from_its_bounds(among_all: AmongAll, kind: str) -> None:
    """Where a bound is near, rounding on another machine would fail a right adapter."""
    for check, found in among_all(kind).items():
        if check in IDS and found.measured is not None and found.bound:
            assert found.measured < 0.8 * found.bound, f"{kind}: {found}"


# --- one of Hugging Face's other paths -------------------------------------------------------------------------------


class Eager:
    """An adapter that runs HF's model with its other attention."""

    name = "eager"
    version = "1"

    def wrap(self, model: Any) -> Any:
        return EagerSubject(model)


class EagerSubject(Subject):
    """Right without ALiBi."""

    declared_mutations = frozenset({"attention"})

    def __init__(self, model: Any) -> None:
        model.config._attn_implementation = "eager"
        self.model = model

    def forward(self, inputs: Inputs) -> Output:
        return models.forward(self.model, inputs)

    def close(self) -> None: ...


def test_a_failure_that_follows_hfs_other_path_says_so(judge: Judge) -> None:
    found = judge("forward.logits", adapter=Eager(), config=ALIBI)
    assert found.verdict is Verdict.FAIL
    assert "it agrees with HF's eager attention, which disagrees with sdpa" in (found.message or "")


def test_hfs_other_path_excuses_nobody(judge: Judge) -> None:
    assert judge("forward.logits", adapter=Eager(), config=ALIBI).verdict.gates
    assert judge("forward.logits", adapter=Eager(), config=ROPE).verdict is Verdict.PASS


@pytest.mark.parametrize("config", [ROPE, ALIBI], ids=["rope", "alibi"])
def test_another_failure_does_not_say_so(judge: Judge, broken: Broken, config: Mapping[str, Any]) -> None:
    found = judge("forward.logits", adapter=broken(when(lambda _inputs: True)), config=config)
    assert found.verdict is Verdict.FAIL
    assert "eager" not in (found.message or "")


# --- how far off -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "verdict"),
    [
        (1 + 2.0**-53, Verdict.PASS),
        (1 + 2.0**-27, Verdict.REDUCED),
        (1 + 2.0**-10, Verdict.FAIL),
        (float("nan"), Verdict.FAIL),
    ],
)
def test_what_agrees_to_float32_only_is_reduced(judge: Judge, broken: Broken, by: float, verdict: Verdict) -> None:
    found = judge("forward.logits", adapter=broken(when(lambda _inputs: True, by)))
    assert found.verdict is verdict
    assert found.verdict.gates == (verdict is Verdict.FAIL)


# --- in circumstances ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["left", "right", "gaps", "mixed"])
def test_what_is_given_at_padding_is_nobodys_business(judge: Judge, broken: Broken, mask: str) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if inputs.attention_mask is None:
            return output
        hidden = inputs.attention_mask[..., None] == 0
        return replace(output, logits=output.logits.masked_fill(hidden, float("nan")))

    found = judge("forward.outputs", adapter=broken(Mutation(forward=forward)), circumstances=({"mask": mask},))
    assert found.verdict is Verdict.PASS


def test_a_loss_that_is_not_given_is_a_failure(judge: Judge, broken: Broken) -> None:
    silent = broken(Mutation(forward=lambda subject, inputs: replace(subject.forward(inputs), loss=None)))
    found = judge("forward.losses", adapter=silent, circumstances=({"labels": "given"},))
    assert (found.verdict, found.where) == (Verdict.FAIL, "loss")


def test_attention_to_what_may_not_be_seen_fails(judge: Judge, broken: Broken) -> None:
    def leak(pattern: Tensor) -> Tensor:  # [batch, head, query, key]
        return pattern + 2.0**-10 * torch.ones_like(pattern).triu(1)

    leaking = broken(showing("hook_pattern", leak))
    assert judge("hooks.shown", adapter=leaking, circumstances=({"grad": "grad"},)).verdict is Verdict.FAIL


# --- causality -------------------------------------------------------------------------------------------------------


def test_a_position_that_sees_a_later_one_fails(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return replace(output, logits=output.logits + output.logits[:, -1:] * 2.0**-10)

    assert judge("forward.causality", adapter=broken(Mutation(forward=forward))).verdict is Verdict.FAIL


# --- training mode ---------------------------------------------------------------------------------------------------


def test_a_dropout_of_another_rate_is_found(judge: Judge, broken: Broken) -> None:
    def halve(model: Any) -> None:
        model.config.hidden_dropout = 0.5 * model.config.hidden_dropout
        for block in model.transformer.h:
            block.hidden_dropout = model.config.hidden_dropout

    adapter = broken(Mutation(model=halve))
    assert judge("forward.outputs", adapter=adapter, circumstances=({"mode": "dropout"},)).verdict is Verdict.FAIL
    assert judge("forward.outputs", adapter=adapter, circumstances=({"mode": "train"},)).verdict is Verdict.PASS


class _PassesOn:
    """Shows what the model that it is given computes."""

    name, version = "passes on", "1"

    class PassingSubject(Subject):
        def __init__(self, model, scale):
            self.model, self.scale = model, scale

        def forward(self, inputs):
            output = models.forward(self.model, inputs)
            return replace(output, logits=output.logits * self.scale)

        def close(self):
            pass

    def __init__(self, scale=1.0):
        self.scale = scale

    def wrap(self, model):
        return self.PassingSubject(model, self.scale)


def test_what_the_attention_computes_that_was_asked_for_is_hugging_faces(judge):
    alibi = KINDS["one-norm-multi-query-alibi"]
    followed = judge("forward.logits", adapter=_PassesOn(), config=alibi, attention="eager")
    assert followed.verdict is Verdict.UPSTREAM
    assert "agrees with HF's eager attention" in followed.message
    # Without that it is the adapter that took the wrong one; and what follows nothing of HF's is wrong.
    wrong = judge("forward.logits", adapter=_PassesOn(1.01), config=alibi, attention="eager")
    assert wrong.verdict is Verdict.FAIL
    assert judge("forward.logits", adapter=_PassesOn(), config=alibi).verdict is Verdict.PASS
    rope = KINDS["one-norm-multi-query-rope"]
    assert judge("forward.logits", adapter=_PassesOn(), config=rope, attention="eager").verdict is Verdict.PASS
