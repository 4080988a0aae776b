"""A real checkpoint in a folder, as a researcher has one: here one that the test saves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from verifier.families.falcon import FalconFamily
from verifier.families.falcon_configs import DIMS

CONFIG = {**DIMS, "new_decoder_architecture": True, "num_kv_heads": 4, "bias": True}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = FalconFamily().build(CONFIG, dtype=torch.float32, device="cpu", attention="sdpa", seed=3)
    folder = tmp_path_factory.mktemp("checkpoints") / "falcon-small"
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("only", "lacking"),
    [
        # The bridge has no second names; the plainest circumstance has no loss, no cache, no generation and no history.
        # Nothing else may be left out.
        pytest.param(
            ["*"],
            {
                *("hooks.aliases", "intervene.aliases", "forward.losses", "state.misuse"),
                *("cache.repeated", "cache.generated", "cache.generated_hooks", "cache.generated_edits"),
            },
            id="every check",
            marks=pytest.mark.slow,
        ),
        pytest.param(["build", "forward.logits", "weights", "hooks.aliases"], {"hooks.aliases"}, id="a few"),
    ],
)
def test_the_matrix_is_replaced_by_the_checkpoint(
    checkpoint: Path, tmp_path: Path, verifier: Any, only: list[str], lacking: set[str]
) -> None:
    narrow = [word for glob in only for word in ("--only", glob)]
    ended = verifier("run", "falcon", "--checkpoint", checkpoint, *narrow, "--out", tmp_path / "out", "--workers", "1")
    assert ended.status == 0, ended.err
    lines = [json.loads(line) for line in (tmp_path / "out" / "record.jsonl").read_text().splitlines()]
    (case,) = [line for line in lines if line["kind"] == "case"]
    assert case["checkpoint"] == str(checkpoint)
    assert case["label"] == "falcon-small"
    outcomes = [line for line in lines if line["kind"] == "outcome"]
    assert {line["verdict"] for line in outcomes} <= {"pass", "upstream", "skip"}
    skipped = {line["check"] for line in outcomes if line["verdict"] == "skip"}
    assert skipped == lacking


def test_its_weights_are_the_ones_in_the_folder(checkpoint: Path) -> None:
    saved = FalconFamily().build(CONFIG, dtype=torch.float32, device="cpu", attention="sdpa", seed=3)
    loaded = FalconFamily().build(
        CONFIG, dtype=torch.float64, device="cpu", attention="sdpa", seed=0, checkpoint=str(checkpoint)
    )
    for (name, theirs), ours in zip(saved.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(theirs.double(), ours), name


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (None, "no config.json"),
        ("{", "not JSON"),
        ('{"architectures": ["GPT2LMHeadModel"]}', "not FalconForCausalLM"),
    ],
)
def test_a_folder_without_such_a_model_is_a_usage_error(
    written: str | None, words: str, tmp_path: Path, verifier: Any
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if written is not None:
        (folder / "config.json").write_text(written)
    ended = verifier("run", "falcon", "--checkpoint", folder)
    assert ended.status == 2
    assert words in ended.line


def _without_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "no file named model.safetensors"


def _torn(folder: Path) -> str:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    return "SafetensorError"


def _lacking(folder: Path) -> str:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["transformer.ln_f.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return "lacks 1 weights, transformer.ln_f.bias among them"


@pytest.mark.slow
@pytest.mark.parametrize("damage", [_without_weights, _torn, _lacking])
def test_a_checkpoint_that_cannot_be_loaded_is_no_adapters_fault(
    checkpoint: Path, tmp_path: Path, verifier: Any, damage: Any
) -> None:
    folder = tmp_path / "falcon-small"
    shutil.copytree(checkpoint, folder)
    words = damage(folder)
    ended = verifier("run", "falcon", "--checkpoint", folder, "--out", tmp_path / "out", "--workers", "1")
    assert ended.status == 2
    assert "internal error" not in ended.err
    assert str(folder) in ended.err.splitlines()[-1]
    assert words in ended.err.splitlines()[-1]


def test_what_hugging_face_refuses_of_a_checkpoint_is_told_as_ever(checkpoint: Path) -> None:
    refused = {**CONFIG, "hidden_size": 73}
    with pytest.raises(ValueError, match="divisible"):
        FalconFamily().build(
            refused, dtype=torch.float64, device="cpu", attention="sdpa", seed=0, checkpoint=str(checkpoint)
        )


def test_preset_and_checkpoint_exclude_each_other(verifier: Any) -> None:
    ended = verifier("run", "falcon", "--preset", "falcon-7b", "--checkpoint", ".")
    assert ended.status == 2
    assert "--preset and --checkpoint" in ended.line
