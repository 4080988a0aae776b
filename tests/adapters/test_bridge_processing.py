"""Weight processings: each does what its name says, keeps what it does not move, and is refused where it must be."""

from __future__ import annotations

from itertools import chain, combinations
from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, build, gap, pair, tokens
from verifier_bridge import Bridge, BridgeError
from verifier_bridge.processing import PROCESSINGS
from verifier_bridge.verifier_adapter import BridgeAdapter

from verifier.adapter import LOG_PROBABILITIES, LOGITS

NAMES = tuple(PROCESSINGS)
TIED = {**KINDS["40b"], "tie_word_embeddings": True}
UNTIED = {**KINDS["40b"], "tie_word_embeddings": False}


def sets_of(bridge: Bridge) -> list[set[str]]:
    """Every set of the processings that can be done to it."""
    names = tuple(bridge.processings())
    return [set(one) for one in chain.from_iterable(combinations(names, size) for size in range(1, len(names) + 1))]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [*KINDS.values(), UNTIED], ids=[*KINDS, "untied"])
def test_whatever_is_done_together_moves_only_what_it_says(flags: dict[str, Any]) -> None:
    _, bridge = pair(**flags)
    with torch.no_grad(), bridge.switched(bridge.hook_points):
        plain, before = bridge.run_with_cache(tokens())
    for names in sets_of(bridge):
        moved = tuple(end for name in names for end in PROCESSINGS[name].moves)
        twin = bridge.processed(names)
        with torch.no_grad(), twin.switched(twin.hook_points):
            output, after = twin.run_with_cache(tokens())
        assert gap(output.logits.log_softmax(-1), plain.logits.log_softmax(-1)) < 1e-12, names
        if "logits" not in moved:
            assert gap(output.logits, plain.logits) < 1e-12, names
        for point in before:
            if not point.endswith(moved):
                assert gap(after[point], before[point]) < 1e-12, (names, point)


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_the_bridge_and_its_model_stay_as_they_were(flags: dict[str, Any]) -> None:
    model, bridge = pair(**flags)
    before = bridge(tokens()).logits
    twin = bridge.processed(set(bridge.processings()))
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert torch.equal(bridge(tokens()).logits, before)
    theirs = model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in bridge.model.state_dict().items())


def test_a_hook_that_the_model_has_is_its_twins_too_and_a_new_one_is_each_modules_own() -> None:
    _, bridge = pair(**KINDS["40b"])
    model: Any = bridge.model
    ran: list[torch.nn.Module] = []

    def note(module: torch.nn.Module, *_: Any) -> None:
        ran.append(module)

    before = model.transformer.ln_f.register_forward_hook(note)
    twin: Any = bridge.processed({"fold_norms"}).model
    before.remove()
    twin.transformer.h[0].mlp.register_forward_hook(note)
    model.transformer.h[1].mlp.register_forward_hook(note)
    with torch.no_grad():
        twin(tokens())
        assert ran == [twin.transformer.h[0].mlp, twin.transformer.ln_f]
        ran.clear()
        model(tokens())
    assert ran == [model.transformer.h[1].mlp]


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_folded_norms_only_normalise(flags: dict[str, Any]) -> None:
    _, bridge = pair(**flags)
    weights = bridge.processed({"fold_norms"}).canonical_weights()
    norms = [name for name in weights if name.endswith(("ln1.w", "ln2.w", "ln_final.w"))]
    assert len(norms) >= 3
    for name in norms:
        assert torch.equal(weights[name], torch.ones_like(weights[name])), name
        # The unembedding has no bias, and where there are none at all the norm's has nowhere to go.
        shift = weights[name.replace(".w", ".b")]
        assert bool((shift == 0).all()) == (bool(flags.get("bias")) and not name.startswith("ln_final"))


