"""What HF's classes remember of themselves is nobody's doing, and a wrong answer in its place is somebody's."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, build_tiny, draw_tokens
from transformers import PreTrainedModel
from transformers.models.gpt2 import modeling_gpt2

from verifier.adapter import Inputs
from verifier.reference.class_memos import fill_class_memos
from verifier.reference.models import any_tokens
from verifier.reference.snapshots import Surroundings

GPT2 = modeling_gpt2.GPT2LMHeadModel
REMEMBERED = ("_can_set_attn_implementation_cached_value", "_can_set_experts_implementation_cached_value")


@pytest.fixture
def asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: no question was asked of a class yet."""
    for kind in (GPT2, modeling_gpt2.GPT2Model):
        for name in REMEMBERED:
            if name in vars(kind):
                monkeypatch.delattr(kind, name)


def use_all_of_it(model: Any) -> None:
    """What a user of Hugging Face's may do with a model, in the ways that Hugging Face's own library has for it."""
    kind, ids = type(model), draw_tokens()
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    kind(copy.deepcopy(model.config))
    fresh = copy.deepcopy(model.config)
    fresh._experts_implementation = None
    kind(fresh)
    kind._can_set_attn_implementation()
    kind._can_set_experts_implementation()
    for implementation in ("sdpa", "eager") if kind._supports_sdpa else ("eager",):
        model.set_attn_implementation(implementation)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, output_hidden_states=True, **more)
    model.train()
    model.activation_checkpointing_enable()
    model(input_ids=ids, labels=ids, **more).loss.backward()
    model.activation_checkpointing_disable()
    model.eval().generate(ids, max_new_tokens=2, do_sample=False)
    copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        kind.from_pretrained(folder)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_using_a_model_in_huggings_faces_ways_changes_no_class(architecture: str) -> None:
    model = build_tiny(architecture, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:  # what loading fills in modules is filled in
        model.save_pretrained(folder)
        type(model).from_pretrained(folder)
    before = Surroundings(model)
    use_all_of_it(model)
    assert before.differences() == []


def test_the_first_question_to_a_class_is_no_change(asked_nothing: None) -> None:
    before = Surroundings(build_tiny("GPT2LMHeadModel"))
    assert {name: vars(GPT2)[name] for name in REMEMBERED} == {REMEMBERED[0]: True, REMEMBERED[1]: False}
    GPT2._can_set_attn_implementation()
    GPT2._can_set_experts_implementation()
    assert before.differences() == before.changes() == []


@pytest.mark.parametrize("name", REMEMBERED)
def test_a_wrong_answer_that_an_adapter_writes_is_a_change(
    name: str, asked_nothing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_tiny("GPT2LMHeadModel")
    before = Surroundings(model)
    monkeypatch.setattr(GPT2, name, not getattr(GPT2, name))
    assert before.differences() == before.changes() == [f"class {GPT2.__module__}.GPT2LMHeadModel: {name}"]


def test_an_answer_that_an_adapter_takes_away_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_tiny("GPT2LMHeadModel")
    before = Surroundings(model)
    monkeypatch.delattr(GPT2, REMEMBERED[0])
    assert before.differences() != []


def test_bases_are_not_asked_because_their_answer_would_be_that_of_every_class() -> None:
    fill_class_memos([GPT2])
    assert not any(name in vars(PreTrainedModel) for name in REMEMBERED)


def test_a_class_method_that_only_writes_is_not_called() -> None:
    class Registers(GPT2):
        __module__ = GPT2.__module__
        registered = False

        @classmethod
        def register(cls) -> None:
            cls.registered = True

    fill_class_memos([Registers])
    assert not Registers.registered


def test_a_question_of_another_name_is_asked_too() -> None:
    class Remembers(GPT2):
        __module__ = GPT2.__module__

        @classmethod
        def _knows(cls) -> bool:
            known = getattr(cls, "_known", None)
            if known is None:
                cls._known = known = True
            return known

    fill_class_memos([Remembers])
    assert vars(Remembers)["_known"]


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "Gemma2ForCausalLM"])
def test_transformer_lens_is_not_blamed_for_what_hugging_face_remembers(architecture: str, asked_nothing: None) -> None:
    pytest.importorskip("transformer_lens")
    from verifier_lens import LensAdapter

    model = build_tiny(architecture, dtype=torch.float32)
    before = Surroundings(model)
    subject = LensAdapter().wrap(model)
    with torch.no_grad():
        subject.forward(Inputs(input_ids=any_tokens(build_tiny(architecture)).input_ids))
    assert before.changes() == []
