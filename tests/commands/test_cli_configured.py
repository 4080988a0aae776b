"""`[tool.verifier]` and `verifier.toml` as a user has them: what a command takes from there, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from user_adapters import FEW

from verifier import record
from verifier.checks.superseded import SUPERSEDED
from verifier.judging.outcome import Verdict


@pytest.fixture
def configure(tmp_path, monkeypatch, folder):
    """Writes a `verifier.toml` into a folder in which the user's adapters are too, and goes there."""

    def write(text: str) -> Path:
        (tmp_path / "mine.py").write_text((folder / "mine.py").read_text())
        (tmp_path / "verifier.toml").write_text(text)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return write


def first_line(path: Path) -> dict:
    return json.loads(path.read_text().splitlines()[0])


def test_a_run_with_no_arguments_is_the_configured_one(verifier, configure):
    folder = configure(
        f'family = "falcon"\nadapter = "mine:Right"\nonly = ["build.adapter"]\nwhere = ["{FEW}"]\nseed = 5\n'
        'workers = 1\ntimeout = "2m"\nmemory = "3G"\nout = "results"\ngate = ["upstream"]\n'
    )
    ended = verifier("run")
    assert ended.status == 0
    line = first_line(folder / "results" / record.FILE)
    assert (line["family"], line["adapter"], line["seed"], line["workers"]) == ("falcon", "mine:Right", 5, 1)
    assert line["limits"] == {"timeout": 120, "memory": 3 * 2**30}
    assert line["asked"]["only"] == ["build.adapter"]
    assert line["asked"]["where"] == [FEW]
    assert line["asked"]["gate"] == ["upstream"]


def test_the_command_line_wins(verifier, configure, tmp_path):
    configure(f'family = "tyo"\nadapter = "mine:Silent"\nonly = ["build"]\nwhere = ["{FEW}"]\nseed = 5\n')
    ended = verifier(
        *("run", "falcon", "--adapter", "mine:Right", "--only", "build.adapter", "--seed", 0, "--out", tmp_path / "o")
    )
    assert ended.status == 0
    line = first_line(tmp_path / "o" / record.FILE)
    assert (line["adapter"], line["seed"], line["asked"]["only"]) == ("mine:Right", 0, ["build.adapter"])


def test_a_configured_check_that_is_gone_is_said_to_be_its_observable(verifier, configure, monkeypatch):
    monkeypatch.setitem(SUPERSEDED, "toy.gone", [("forward.outputs", {"mask": "left"})])
    folder = configure('family = "falcon"\nadapter = "mine:Right"\nonly = ["toy.gone"]\n')
    now = "no check matches 'toy.gone' any more: toy.gone is now `--only forward.outputs --where mask=left`"
    for arguments in (("run",), ("run", "--only", "toy.gone")):
        ended = verifier(*arguments)
        assert ended.status == 2
        assert now in ended.line
    assert not (folder / "reports").exists()


def test_each_configured_adapter_is_run(verifier, configure):
    folder = configure(
        f'family = "falcon"\nadapter = ["mine:Right", "mine:Silent"]\nonly = ["build"]\nwhere = ["{FEW}"]\n'
    )
    assert verifier("run").status == 1
    assert {path.name for path in (folder / "reports").iterdir()} == {"falcon-mine-Right", "falcon-mine-Silent"}


@pytest.mark.parametrize("command", ["run", "fuzz", "selftest"])
def test_a_family_must_be_named_somewhere(verifier, configure, command):
    configure("seed = 5")
    ended = verifier(command)
    assert ended.status == 2
    assert f"Missing argument 'FAMILY': `verifier {command} FAMILY`, or `family` in [tool.verifier]" in ended.line


@pytest.mark.parametrize("command", ["run", "fuzz", "selftest"])
def test_each_command_takes_the_configured_family(verifier, configure, command):
    folder = configure('family = "falcno"\nadapter = "mine:Right"')
    ended = verifier(command)
    assert ended.status == 2
    assert "unknown family 'falcno' (did you mean 'falcon'?)" in ended.line
    assert f"(`family` in {folder / 'verifier.toml'})" in ended.line


