"""Values that do not go together: Hugging Face refuses them, ignores one of them, or computes what means nothing.

Of a constraint that is a matter of cost, or of the adapter protocol, it is shown that it is that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from falcons import KINDS, build, tokens
from torch import Tensor

from verifier.adapter import Cache, Inputs
from verifier.cases.circumstances import CONSTRAINTS, PLAIN, Circumstance, Constraint, is_allowed
from verifier.cases.dealing import cost
from verifier.cases.lengths import choose_lengths
from verifier.families.falcon import FalconFamily
from verifier.observing.circumstances.texts import Texts, make_texts

ROPE, ALIBI = KINDS["two-norms-grouped-rope"], KINDS["sequential-own-keys-alibi"]
MOST = ROPE["max_position_embeddings"]
GREEDILY: Mapping[str, Any] = {
    "max_new_tokens": 3,
    "do_sample": False,
    "eos_token_id": None,
    "pad_token_id": 0,
}

Test = TypeVar("Test", bound=Callable[..., None])
SHOWN: list[Constraint] = []


def shows(**values: str) -> Callable[[Test], Test]:
    """Say which constraint a test shows: the one that excludes these values."""
    (constraint,) = (one for one in CONSTRAINTS if one.excludes(values))
    SHOWN.append(constraint)
    return lambda test: test


@pytest.fixture
def model(falcon: FalconFamily) -> Any:
    """HF's Falcon with rotary positions, in float64."""
    return build(falcon, ROPE)


@pytest.fixture
def ids() -> Tensor:
    return tokens(3, 7)


def texts_in(circumstance: Circumstance) -> Texts:
    """The texts of a circumstance for a model whose config names a maximum."""
    lengths = choose_lengths(circumstance, most=MOST, longest=None)
    assert lengths is not None
    return make_texts(circumstance, seed=0, vocab=2, d_model=1, lengths=lengths, dtype=torch.float64, device="cpu")


def additive(length: int) -> Tensor:
    """A causal mask that is added to the scores, `[1, 1, pos, pos]`."""
    hidden = ~torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(1, 1, length, length, dtype=torch.float64).masked_fill(hidden, torch.finfo(torch.float64).min)


def test_every_constraint_is_shown_by_a_test() -> None:
    assert [one.reason for one in CONSTRAINTS if one not in SHOWN] == []


# --- generation ------------------------------------------------------------------------------------------------------


@shows(past="generation", tokens="embeddings")
@shows(past="generation", positions="given")
@shows(past="generation", labels="given")
def test_adapters_generate_from_token_ids_and_a_mask_alone() -> None:
    assert list(inspect.signature(Cache.generate).parameters)[1:] == ["input_ids", "max_new_tokens", "attention_mask"]


@shows(past="generation", mask="right")
@torch.no_grad()
def test_hugging_faces_generation_goes_on_from_padding_on_the_right(model: Any, ids: Tensor) -> None:
    mask = torch.ones_like(ids)
    mask[:, -2:] = 0
    padded = model.generate(ids, attention_mask=mask, **GREEDILY)[:, -3:]
    assert not torch.equal(padded, model.generate(ids[:, :-2], **GREEDILY)[:, -3:])
    on_the_left = model.generate(ids, attention_mask=mask.flip(1), **GREEDILY)[:, -3:]
    assert torch.equal(on_the_left, model.generate(ids[:, 2:], **GREEDILY)[:, -3:])


@shows(past="generation", mask="gaps")
@torch.no_grad()
def test_hugging_faces_generation_leaves_masked_tokens_out_wherever_they_are(model: Any, ids: Tensor) -> None:
    kept = torch.tensor([False, True, False, True, True, True, True])
    with_gaps = model.generate(ids, attention_mask=kept.long().expand(3, 7), **GREEDILY)[:, -3:]
    assert torch.equal(with_gaps, model.generate(ids[:, kept], **GREEDILY)[:, -3:])
    assert is_allowed(PLAIN | {"past": "generation", "mask": "left"})


@shows(past="generation", mask="additive")
@torch.no_grad()
def test_hugging_faces_generation_refuses_a_mask_of_four_dimensions(model: Any, ids: Tensor) -> None:
    with pytest.raises(ValueError, match="must be 2D"):
        model.generate(ids, attention_mask=additive(7).expand(3, 1, 7, 7), **GREEDILY)


