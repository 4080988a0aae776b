"""The checks of decoding: each says in which piece, row or hook point it is wrong, and lets a right adapter alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import KINDS, LENGTH, SPREAD, build, mostly_slow, tokens
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor

from verifier import checks
from verifier.adapter import Inputs, Output, Subject
from verifier.families.falcon import FalconFamily
from verifier.faults.altered_hooks import showing
from verifier.faults.mutants import Delegate, Mutation, replacing
from verifier.judging.numerics import float64_judge
from verifier.judging.outcome import Verdict
from verifier.reference import models

IDS = [one.id for one in of_area("cache")]
SAMPLED = [one.id for one in of_area("cache") if one.applies == "sampled"]
ROPE, ALIBI = KINDS["two-norms-grouped-rope"], KINDS["one-norm-grouped-alibi"]


def scaled(output: Output) -> Output:
    return replace(output, logits=output.logits * 1.01)


def where(condition: Callable[[Inputs], bool]) -> Mutation:
    """Wrong for some inputs only."""

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return scaled(output) if condition(inputs) else output

    return Mutation(forward=forward)


@pytest.mark.parametrize("check", [one for one in IDS if one not in SAMPLED])
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    assert among_all(kind)[check].verdict is Verdict.PASS, among_all(kind)[check]


@pytest.mark.slow
@pytest.mark.parametrize("check", SAMPLED)
@pytest.mark.parametrize("config", [ROPE, ALIBI, SPREAD["no-layers"]], ids=["rope", "alibi", "no-layers"])
def test_a_right_adapter_passes_on_a_sampled_case(judge: Judge, check: str, config: Any) -> None:
    found = judge(check, config=config, depth="sampled")
    assert found.verdict is Verdict.PASS, found


@pytest.mark.thinned(3)
@pytest.mark.parametrize("check", IDS)
def test_what_is_wrong_without_a_cache_is_not_told_again(judge: Judge, broken: Broken, check: str) -> None:
    found = judge(check, adapter=broken(where(lambda _inputs: True)), depth="sampled")
    assert found.verdict is Verdict.SKIP
    told = (found.message or "").removeprefix("blocked by ")
    assert [one.id for one in checks.select(("forward",)) if one.id == told], found.message


def test_a_row_that_is_wrong_without_a_cache_is_left_out(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if inputs.attention_mask is not None:
            output.logits[2] *= 1.01
        return output

    assert judge("cache.padding", adapter=broken(Mutation(forward=forward))).verdict is Verdict.PASS


def test_a_cache_that_is_not_there_is_said_once(judge: Judge, broken: Broken) -> None:
    adapter = broken(Mutation(forward=lambda subject, inputs: replace(subject.forward(inputs), cache=None)))
    found = judge("cache.given", adapter=adapter)
    assert (found.verdict, found.where) == (Verdict.FAIL, "cache")
    found = judge("cache.stepwise", adapter=adapter)
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by cache.given")


@pytest.mark.parametrize(
    ("check", "when", "place"),
    [
        ("cache.stepwise", lambda one: one.cache is None and one.use_cache, "the prompt"),
        ("cache.stepwise", lambda one: one.cache is not None and one.cache.length == LENGTH - 4, "the first step"),
        ("cache.stepwise", lambda one: one.cache is not None and one.cache.length == LENGTH - 1, "later steps"),
        ("cache.chunks", lambda one: one.input_ids.shape[1] > 1 and one.cache is not None, "the second chunk"),
        ("cache.chunks", lambda one: one.cache is not None and one.cache.length == LENGTH - 1, "later chunks"),
        ("cache.position_ids", lambda one: one.cache is not None, "the first step"),
        ("cache.inputs_embeds", lambda one: one.cache is not None, "the first step"),
        ("cache.batch", lambda one: one.cache is not None and len(one.input_ids) == 1, "no padding"),
    ],
)
def test_the_piece_that_is_wrong_is_named(judge: Judge, broken: Broken, check: str, when: Any, place: str) -> None:
    found = judge(check, adapter=broken(where(when)), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, place)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("check", ["cache.padding", "cache.padded_position_ids", "cache.batch"])
@pytest.mark.parametrize(("row", "name"), [(1, "left padding"), (2, "right padding"), (3, "gaps")])
def test_the_padding_that_is_wrong_is_named(judge: Judge, broken: Broken, check: str, row: int, name: str) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if inputs.cache is not None and inputs.attention_mask is not None:
            wrong = masks()[row, : inputs.attention_mask.shape[1]]
            for number, mask in enumerate(inputs.attention_mask):
                if torch.equal(mask, wrong):
                    output.logits[number] *= 1.01
        return output

    found = judge(check, adapter=broken(Mutation(forward=forward)), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, name)


def masks() -> Tensor:
    """Those of the padded scenario, `[batch, pos]`."""
    found = torch.ones(5, LENGTH, dtype=torch.long)
    found[1, :2], found[2, -2:], found[3, 2], found[4, :1], found[4, 3], found[4, -1:] = 0, 0, 0, 0, 0, 0
    return found


# --- whom to blame ---------------------------------------------------------------------------------------------------


class Hugging:
    """An adapter that is HF's own model, cache and all."""

    name = "hugging"
    version = "1"

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def wrap(self, model: Any) -> Any:
        return HuggingSubject(model, self.factor)