@pytest.mark.parametrize("command", ["fuzz", "selftest"])
def test_of_several_adapters_a_command_for_one_picks_none(verifier, configure, command):
    configure('family = "falcon"\nadapter = ["mine:Right", "mine:Silent"]')
    ended = verifier(command)
    assert ended.status == 2
    assert "names 2 adapters, and here one is wanted: give --adapter" in ended.line


@pytest.mark.slow
def test_the_folder_of_runs_is_none_of_campaigns(verifier, configure):
    folder = configure('family = "falcon"\nadapter = "mine:Right"\nonly = ["build.adapter"]\nout = "results"')
    verifier("fuzz", "--max-examples", 1, "--workers", 1)
    assert not (folder / "results").exists()
    assert (folder / "reports" / "falcon-mine-Right-fuzz" / record.FILE).exists()


def test_help_needs_no_configuration_that_is_right(verifier, configure):
    configure("seed = yes")
    assert verifier("run", "--help").status == 0
    assert verifier("run", "falcon").status == 2


def test_list_names_each_configured_adapter_as_the_default(verifier, configure):
    configure('adapter = ["bridge", "mine:Right"]')
    lines = verifier("list", "adapters").out.splitlines()
    assert "mine:Right" in lines
    assert sum("(the default here)" in line for line in lines) == 2


# --- baseline --------------------------------------------------------------------------------------------------------


def test_a_configured_baseline_is_read(verifier, configure):
    configure('family = "falcon"\nadapter = "mine:Right"\nbaseline = "known.toml"')
    ended = verifier("run")
    assert ended.status == 2
    assert "cannot read the baseline 'known.toml'" in ended.line
    assert "(`baseline` in " in ended.line


def test_a_configured_baseline_is_left_aside_where_that_is_asked_for(verifier, configure):
    configure(f'family = "falcon"\nadapter = "mine:Right"\nbaseline = "known.toml"\nwhere = ["{FEW}"]')
    assert verifier("run", "--no-baseline", "--only", "build.adapter").status == 0


def test_a_configured_baseline_of_another_adapter_is_left_aside_and_said_so(verifier, configure):
    folder = configure(f'family = "falcon"\nbaseline = "known.toml"\nwhere = ["{FEW}"]')
    (folder / "known.toml").write_text('schema = 1\nfamily = "falcon"\nadapter = "mine:Silent"\n')
    ended = verifier("run", "--adapter", "mine:Right", "--only", "build.adapter")
    assert ended.status == 0
    assert "the configured baseline 'known.toml' is of falcon × mine:Silent: not used" in ended.err
    assert verifier("run", "--adapter", "mine:Right", "--baseline", "known.toml").status == 2


def test_a_baseline_and_none_contradict_each_other(verifier, configure):
    configure("")
    ended = verifier("run", "falcon", "--baseline", "known.toml", "--no-baseline")
    assert ended.status == 2
    assert "--baseline and --no-baseline contradict each other" in ended.line


# --- gates -----------------------------------------------------------------------------------------------------------


def test_what_gates_is_said_and_kept(verifier, tmp_path):
    asked = (
        "run",
        "falcon",
        "--adapter",
        "mine:Right",
        "--where",
        FEW,
        "--only",
        "build.adapter",
        "--only",
        "qkv.rows",
    )
    assert verifier(*asked, "--out", tmp_path / "plain").status == 0
    ended = verifier(*asked, "--gate", "skip", "--out", tmp_path / "gated")
    skipped = sum(entry.outcome.verdict is Verdict.SKIP for entry in record.read(tmp_path / "gated").entries)
    assert ended.status == 1
    assert skipped == 4
    assert ended.out.splitlines()[-1].endswith("DOES NOT CONFORM (4 not applicable outcomes, which gate here)")
    assert record.read(tmp_path / "gated").end.exit == 1


def test_a_verdict_that_always_gates_is_no_gate(verifier):
    ended = verifier("run", "falcon", "--gate", "redcued")
    assert ended.status == 2
    assert "must be one of reduced, upstream, skip, not 'redcued' (did you mean 'reduced'?)" in ended.line