@shows(past="generation", length="beyond")
def test_what_is_generated_beyond_the_maximum_is_dear_and_a_forward_there_is_looked_at() -> None:
    beyond = PLAIN | {"length": "beyond"}
    assert is_allowed(beyond)
    assert is_allowed(beyond | {"past": "token"})
    assert cost(beyond) > cost(PLAIN)


# --- dropouts --------------------------------------------------------------------------------------------------------


@shows(history="trained", mode="train")
def test_a_model_that_was_trained_before_has_dropouts_and_one_in_training_mode_alone_has_none(
    falcon: FalconFamily, model: Any
) -> None:
    dropouts = falcon.dropouts()
    assert dropouts
    assert all(dropouts.values())
    assert not any(getattr(model.config, name) for name in dropouts)
    assert is_allowed(PLAIN | {"history": "trained", "mode": "dropout"})


# --- positions -------------------------------------------------------------------------------------------------------


@shows(positions="given", mask="none")
@torch.no_grad()
def test_without_a_mask_hugging_face_takes_a_jump_in_the_positions_for_a_packed_sequence(ids: Tensor) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=31
    )
    llama: Any = LlamaForCausalLM(config).double().eval()
    given = {"position_ids": torch.tensor([[0, 1, 2, 5, 6, 7, 9]]).expand(3, 7), "use_cache": False}
    without = llama(ids, **given).logits
    with_mask = llama(ids, attention_mask=torch.ones_like(ids), **given).logits
    assert torch.allclose(without[:, :3], with_mask[:, :3])
    assert not torch.isclose(without[:, 3:], with_mask[:, 3:]).all(-1).any()
    # What follows the jump is a text of its own there.
    alone = llama(ids[:, 3:6], position_ids=given["position_ids"][:, 3:6], use_cache=False).logits
    assert torch.allclose(without[:, 3:6], alone)


@shows(positions="far", length="beyond")
def test_a_text_beyond_the_maximum_leaves_no_position() -> None:
    beyond = texts_in(PLAIN | {"length": "beyond"})
    assert beyond.length > MOST


# --- checkpointing ---------------------------------------------------------------------------------------------------


@shows(checkpointing="on", past="asked")
def test_hugging_face_turns_the_cache_off_under_checkpointing(model: Any, ids: Tensor) -> None:
    model.train()
    assert model(ids, use_cache=True).past_key_values is not None
    model.gradient_checkpointing_enable()
    assert model(ids, use_cache=True).past_key_values is None


def times_run(model: Any, ids: Tensor, *, training: bool, gradients: bool) -> int:
    """How often a block's MLP runs in a forward and a backward under checkpointing."""
    model.train(training).gradient_checkpointing_enable()
    ran: list[None] = []
    model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: ran.append(None))
    with torch.set_grad_enabled(gradients):
        logits = model(ids, use_cache=False).logits
    if gradients:
        logits.sum().backward()
    return len(ran)


@shows(checkpointing="on", mode="eval")
@shows(checkpointing="on", grad="no_grad")
@pytest.mark.parametrize(
    ("training", "gradients", "times"), [(True, True, 2), (False, True, 1), (True, False, 1)], ids=str
)
def test_hugging_face_computes_again_in_training_and_with_gradients_alone(
    model: Any, ids: Tensor, training: bool, gradients: bool, times: int
) -> None:
    assert times_run(model, ids, training=training, gradients=gradients) == times


# --- masks -----------------------------------------------------------------------------------------------------------


@shows(length="one", mask="left", past="none")
@torch.no_grad()
def test_what_a_token_sees_that_sees_nothing_is_another_thing_in_each_of_hugging_faces_kernels(
    falcon: FalconFamily, ids: Tensor
) -> None:
    one = ids[:, :1]
    sdpa, eager = (build(falcon, ROPE, attention=attention) for attention in ("sdpa", "eager"))

    def differ(mask: Tensor) -> bool:
        return not torch.allclose(sdpa(one, attention_mask=mask).logits, eager(one, attention_mask=mask).logits)

    assert differ(torch.zeros_like(one))
    assert not differ(torch.ones_like(one))


