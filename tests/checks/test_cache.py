"""Decoding in circumstances: what is found of a wrong cache, and what Hugging Face itself is to blame for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import KINDS, LENGTH, build, tokens
from one_check import Broken, Judge
from torch import Tensor

from verifier.adapter import Inputs, Output, Subject
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import Delegate, Mutation, replacing
from verifier.judging.outcome import Verdict
from verifier.reference import models

TOKEN = {"past": "token"}


def test_a_cache_that_is_not_there_is_found(judge: Judge, broken: Broken) -> None:
    adapter = broken(Mutation(forward=lambda subject, inputs: replace(subject.forward(inputs), cache=None)))
    found = judge("forward.outputs", adapter=adapter, circumstances=({"past": "asked"},))
    assert (found.verdict, found.where) == (Verdict.FAIL, "whether there is a cache")


class Hugging:
    """An adapter that is HF's own model, cache and all, whose logits are scaled where it decodes."""

    name, version = "hugging", "1"

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
        return models.greedy(self.model, input_ids, max_new_tokens=max_new_tokens, attention_mask=attention_mask)[0]

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


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, Verdict.PASS), (1.5, Verdict.FAIL)])
def test_only_hf_is_to_blame_for_what_it_decodes_itself(
    judge: Judge, falcon: FalconFamily, factor: float, verdict: Verdict
) -> None:
    """Another error than HF's own is the adapter's."""
    family = WrongInPieces(falcon)
    found = judge("forward.outputs", adapter=Hugging(factor), family=family, circumstances=(TOKEN,))
    assert found.verdict is verdict
    assert judge("reference.cache", family=family).verdict is Verdict.UPSTREAM


def test_nobody_is_asked_to_decode_what_hf_cannot(judge: Judge, falcon: FalconFamily) -> None:
    class Unable(Delegate):
        def build(self, *args: Any, **kwargs: Any) -> Any:
            model = self.original.build(*args, **kwargs)
            right = model.transformer.forward

            def forward(*inputs: Any, past_key_values: Any = None, **more: Any) -> Any:
                if past_key_values is not None:
                    raise ValueError("no cache")
                return right(*inputs, past_key_values=past_key_values, **more)

            model.transformer.forward = forward
            return model

    found = judge("forward.outputs", adapter=Hugging(), family=Unable(falcon), circumstances=(TOKEN,))
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: no circumstance of this case shows it")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda given: given[:, :-1], "shape"),
        (lambda given: given.roll(1, 0), "tokens"),
        (lambda given: torch.cat([given[:, :-1], torch.full_like(given[:, :1], -1)], dim=1), "tokens"),
    ],
    ids=["too few", "another prompt", "no token"],
)
def test_what_is_generated_otherwise_is_found(
    judge: Judge, broken: Broken, change: Callable[[Tensor], Tensor], place: str
) -> None:
    def generate(cache: Any, input_ids: Tensor, **more: Any) -> Tensor:
        return change(cache.generate(input_ids, **more))

    adapter = broken(Mutation(parts={"cache": replacing(generate=generate)}))
    found = judge("cache.generated", adapter=adapter, circumstances=({"past": "generation"},))
    assert (found.verdict, found.where) == (Verdict.FAIL, place)


@pytest.mark.parametrize("eos", [None, 11, 5])
def test_hfs_own_continuation_is_greedy_and_never_ends(falcon: FalconFamily, eos: int | None) -> None:
    model = build(falcon, KINDS["two-norms-grouped-rope"])
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
