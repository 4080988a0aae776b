"""Over every flag combination: logits and every hook point agree with HF's sdpa path; what it cannot run is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridge_falcons import accepted, build, combinations, gap, hugging_face_activations, pair, tokens
from verifier_bridge import Bridge, BridgeRefusal


def _name(flags: dict[str, Any]) -> str:
    return "-".join(str(value) for value in flags.values())


VALID = [flags for flags in combinations() if accepted(flags)]
INVALID = [flags for flags in combinations() if not accepted(flags)]
LEFT_AND_RIGHT = torch.tensor([[0, 0, 1, 1, 1, 0, 1], [1, 1, 0, 1, 1, 1, 0]])


def test_there_are_216_valid_combinations() -> None:
    assert len(VALID) == 216
    for flag in VALID[0]:
        assert {flags[flag] for flags in VALID[::7]} == {flags[flag] for flags in VALID}, flag


@pytest.mark.thinned(7)  # which divides no flag's number of values, so that each value is there
@pytest.mark.parametrize("flags", VALID, ids=_name)
def test_every_activation_agrees(flags: dict[str, Any]) -> None:
    model, bridge = pair(**flags)
    inputs = {"input_ids": tokens(), "attention_mask": LEFT_AND_RIGHT if flags["bias"] else None}
    theirs = hugging_face_activations(model, **inputs)
    with torch.no_grad(), bridge.switched(bridge.hook_points):
        output, ours = bridge.run_with_cache(**inputs)
    assert set(ours) == set(theirs) - {"logits"}
    assert gap(output.logits, theirs["logits"]) < 1e-13
    for name, value in ours.items():
        # A pattern over nothing is NaN by the formula, and zero by HF's kernel.
        assert gap(value, theirs[name].nan_to_num() if "pattern" in name else theirs[name]) < 1e-12, name


@pytest.mark.thinned(7)
@pytest.mark.parametrize("flags", INVALID, ids=_name)
def test_what_hugging_face_cannot_run_is_refused(flags: dict[str, Any]) -> None:
    model = build(**flags)
    with pytest.raises(Exception) as theirs:  # noqa: PT011 (whatever HF happens to trip over)
        model(tokens())
    assert not isinstance(theirs.value, AssertionError)
    with pytest.raises(BridgeRefusal, match=r"this Falcon cannot be run: .*(parallel|num_)"):
        Bridge(model)