def test_value_biases_are_zero_once_they_are_folded() -> None:
    _, bridge = pair(**KINDS["40b"])
    before, after = bridge.canonical_weights(), bridge.processed({"fold_value_biases"}).canonical_weights()
    for layer in (0, 1):
        here = f"blocks.{layer}.attn"
        assert bool((before[f"{here}.b_V"] != 0).all())
        assert bool((after[f"{here}.b_V"] == 0).all())
        assert not torch.equal(before[f"{here}.b_O"], after[f"{here}.b_O"])


def test_centred_weights_write_no_mean_and_the_unembedding_adds_none_to_the_logits() -> None:
    _, bridge = pair(**TIED)
    twin = bridge.processed({"centre_writing_weights", "centre_unembed"})
    weights = twin.canonical_weights()
    for name in ("embed.W_E", "blocks.1.attn.W_O", "blocks.1.attn.b_O", "blocks.0.mlp.W_out", "blocks.0.mlp.b_out"):
        assert float(weights[name].mean(-1).abs().max()) < 1e-15, name
    assert float(weights["unembed.W_U"].mean(-1).abs().max()) < 1e-15
    assert float(twin(tokens()).logits.detach().mean(-1).abs().max()) < 1e-14


def test_a_tied_embedding_is_untied_and_the_unembedding_keeps_its_values() -> None:
    _, bridge = pair(**TIED)
    weights = bridge.processed({"centre_writing_weights"}).canonical_weights()
    assert torch.equal(weights["unembed.W_U"], bridge.canonical_weights()["unembed.W_U"])
    assert not torch.equal(weights["embed.W_E"].T, weights["unembed.W_U"])
    assert bridge.model.config.tie_word_embeddings  # type: ignore[union-attr]


def test_half_precision_is_processed_wide_and_stays_half() -> None:
    model = build(dtype=torch.bfloat16, **KINDS["40b"])
    twin = Bridge(model).processed(NAMES)
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.bfloat16}
    mean = twin.canonical_weights()["unembed.W_U"].float().mean(-1)
    assert float(mean.abs().max()) < 1e-3


def test_what_cannot_be_done_says_why_and_is_not_offered() -> None:
    _, bridge = pair(**KINDS["7b"])
    assert "fold_value_biases" not in bridge.processings()
    with pytest.raises(BridgeError, match=r"fold_value_biases cannot be done here: there is no blocks.0.attn.b_V"):
        bridge.processed({"fold_value_biases"})
    with pytest.raises(BridgeError, match=r"no processing 'fold_norm' \(did you mean 'fold_norms'"):
        bridge.processed({"fold_norm"})


def test_a_norm_that_has_a_zero_weight_and_a_bias_cannot_be_folded() -> None:
    model = build(**KINDS["11b"])
    with torch.no_grad():
        model.transformer.h[1].input_layernorm.weight[3] = 0
    with pytest.raises(BridgeError, match=r"blocks.1.ln1 has a weight of 0, and a bias that no bias after it can take"):
        Bridge(model).processed({"fold_norms"})


def test_norms_that_keep_the_mean_forbid_centring() -> None:
    _, bridge = pair(**KINDS["7b"])
    bridge.ln_final.centres = False
    assert "centre_writing_weights" not in bridge.processings()
    with pytest.raises(BridgeError, match="ln_final does not take the mean off what it reads"):
        bridge.processed({"centre_writing_weights"})


def test_the_adapter_promises_all_that_is_not_moved() -> None:
    promises = BridgeAdapter().wrap(build(**KINDS["rw"])).processings.promises()
    assert promises.keys() == set(NAMES)
    assert all(LOG_PROBABILITIES in kept for kept in promises.values())
    assert {name for name, kept in promises.items() if LOGITS in kept} == set(NAMES) - {"centre_unembed"}
    assert "blocks.{i}.attn.hook_pattern" in promises["centre_writing_weights"]
    assert "blocks.{i}.hook_resid_post" not in promises["centre_writing_weights"]
    assert "blocks.{i}.hook_resid_post" in promises["fold_value_biases"]
    assert "blocks.{i}.attn.hook_v" not in promises["fold_value_biases"]