@shows(mask="additive", past="chunk")
@torch.no_grad()
def test_an_added_mask_of_a_call_does_not_fit_the_keys_of_a_cache(model: Any, ids: Tensor) -> None:
    cache = model(ids, use_cache=True).past_key_values
    with pytest.raises(RuntimeError, match="must match the size"):
        model(tokens(3, 4), past_key_values=cache, attention_mask=additive(4).expand(3, 1, 4, 4))
    assert "or `[batch, 1, pos, pos]`" in " ".join((Inputs.__doc__ or "").split())


@torch.no_grad()
def test_hugging_faces_alibi_counts_the_tokens_of_a_mask_of_two_dimensions(falcon: FalconFamily, ids: Tensor) -> None:
    circumstance = PLAIN | {"mask": "additive"}
    assert falcon.circumstance_refusal(ALIBI, circumstance) is not None
    assert falcon.circumstance_refusal(ROPE, circumstance) is None
    mask = additive(7).expand(3, 1, 7, 7)
    with pytest.raises(ValueError, match="too many values to unpack"):
        build(falcon, ALIBI)(ids, attention_mask=mask)
    with_mask = build(falcon, ROPE)(ids, attention_mask=mask).logits
    assert torch.allclose(with_mask, build(falcon, ROPE)(ids).logits)


# --- dtypes ----------------------------------------------------------------------------------------------------------


@shows(grad="autocast", dtype="float16")
def test_hugging_face_raises_in_float16_under_autocast(falcon: FalconFamily, ids: Tensor) -> None:
    def logits(dtype: torch.dtype) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            result: Tensor = build(falcon, ROPE).to(dtype)(ids).logits
        return result

    with pytest.raises(RuntimeError, match="mixed dtype"):
        logits(torch.float16)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert logits(dtype).isfinite().all()


@shows(dtype="mixed", model="moved")
def test_a_cast_and_a_loaded_checkpoint_give_every_parameter_one_dtype(model: Any, tmp_path: Path) -> None:
    def dtypes(found: Any) -> set[torch.dtype]:
        return {one.dtype for one in found.parameters()}

    model.to(torch.bfloat16)
    model.transformer.ln_f.float()
    assert dtypes(model) == {torch.bfloat16, torch.float32}
    model.save_pretrained(tmp_path)
    assert dtypes(type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)) == {torch.bfloat16}
    assert dtypes(model.to(torch.float64).to(torch.bfloat16)) == {torch.bfloat16}


# --- labels ----------------------------------------------------------------------------------------------------------


@shows(labels="given", past="token")
@shows(labels="given", length="one", past="none")
@torch.no_grad()
def test_a_loss_without_a_label_is_no_number(model: Any, ids: Tensor) -> None:
    one = ids[:, :1]
    assert model(one, labels=one).loss.isnan()
    cache = model(ids, use_cache=True).past_key_values
    assert model(one, labels=one, past_key_values=cache).loss.isnan()
    assert model(ids, labels=ids).loss.isfinite()


# --- matters of cost -------------------------------------------------------------------------------------------------


@shows(rows="square", length="one")
@shows(rows="square", length="long")
@shows(depth="eleven", length="long")
def test_what_is_left_out_as_dear_is_dear_and_one_of_the_values_alone_is_not_left_out() -> None:
    dear = [one for one in CONSTRAINTS if "dear" in one.reason]
    assert len(dear) >= 2
    for constraint in dear:  # what is dear together is looked at apart
        for axis, values in constraint.values.items():
            assert all(is_allowed(PLAIN | {axis: value}) for value in values), constraint.reason
    for length in ("multiple", "long", "beyond"):
        assert cost(PLAIN | {"depth": "eleven", "length": length}) >= 4
        texts = texts_in(PLAIN | {"rows": "square", "length": length})
        assert texts.ids.numel() >= 20 * 7 * 7  # tokens of a short square


def test_one_token_and_as_many_rows_is_one_row_which_is_a_value_of_its_own() -> None:
    one = texts_in(PLAIN | {"rows": "one", "length": "one"})
    assert list(one.ids.shape) == [1, 1]
    assert is_allowed(PLAIN | {"rows": "one", "length": "one"})
