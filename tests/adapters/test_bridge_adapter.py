"""The bridge through the harness' protocols."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from bridge_falcons import KINDS, build, gap, tokens
from torch import Tensor
from verifier_bridge import BridgeError
from verifier_bridge.verifier_adapter import BridgeAdapter

from verifier import adapter
from verifier.adapter import AdapterRefusal, Inputs


def test_it_is_found_by_its_name() -> None:
    found = adapter.load("bridge")
    assert isinstance(found, BridgeAdapter)
    assert found.name == "bridge"
    assert found.version


def test_it_can_everything_and_changes_nothing() -> None:
    subject = BridgeAdapter().wrap(build(**KINDS["7b"]))
    assert isinstance(subject, adapter.Subject)
    assert all(getattr(subject, name) is not None for name in get_args(adapter.Capability))
    assert subject.declared_mutations == set()


def test_a_model_that_cannot_be_wrapped_is_refused_in_words() -> None:
    with pytest.raises(AdapterRefusal, match=r"this Falcon cannot be run: .*set parallel_attn=True"):
        BridgeAdapter().wrap(build(new_decoder_architecture=True, parallel_attn=False))


def test_forward_takes_and_gives_what_the_protocol_says() -> None:
    model = build(**KINDS["40b"])
    subject = BridgeAdapter().wrap(model)
    output = subject.forward(Inputs(input_ids=tokens(), labels=tokens(), use_cache=True))
    theirs = model(tokens(), labels=tokens())
    assert gap(output.logits, theirs.logits) < 1e-13
    assert output.loss is not None
    assert gap(output.loss, theirs.loss) < 1e-13
    step = subject.forward(Inputs(input_ids=tokens(2, 1, seed=4), cache=output.cache))
    whole = subject.forward(Inputs(input_ids=torch.cat((tokens(), tokens(2, 1, seed=4)), dim=1)))
    assert gap(step.logits, whole.logits[:, -1:]) < 1e-13
    assert step.cache is None


def test_names_say_which_points_are_gated() -> None:
    hooks = BridgeAdapter().wrap(build(**KINDS["rw"])).hooks
    gated = {name for name, info in hooks.names().items() if info.switch}
    assert gated == {"blocks.0.attn.hook_result", "blocks.1.attn.hook_result"}
    assert all(info.native_name == name and info.alias_of is None for name, info in hooks.names().items())


def test_gated_points_fire_inside_their_switch_whichever_is_entered_first() -> None:
    subject = BridgeAdapter().wrap(build(**KINDS["rw"]))
    name = "blocks.1.attn.hook_result"
    fired: list[Tensor] = []
    with subject.hooks.switched({name}), subject.hooks.hooked({name: fired.append}, {}):
        subject.forward(Inputs(input_ids=tokens()))
    with subject.hooks.hooked({name: fired.append}, {}), subject.hooks.switched({name, "hook_embed"}):
        subject.forward(Inputs(input_ids=tokens()))
    assert [list(value.shape) for value in fired] == [[2, 7, 12, 72]] * 2


def test_modes_reach_the_bridge() -> None:
    subject = BridgeAdapter().wrap(build(**KINDS["rw"], hidden_dropout=0.5))
    still = subject.forward(Inputs(input_ids=tokens())).logits
    subject.modes.train(True)
    assert not torch.equal(subject.forward(Inputs(input_ids=tokens())).logits, still)
    subject.modes.train(False)
    subject.modes.checkpointing(True)
    twin = subject.modes.copy()
    assert torch.equal(twin.forward(Inputs(input_ids=tokens())).logits, still)
    twin.modes.load_state_dict({name: 2 * value for name, value in subject.modes.state_dict().items()})
    assert torch.equal(subject.forward(Inputs(input_ids=tokens())).logits, still)
    subject.modes.to(dtype=torch.float32)
    assert subject.forward(Inputs(input_ids=tokens())).logits.dtype == torch.float32


def test_what_is_not_there_is_named() -> None:
    subject = BridgeAdapter().wrap(build(**KINDS["7b"]))
    with pytest.raises(BridgeError, match=r"no component 'blocks.0.attn.O' \(did you mean 'blocks.0.attn.o'"):
        subject.components.run("blocks.0.attn.O", (), {})
    with pytest.raises(BridgeError, match="there is no layer 2: the model has 2"):
        subject.weights.split(2)


def test_the_way_back_takes_any_weights_of_such_a_model() -> None:
    subject, other = BridgeAdapter().wrap(build(**KINDS["40b"])), build(**KINDS["40b"], seed=3)
    restored = subject.restore(BridgeAdapter().wrap(other).weights.canonical())
    theirs = other.state_dict()
    assert restored.keys() == theirs.keys()
    assert all(torch.equal(restored[name], value) for name, value in theirs.items())


def test_a_processed_subject_is_a_whole_one_of_its_own() -> None:
    subject = BridgeAdapter().wrap(build(**KINDS["40b"]))
    twin = subject.processings.apply({"centre_unembed"})
    subject.close()
    assert isinstance(twin, adapter.Subject)
    assert float(twin.forward(Inputs(input_ids=tokens())).logits.detach().mean(-1).abs().max()) < 1e-14


def test_a_closed_subject_says_so() -> None:
    subject = BridgeAdapter().wrap(build(**KINDS["7b"]))
    subject.close()
    subject.close()
    with pytest.raises(BridgeError, match="this subject was closed"):
        subject.forward(Inputs(input_ids=tokens()))