class HuggingSubject(Subject):
    def __init__(self, model: Any, factor: float) -> None:
        self.model = model
        self.factor = factor
        self.cache = self

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
        sequences, _ = models.greedy(
            self.model, input_ids, max_new_tokens=max_new_tokens, attention_mask=attention_mask
        )
        return sequences

    def forward(self, inputs: Inputs) -> Output:
        output = models.forward(self.model, inputs)
        return output if inputs.cache is None else replace(output, logits=output.logits * self.factor)

    def close(self) -> None: ...


class WrongInPieces(Delegate):
    """A family of models that HF itself decodes wrongly."""

    def build(self, *args: Any, **kwargs: Any) -> Any:
        model = self.original.build(*args, **kwargs)
        forward = model.forward

        def decoded(*inputs: Any, past_key_values: Any = None, **more: Any) -> Any:
            output = forward(*inputs, past_key_values=past_key_values, **more)
            if past_key_values is not None and past_key_values.get_seq_length() > output.logits.shape[1]:
                output.logits = output.logits * 1.01
            return output

        model.forward = decoded
        return model


DECODING = ["cache.stepwise", "cache.chunks", "cache.padding", "cache.position_ids", "cache.batch"]


@pytest.mark.parametrize("check", DECODING)
def test_hfs_own_model_decodes_as_it_reads(judge: Judge, check: str) -> None:
    assert judge(check, adapter=Hugging(), depth="sampled").verdict is Verdict.PASS


@pytest.mark.parametrize("check", ["cache.padding", "cache.batch"])
def test_only_hf_is_to_blame_for_what_it_decodes_itself(judge: Judge, falcon: FalconFamily, check: str) -> None:
    found = judge(check, adapter=Hugging(), family=WrongInPieces(falcon), depth="sampled")
    assert found.verdict is Verdict.SKIP
    assert (found.message or "").startswith("blocked by reference.cache: HF's own decoding differs")


def test_what_hf_cannot_decode_excuses_nobody(judge: Judge, falcon: FalconFamily) -> None:
    class Unable(Delegate):
        def build(self, *args: Any, **kwargs: Any) -> Any:
            model = self.original.build(*args, **kwargs)
            right = model.transformer.forward

            def forward(*inputs: Any, past_key_values: Any = None, **more: Any) -> Any:
                if past_key_values is not None and not hasattr(model, "wrapped"):
                    raise ValueError("no cache")
                return right(*inputs, past_key_values=past_key_values, **more)

            model.transformer.forward = forward
            return model

    class Wrapped(Hugging):
        def wrap(self, model: Any) -> Any:
            model.wrapped = True
            return super().wrap(model)

    found = judge("cache.stepwise", adapter=Wrapped(1.5), family=Unable(falcon))
    assert (found.verdict, found.where) == (Verdict.FAIL, "the first step")
    assert judge("cache.stepwise", adapter=Wrapped(), family=Unable(falcon)).verdict is Verdict.PASS


def test_the_pieces_that_hf_decodes_rightly_are_judged(judge: Judge, falcon: FalconFamily) -> None:
    assert judge("cache.stepwise", adapter=Hugging(), family=WrongInPieces(falcon)).verdict is Verdict.PASS


def test_another_error_than_hfs_is_the_adapters(judge: Judge, falcon: FalconFamily) -> None:
    found = judge("cache.stepwise", adapter=Hugging(1.5), family=WrongInPieces(falcon))
    assert (found.verdict, found.where) == (Verdict.FAIL, "the first step")


# --- two texts, and hooks --------------------------------------------------------------------------------------------


def test_a_batch_of_one_is_no_second_text(judge: Judge) -> None:
    found = judge("cache.apart", batch=1, depth="sampled")
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: a batch of one is no second text")


