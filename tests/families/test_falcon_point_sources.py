"""Where Falcon's activations are said to be seen is where the taps see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from falcons import DIMS, KINDS, build, tokens
from torch import Tensor
from torch.testing import assert_close

from verifier.canonical import template_of
from verifier.families.falcon import FalconFamily
from verifier.families.falcon_configs import CORNERS
from verifier.families.falcon_configs import DIMS as CORNER_DIMS
from verifier.families.falcon_refusals import refusal
from verifier.family import ShowsPoints

ODD = {name: {**CORNER_DIMS, **corner} for name, corner in CORNERS.items()}
CONFIGS = {**KINDS, **{name: config for name, config in ODD.items() if refusal(config) is None}}
# What the harness alone can show: nothing in the model is it.
WITHOUT = {f"blocks.{{i}}.attn.hook_{name}" for name in ("rot_q", "rot_k", "attn_scores", "pattern", "result")}


def seen(falcon: FalconFamily, model: Any, config: Mapping[str, Any], name: str) -> Tensor | None:
    """The activation as a script reads it; None where there is no source."""
    source = falcon.point_source(config, name)
    if source is None:
        return None
    found: list[Tensor] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        names = {"model": model, "module": module, "args": args, "output": output, "torch": torch}
        found.append(eval(source.value, names))

    handle = model.get_submodule(source.module).register_forward_hook(hook)
    with torch.no_grad():
        model(tokens(), use_cache=False)
    handle.remove()
    (value,) = found
    return value


def tapped(falcon: FalconFamily, model: Any, names: list[str]) -> Mapping[str, Tensor]:
    with torch.no_grad(), falcon.taps(model, names=names) as taps:
        model(tokens(), use_cache=False)
    return taps.values


@pytest.mark.thinned(4)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_source_shows_what_the_taps_read(falcon: FalconFamily, config: Mapping[str, Any]) -> None:
    assert isinstance(falcon, ShowsPoints)
    model, names = build(falcon, config), [point.name for point in falcon.points(config)]
    found = {name: value for name in names if (value := seen(falcon, model, config, name)) is not None}
    assert {template_of(name) for name in names if name not in found} == set(map(template_of, names)) & WITHOUT
    # What a norm divides by is never held: HF, torch and the taps compute it each in an order of its own.
    norms = [name for name in found if name.split(".")[-2:-1] in (["ln1"], ["ln2"], ["ln_final"])]
    held = [name for name in found if name not in norms]
    right = tapped(falcon, model, held)
    assert [name for name in held if not torch.equal(found[name], right[name])] == []
    right = tapped(falcon, model, norms)
    for name in norms:
        assert_close(found[name], right[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "name",
    ["blocks.0.hook_resid_mid", "blocks.0.ln2.hook_scale", "blocks.0.attn.hook_pattern", "blocks.0.x", "hook_x", ""],
)
def test_what_a_model_does_not_have_has_no_source(falcon: FalconFamily, name: str) -> None:
    assert falcon.point_source(DIMS, name) is None
