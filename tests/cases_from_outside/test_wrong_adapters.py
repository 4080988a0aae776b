"""Wrong adapters, written by someone who had read the kill table or after public bug reports.

Where each is wrong, and in which circumstance, stands here as its own docstring has it; the command must say the same
in the first line of a failure. Each adapter patches `bridge` where it is imported, so it runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from falcons import KINDS, spec

from verifier.cases.circumstances import read_rows
from verifier.families.falcon import FalconFamily

HERE = Path(__file__).parent
GRAD = {"grad": "grad"}
HALF = "bfloat16"
MASK = r"attn\.hook_(attn_scores|pattern)"


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """What a first line must have.

    Attributes:
        check: a pattern of the observable's id.
        place: a pattern of where it shows.
        circumstance: values that a row must have for it to show, beside gradients where these are looked at.
        axes: the axes that the line must name; those of the circumstance if not given.
        corner: of the family, if it shows on no other case.
    """

    check: str
    place: str
    circumstance: Mapping[str, str]
    axes: Sequence[str] | None = None
    corner: str | None = None


GENERATION = {"past": "generation"}
EXPECTED: Mapping[str, Wrong] = {
    "green_but_wrong/m03_mask_beyond_64:Adapter": Wrong(
        check="forward.outputs", place=MASK, circumstance={"length": "long", "mask": "gaps"}
    ),
    "green_but_wrong/m05_edits_dropped_in_half:Adapter": Wrong(
        check="intervene", place=r"hook_", circumstance={"dtype": HALF}
    ),
    "green_but_wrong/m07_mask_ignored_in_training:Adapter": Wrong(
        check="forward.outputs", place=MASK, circumstance={"mode": "train", "mask": "left"}
    ),
    "green_but_wrong/m09_cache_detached:Adapter": Wrong(
        check="backward", place="W_|hook_", circumstance={**GRAD, "past": "chunk"}, axes=["past"]
    ),
    "green_but_wrong/m105_generation_unhooked_inside:Adapter": Wrong(
        check="cache.generated", place=r"(attn|mlp|ln)", circumstance=GENERATION, axes=[]
    ),
    "green_but_wrong/m11_loss_gradient_wrong:Adapter": Wrong(
        check="backward", place="W_|hook_", circumstance={**GRAD, "labels": "some"}, axes=["labels"]
    ),
    "green_but_wrong/m14_length_multiple_of_16:Adapter": Wrong(
        check="forward.outputs", place=MASK, circumstance={"length": "multiple"}
    ),
    "green_but_wrong/m18_weight_gradient_beside_mask:Adapter": Wrong(
        check="backward", place=r"ln_final\.w", circumstance={**GRAD, "mask": "left"}, axes=["mask"]
    ),
    "green_but_wrong/m20_second_backward_unhooked:Adapter": Wrong(
        check="backward.repeated", place="hook_", circumstance=GRAD, axes=[]
    ),
    "green_but_wrong/m21_frozen_gradients_silent:Adapter": Wrong(
        check="backward|hooks.graph|forward.outputs", place="hook_|logits", circumstance={"grad": "frozen"}
    ),
    "green_but_wrong/m22_weights_by_version:Adapter": Wrong(
        check="forward.outputs", place="hook_|logits", circumstance={"model": "data"}
    ),
    "green_but_wrong/m23_forward_in_a_hook:Adapter": Wrong(
        check="forward.outputs", place="hook_|logits", circumstance={"history": "nested", "mask": "left"}
    ),
    "green_but_wrong/m24_backward_exception_swallowed:Adapter": Wrong(
        check="state.misuse", place="gradients", circumstance={**GRAD, "history": "raised"}, axes=["history"]
    ),
    "green_but_wrong/m26_copy_without_gradients:Adapter": Wrong(
        check="state.modes|forward.outputs", place="requires_grad", circumstance={"model": "copied"}
    ),
    "green_but_wrong/m28_cast_freezes:Adapter": Wrong(
        check="state.modes|forward.outputs", place="requires_grad", circumstance={"model": "moved"}
    ),
    "green_but_wrong/m31_wrap_seeds:Adapter": Wrong(check="state.random", place="wrapping", circumstance={}),
    "green_but_wrong/m34_embeds_or_positions:Adapter": Wrong(
        check="forward.outputs",
        place=r"hook_rot_|hook_attn_scores",
        circumstance={"tokens": "embeddings", "positions": "given", "mask": "ones"},
        axes=["tokens", "positions"],
    ),
    "green_but_wrong/m36_eager_models_wrong:Adapter": Wrong(
        check="forward.outputs", place=r"attn\.hook_attn_scores", circumstance={"attention": "other"}
    ),
    "green_but_wrong/m38_chunks_look_ahead_in_layer_2:Adapter": Wrong(
        check="forward.outputs", place=r"attn\.", circumstance={"past": "chunk", "depth": "three"}
    ),
    "green_but_wrong/m46_result_edits_beside_mask:Adapter": Wrong(
        check="intervene", place=r"hook_result", circumstance={"mask": "left"}
    ),
    "green_but_wrong/m47_switch_left_by_exception:Adapter": Wrong(
        check="hooks.gone", place="switch", circumstance={"history": "raised"}
    ),
    "green_but_wrong/m54_components_without_graph:Adapter": Wrong(
        check="component.current", place="requires_grad", circumstance=GRAD, axes=["grad"]
    ),
    "green_but_wrong/m57_split_made_once:Adapter": Wrong(
        check="weights.current", place="split", circumstance={"model": "written"}
    ),
    "green_but_wrong/m61_forwards_kept_while_alive:Adapter": Wrong(
        check="state.released", place="logits", circumstance={}
    ),
    "green_but_wrong/m64_logits_float32_in_half:Adapter": Wrong(
        check="forward.outputs", place="dtype of the logits", circumstance={"dtype": HALF}
    ),
    "green_but_wrong/m67_newest_spec_for_all:Adapter": Wrong(
        check="forward.outputs", place="split|attention", circumstance={"history": "interleaved"}
    ),
    "green_but_wrong/m69_checkpoint_draws_anew:Adapter": Wrong(
        check="backward",
        place="W_|hook_",
        circumstance={**GRAD, "mode": "dropout", "checkpointing": "on"},
        axes=["mode", "checkpointing"],
    ),
    "green_but_wrong/m75_half_cache_mask:Adapter": Wrong(
        check="forward.outputs", place=MASK, circumstance={"dtype": HALF, "past": "chunk", "mask": "left"}
    ),
    "green_but_wrong/m98_loss_of_the_unedited:Adapter": Wrong(
        check="intervene", place="loss", circumstance={"labels": "given"}
    ),
    "green_but_wrong/mc09_backward_hook_after_edit:Adapter": Wrong(
        check="backward", place="hook_", circumstance=GRAD, axes=[]
    ),
    "public/04-inv-freq-half:Adapter": Wrong(
        check="forward.outputs|hooks.shown",
        place=r"hook_rot_|hook_attn_scores",
        circumstance={"dtype": HALF, "positions": "far", "mask": "rewritten", "dims": "wide"},
        axes=["dtype", "positions", "dims"],
    ),
    "public/06-hooks-in-one-token-steps:Adapter": Wrong(
        check="hooks.shown", place=r"hook_(attn_scores|z)", circumstance={"past": "token"}
    ),
    "public/07-gradient-edit-nested:Adapter": Wrong(check="backward.nested", place="hook_", circumstance=GRAD, axes=[]),
    "public/08-state-of-an-earlier-call:Adapter": Wrong(
        check="forward.outputs", place="hook_|logits", circumstance={"history": "masked"}
    ),
    "public/12-edits-in-half:Dropped": Wrong(check="intervene", place="hook_", circumstance={"dtype": HALF}),
    "public/12-edits-in-half:Raises": Wrong(check="intervene", place="raise|12-edits", circumstance={"dtype": HALF}),
    "public/22-dynamic-rope:Static": Wrong(
        check="forward.outputs", place="hook_rot_|logits", circumstance={"length": "beyond"}, corner="rope-dynamic"
    ),
    "public/22-dynamic-rope:Sticky": Wrong(
        check="forward.outputs", place="hook_rot_|logits", circumstance={"history": "longer"}, corner="rope-dynamic"
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_default_run_has_a_row_with_the_circumstance(name: str) -> None:
    wanted = EXPECTED[name].circumstance.items()
    assert any(wanted <= row.items() for row in read_rows())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_the_first_line_has_the_place_and_the_circumstance(name: str, tmp_path: Path) -> None:
    wrong, (module, adapter) = EXPECTED[name], name.split(":")
    config = KINDS["one-norm-multi-query-rope"]
    if wrong.corner is not None:
        family = FalconFamily()
        config = {**family.dims(), **family.corners()[wrong.corner]}
    case = replace(spec(config, dtypes=("bfloat16",)), circumstances=(GRAD, wrong.circumstance))
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps(case.to_json()) + "\n")
    command = [sys.executable, "-m", "verifier", "run", "falcon", "--adapter", f"{Path(module).name}:{adapter}"]
    options = ["--cases", str(cases), "--workers", "1", "--out", str(tmp_path / "out"), "--timeout", "300"]
    path = os.pathsep.join([str(HERE / Path(module).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "300", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if re.match(r"\s+\d+\s+\S+\s+(FAIL|ERROR)", line)]
    axes = wrong.circumstance if wrong.axes is None else wrong.axes
    first = lines[0]
    assert re.search(wrong.check, first), lines
    assert re.search(wrong.place, first), lines
    assert all(f"{axis} is" in first for axis in axes), lines
