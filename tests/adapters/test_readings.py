"""What the adapters' users are told to write shows what their hooks show."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from falcons import KINDS, build, tokens
from torch.testing import assert_close

from verifier import adapter, family
from verifier.adapter import Inputs, Scripted, ScriptedHooks

LENS = pytest.param(
    "transformer-lens",
    "one-norm-multi-query-rope",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("transformer_lens") is None, reason="transformer_lens is not installed"
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [("bridge", "two-norms-grouped-rope"), ("bridge", "sequential-own-keys-alibi"), LENS]
)
@pytest.mark.parametrize("given", [("input_ids",), ("input_ids", "attention_mask")], ids=len)
def test_a_reading_shows_what_a_hook_shows(name: str, kind: str, given: tuple[str, ...]) -> None:
    library, falcon = adapter.load(name), family.load("falcon")
    assert isinstance(library, Scripted)
    assert isinstance(library, ScriptedHooks)
    config: Mapping[str, Any] = KINDS[kind]
    inputs: dict[str, Any] = {"input_ids": tokens(), "attention_mask": torch.ones_like(tokens())}
    inputs["attention_mask"][1, :2] = 0
    inputs = {one: inputs[one] for one in given}
    subject: Any = library.wrap(build(falcon, config))
    names: dict[str, Any] = {"model": build(falcon, config), **inputs}
    usage = library.usage(given)
    exec("\n".join((*usage.imports, *usage.wrap)), names)
    fired = 0
    for point in [point.name for point in falcon.points(config)]:
        shown: list[torch.Tensor] = []
        with torch.no_grad(), subject.hooks.switched({point}), subject.hooks.hooked({point: shown.append}, {}):
            subject.forward(Inputs(**inputs))
        if not shown:  # `hooks.fires` tells of it
            continue
        fired += 1
        with torch.no_grad():
            exec("\n".join(library.reading(given, point) or ()), names)
        assert_close(names.pop("found"), shown[0], rtol=1e-12, atol=1e-12, msg=point)  # a switch stays on
    assert fired > 30
