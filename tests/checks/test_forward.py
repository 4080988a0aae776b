"""The checks of the forward: what they say of a wrong one, and that a right one passes in every way of calling it."""

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
from verifier.cases.inputs import PADDINGS
from verifier.faults.altered_hooks import altered, showing
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


def length(inputs: Inputs) -> int:
    given = inputs.inputs_embeds if inputs.input_ids is None else inputs.input_ids
    assert given is not None
    return given.shape[1]


@pytest.mark.parametrize("check", IDS)
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    found = among_all(kind)[check]
    if (kind, check) == ("no-layers", "forward.patterns"):
        assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: there is no attention pattern to read")
    else:
        assert found.verdict is Verdict.PASS, found


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


@pytest.mark.parametrize("check", ["forward.logits", "forward.left_padding", "forward.lengths"])
def test_a_failure_that_follows_hfs_other_path_says_so(judge: Judge, check: str) -> None:
    found = judge(check, adapter=Eager(), config=ALIBI)
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


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_subject_that_computes_in_too_little_fails_in_that_dtype(judge: Judge, broken: Broken, dtype: str) -> None:
    working = getattr(torch, dtype)

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if output.logits.dtype != working:
            return output
        step = 64 * torch.finfo(working).eps
        return replace(output, logits=(output.logits.double() / step).round().mul(step).to(working))

    adapter = broken(Mutation(forward=forward))
    assert judge(f"forward.{dtype}", adapter=adapter).verdict is Verdict.FAIL
    assert judge("forward.logits", adapter=adapter).verdict is Verdict.PASS


def test_a_dtype_that_was_not_asked_for_is_not_judged(judge: Judge) -> None:
    found = judge("forward.float16", dtypes=("float32",))
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: float16 was not asked for")


# --- each way of calling ---------------------------------------------------------------------------------------------