def test_the_text_that_gets_the_others_cache_is_named(judge: Judge, broken: Broken) -> None:
    first: list[Any] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs if inputs.cache is None else replace(inputs, cache=first[0]))
        if inputs.use_cache and inputs.cache is None:
            first.append(output.cache)
        return output

    found = judge("cache.apart", adapter=broken(Mutation(forward=forward)), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "the second text")


def test_a_hook_that_is_shown_other_tokens_is_named(judge: Judge, broken: Broken) -> None:
    def first_twice(value: Tensor) -> Tensor:  # [batch, pos, d_mlp]
        return value[:, :1].expand_as(value) if value.shape[1] == 2 else value

    found = judge("cache.hooks", adapter=broken(showing("1.mlp.hook_post", first_twice)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.mlp.hook_post")


def test_what_a_hook_shows_wrongly_without_a_cache_is_not_told_here(judge: Judge, broken: Broken) -> None:
    found = judge("cache.hooks", adapter=broken(showing("hook_pattern", lambda value: value.flip(1))))
    assert found.verdict is Verdict.PASS
    found = judge("cache.hooks", adapter=broken(showing("", lambda value: value * 2)))
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by hooks.values")


# --- greedy generation -----------------------------------------------------------------------------------------------


def generating(change: Callable[[Tensor], Tensor]) -> Mutation:
    def generate(cache: Any, input_ids: Tensor, **more: Any) -> Tensor:
        return change(cache.generate(input_ids, **more))

    return Mutation(parts={"cache": replacing(generate=generate)})


def test_too_few_tokens_and_another_prompt_are_found(judge: Judge, broken: Broken) -> None:
    found = judge("cache.greedy", adapter=broken(generating(lambda tokens: tokens[:, :-1])))
    assert (found.verdict, found.where, found.message) == (Verdict.FAIL, "tokens", "its shape is [5, 12], not [5, 13]")
    found = judge("cache.greedy", adapter=broken(generating(lambda tokens: tokens.roll(1, 0))))
    assert (found.verdict, found.where) == (Verdict.FAIL, "tokens: the prompt")


@pytest.mark.parametrize("token", [-1, 31], ids=["negative", "vocabulary"])
def test_a_token_that_is_none_is_found(judge: Judge, broken: Broken, token: int) -> None:
    def last(found: Tensor) -> Tensor:
        return torch.cat([found[:, :-1], torch.full_like(found[:, :1], token)], dim=1)

    found = judge("cache.greedy", adapter=broken(generating(last)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "tokens")
    assert f"the new token 5 is {token}" in (found.message or "")


LOGITS = torch.tensor([[[0.0, 1.0, 1.0 + 1e-15], [0.0, 5.0, 1.0]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ([2, 1], Verdict.PASS),
        ([1, 0], Verdict.PASS),  # a tie, and after it another text
        ([0, 1], Verdict.FAIL),
        ([2, 2], Verdict.FAIL),
        ([2, 3], Verdict.FAIL),
    ],
)
def test_only_a_tie_may_go_either_way(given: list[int], verdict: Verdict) -> None:
    judged = float64_judge(1e-15).compare_choices("tokens", torch.tensor([given]), torch.tensor([[2, 1]]), LOGITS)
    assert judged.verdict is verdict
    assert (judged.measured == math.inf) == (3 in given)


def test_a_tie_to_single_precision_is_reduced() -> None:
    logits = torch.tensor([[[1.0, 1.0 + 1e-8]]], dtype=torch.float64)
    judged = float64_judge(1e-15).compare_choices("tokens", torch.tensor([[0]]), torch.tensor([[1]]), logits)
    assert judged.verdict is Verdict.REDUCED


@pytest.mark.parametrize("eos", [None, 11, 5])
def test_hfs_own_continuation_is_greedy_and_never_ends(falcon: FalconFamily, eos: int | None) -> None:
    model = build(falcon, ROPE)
    model.generation_config.eos_token_id = eos
    kept = model.generation_config
    sequences, logits = models.greedy(model, tokens(), max_new_tokens=9)
    assert sequences.shape == (3, LENGTH + 9)
    assert torch.equal(sequences[:, :LENGTH], tokens())
    assert torch.equal(sequences[:, LENGTH:], logits.argmax(-1))
    with torch.no_grad():
        whole = model(sequences).logits
    assert torch.equal(whole[:, LENGTH - 1 : -1].argmax(-1), sequences[:, LENGTH:])
    assert model.generation_config is kept
