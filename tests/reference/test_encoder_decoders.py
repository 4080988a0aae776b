"""A model with an encoder is given tokens for its decoder; a model without one is given nothing new."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from tiny_models import build_tiny, draw_tokens

from verifier.adapter import Inputs
from verifier.cases.inputs import copy_inputs
from verifier.reference import models

BOTH = ("T5ForConditionalGeneration", "BartForConditionalGeneration")


@pytest.mark.parametrize("architecture", BOTH)
def test_the_decoders_tokens_and_mask_are_passed_on(architecture: str) -> None:
    model, ids, decoded = build_tiny(architecture), draw_tokens(), draw_tokens(length=5, seed=1)
    mask = torch.ones_like(decoded)
    mask[0, :2] = 0
    inputs = Inputs(input_ids=ids, decoder_input_ids=decoded, decoder_attention_mask=mask)
    with torch.no_grad():
        theirs = model(input_ids=ids, decoder_input_ids=decoded, decoder_attention_mask=mask).logits
        assert torch.equal(models.forward(model, inputs).logits, theirs)
        assert theirs.shape[:2] == decoded.shape
        unmasked = models.forward(model, replace(inputs, decoder_attention_mask=None)).logits
        assert not torch.allclose(unmasked, theirs)
        others = models.forward(model, replace(inputs, decoder_input_ids=decoded.flip(1))).logits
        assert not torch.allclose(others, theirs)


@pytest.mark.parametrize("architecture", BOTH)
def test_the_decoder_goes_on_from_a_cache(architecture: str) -> None:
    model, ids, decoded = build_tiny(architecture), draw_tokens(), draw_tokens(length=5, seed=1)
    with torch.no_grad():
        whole = models.forward(model, Inputs(input_ids=ids, decoder_input_ids=decoded)).logits
        first = models.forward(model, Inputs(input_ids=ids, decoder_input_ids=decoded[:, :3], use_cache=True))
        rest = models.forward(model, Inputs(input_ids=ids, decoder_input_ids=decoded[:, 3:], cache=first.cache))
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], dim=1), whole)


@pytest.mark.parametrize("architecture", [*BOTH, "GPT2LMHeadModel"])
def test_any_tokens_are_for_any_model(architecture: str) -> None:
    model = build_tiny(architecture)
    assert models.forward(model, models.any_tokens(model, length=3)).logits.shape[:2] == (1, 3)


def test_patterns_are_the_decoders() -> None:
    model = build_tiny(BOTH[1])
    output = models.forward(model, models.any_tokens(model), output_attentions=True)
    assert output.attentions is not None
    assert len(output.attentions) == model.config.decoder_layers


def test_a_copy_of_inputs_copies_every_tensor_of_theirs() -> None:
    tensors = {field.name: draw_tokens() for field in fields(Inputs) if field.name not in ("cache", "use_cache")}
    given = Inputs(**tensors)
    copied = copy_inputs(given)
    for name, tensor in tensors.items():
        assert torch.equal(getattr(copied, name), tensor)
        assert getattr(copied, name) is not tensor