def test_a_wrong_single_token_is_named(judge: Judge, broken: Broken) -> None:
    found = judge("forward.lengths", adapter=broken(when(lambda inputs: length(inputs) == 1)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "one token")


def test_a_wrong_long_sequence_is_not_hidden_by_a_reduced_short_one(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return scaled(output, {1: 1 + 2.0**-27, 43: 2.0}.get(length(inputs), 1.0))

    found = judge("forward.lengths", adapter=broken(Mutation(forward=forward)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "long")


PADDED = {
    "forward.left_padding": "left padding",
    "forward.right_padding": "right padding",
    "forward.gaps": "gaps",
    "forward.mixed_padding": "left, right and gaps",
}


@pytest.mark.slow
@pytest.mark.parametrize("check", PADDED)
@pytest.mark.parametrize("row", PADDINGS)
def test_each_row_is_its_own_checks_business(judge: Judge, broken: Broken, check: str, row: str) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if inputs.attention_mask is None or output.logits.shape[0] != len(PADDINGS):
            return output
        wrong = output.logits.clone()
        wrong[PADDINGS.index(row)] *= 2
        return replace(output, logits=wrong)

    found = judge(check, adapter=broken(Mutation(forward=forward)))
    assert (found.verdict is Verdict.FAIL) == (row == PADDED[check])


@pytest.mark.parametrize("check", PADDED)
def test_what_padding_rows_give_is_nobodys_business(judge: Judge, broken: Broken, check: str) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if inputs.attention_mask is None:
            return output
        hidden = inputs.attention_mask[..., None] == 0
        return replace(output, logits=output.logits.masked_fill(hidden, float("nan")))

    assert judge(check, adapter=broken(Mutation(forward=forward))).verdict is Verdict.PASS


def counting_otherwise(inputs: Inputs) -> Inputs:
    """With positions that begin at the first real token, as other libraries count them."""
    if inputs.attention_mask is None or inputs.position_ids is not None:
        return inputs
    return replace(inputs, position_ids=(inputs.attention_mask.cumsum(-1) - 1).clamp(min=0))


def test_a_failure_of_positions_alone_says_so(judge: Judge, broken: Broken) -> None:
    # Rotation is relative, so positions that only begin elsewhere show in gaps.
    otherwise = broken(Mutation(forward=lambda subject, inputs: subject.forward(counting_otherwise(inputs))))
    found = judge("forward.gaps", adapter=otherwise)
    assert found.verdict is Verdict.FAIL
    assert "it counts positions of its own" in (found.message or "")


def test_another_failure_under_padding_does_not_say_so(judge: Judge, broken: Broken) -> None:
    adapter = broken(when(lambda inputs: inputs.attention_mask is not None))
    assert "positions of its own" not in (judge("forward.gaps", adapter=adapter).message or "")


def test_a_failure_stays_one_where_its_explanation_cannot_be_tried(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        if inputs.position_ids is not None:
            raise NotImplementedError("position ids")
        output = subject.forward(inputs)
        return output if inputs.attention_mask is None else scaled(output, 2.0)

    found = judge("forward.gaps", adapter=broken(Mutation(forward=forward)))
    assert found.verdict is Verdict.FAIL


def test_positions_of_the_callers_count(judge: Judge, broken: Broken) -> None:
    deaf = broken(Mutation(forward=lambda subject, inputs: subject.forward(replace(inputs, position_ids=None))))
    assert judge("forward.position_ids", adapter=deaf).verdict is Verdict.FAIL


def test_embeddings_of_the_callers_count(judge: Judge, broken: Broken) -> None:
    wrong = broken(when(lambda inputs: inputs.inputs_embeds is not None))
    assert judge("forward.inputs_embeds", adapter=wrong).verdict is Verdict.FAIL
    assert judge("forward.logits", adapter=wrong).verdict is Verdict.PASS


# --- loss, patterns, batch, causality, twice -------------------------------------------------------------------------


def test_a_loss_that_is_not_given_is_a_failure(judge: Judge, broken: Broken) -> None:
    silent = broken(Mutation(forward=lambda subject, inputs: replace(subject.forward(inputs), loss=None)))
    found = judge("forward.loss", adapter=silent)
    assert (found.verdict, found.where) == (Verdict.FAIL, "loss")
    assert found.message == "it is NoneType, not a tensor (1 more place)"


@pytest.mark.parametrize(("by", "verdict"), [(1 + 2.0**-10, Verdict.FAIL), (1.0, Verdict.PASS)])
def test_a_wrong_loss_is_named(judge: Judge, broken: Broken, by: float, verdict: Verdict) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return output if output.loss is None else replace(output, loss=output.loss * by)

    found = judge("forward.loss", adapter=broken(Mutation(forward=forward)))
    assert (found.verdict, found.where) == (verdict, "loss" if verdict is Verdict.FAIL else None)


def test_a_pattern_that_is_not_the_one_used_is_named(judge: Judge, broken: Broken) -> None:
    liar = broken(showing("1.attn.hook_pattern", lambda pattern: pattern.flip(1)))
    found = judge("forward.patterns", adapter=liar)
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.attn.hook_pattern")
    assert judge("forward.logits", adapter=liar).verdict is Verdict.PASS


def test_attention_to_what_may_not_be_seen_fails(judge: Judge, broken: Broken) -> None:
    def leak(pattern: Tensor) -> Tensor:  # [batch, head, query, key]
        return pattern + 2.0**-10 * torch.ones_like(pattern).triu(1)

    assert judge("forward.patterns", adapter=broken(showing("hook_pattern", leak))).verdict is Verdict.FAIL


def test_a_pattern_that_never_fires_is_named(judge: Judge, broken: Broken) -> None:
    dead = altered(target=lambda name: None if "0.attn" in name else name)
    found = judge("forward.patterns", adapter=broken(dead))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.hook_pattern")
    assert (found.message or "").startswith("it is NoneType, not a tensor")


def test_rows_that_see_each_other_fail(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return replace(output, logits=output.logits + output.logits.mean(0, keepdim=True) * 2.0**-10)

    assert judge("forward.batch", adapter=broken(Mutation(forward=forward))).verdict is Verdict.FAIL


def test_a_position_that_sees_a_later_one_fails(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return replace(output, logits=output.logits + output.logits[:, -1:] * 2.0**-10)

    assert judge("forward.causality", adapter=broken(Mutation(forward=forward))).verdict is Verdict.FAIL


def test_a_second_forward_must_be_the_first_bit_for_bit(judge: Judge, broken: Broken) -> None:
    seen: list[int] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        seen.append(1)
        return scaled(subject.forward(inputs), 1 + 2.0**-52 * (len(seen) > 2))

    found = judge("forward.twice", adapter=broken(Mutation(forward=forward)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "logits")


# --- training mode ---------------------------------------------------------------------------------------------------


def test_a_dropout_of_another_rate_is_found(judge: Judge, broken: Broken) -> None:
    def halve(model: Any) -> None:
        model.config.hidden_dropout = 0.5 * model.config.hidden_dropout
        for block in model.transformer.h:
            block.hidden_dropout = model.config.hidden_dropout

    adapter = broken(Mutation(model=halve))
    assert judge("forward.dropout", adapter=adapter).verdict is Verdict.FAIL
    assert judge("forward.training", adapter=adapter).verdict is Verdict.PASS


def test_the_global_random_numbers_are_left_where_they_were(judge: Judge) -> None:
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    assert judge("forward.dropout").verdict is Verdict.PASS
    assert torch.equal(torch.rand(3), untouched)


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


@pytest.mark.parametrize("check", ["forward.logits", "forward.lengths", "forward.left_padding"])
def test_what_the_attention_computes_that_was_asked_for_is_hugging_faces(judge, check):
    alibi = KINDS["one-norm-multi-query-alibi"]
    followed = judge(check, adapter=_PassesOn(), config=alibi, attention="eager")
    assert followed.verdict is Verdict.UPSTREAM
    assert "agrees with HF's eager attention" in followed.message
    # Without that it is the adapter that took the wrong one; and what follows nothing of HF's is wrong.
    assert judge(check, adapter=_PassesOn(1.01), config=alibi, attention="eager").verdict is Verdict.FAIL
    assert judge(check, adapter=_PassesOn(), config=alibi).verdict is Verdict.PASS
    assert judge(check, adapter=_PassesOn(), config=KINDS["one-norm-multi-query-rope"], attention="eager").verdict is (
        Verdict.PASS
    )
