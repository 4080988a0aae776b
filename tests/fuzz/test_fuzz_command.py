"""`verifier fuzz` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from verifier import cli, record
from verifier.analysis.bugs import find_bugs
from verifier.fuzz import kept, remembered
from verifier.fuzz.remembered import Remembered


@pytest.fixture
def command(in_folder, capsys, monkeypatch):
    """The command, run in this process; its status, and what it said."""
    monkeypatch.setenv("COLUMNS", "140")

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


FEW = ("fuzz", "falcon", "--only", "forward.logits", "--where", "bias=true", "--workers", 1, "--max-examples", 8)


@pytest.mark.slow
def test_a_failure_is_shown_at_its_minimal_case_and_kept(command, tmp_path, in_folder, falcons):
    arguments = (*FEW, "--adapter", "fuzzed:Mended", "--out", tmp_path)
    status, out, err = command(*arguments)
    assert status == 1
    assert "shrunk     after 1 case, shrunk in" in out
    assert "it came again 2 of 2 times in fresh processes" in out
    assert "1 failure" in err
    (found,) = find_bugs(record.read(tmp_path), upstream=False)
    assert found.shrunk is not None
    assert found.shrunk.case == found.smallest.id
    assert found.evidence is not None
    assert "it came again 2 of 2 times" in (tmp_path / "report.html").read_text()
    (before,) = kept.read(tmp_path / kept.FOLDER)
    assert (before.fingerprint, before.spec.id) == (found.fingerprint, found.smallest.id)
    plainest = falcons(bias="true").plainest
    sizes = [len(field.values) for field in falcons(bias="true").fields]
    assert Remembered(tmp_path / remembered.FOLDER).of(found.fingerprint, sizes) == (plainest,)

    status, out, _ = command(*arguments)
    assert status == 1
    assert "kept from before: 1 still failing" in out
    assert "it was kept from before" in out
    (in_folder / "mended").touch()
    status, out, _ = command(*arguments)
    (in_folder / "mended").unlink()
    assert status == 0
    assert "kept from before: 1 fixed" in out
    assert f"{before.fingerprint} forward.logits: fixed ({tmp_path / kept.FOLDER}/{before.fingerprint}.json)" in out


@pytest.mark.slow
def test_a_failure_that_was_found_can_be_reproduced(command, tmp_path):
    command(*FEW, "--adapter", "fuzzed:Mended", "--out", tmp_path)
    (found,) = find_bugs(record.read(tmp_path), upstream=False)
    status, out, _ = command("repro", found.fingerprint, tmp_path)
    assert status == 1
    assert "it still fails" in out


@pytest.mark.slow
def test_a_right_adapter_conforms(command, tmp_path):
    status, out, err = command(*FEW, "--adapter", "fuzzed:Right", "--out", tmp_path)
    assert status == 0
    assert out.splitlines()[-1].startswith("falcon × fuzzed:Right (right 1): CONFORMS")
    assert "8 cases" in err
    assert not (tmp_path / kept.FOLDER).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--where", "alibbi=true"), "there is no field 'alibbi' to fuzz (did you mean 'alibi'?)"),
        (("--where", "alibi=perhaps"), "alibi has no value 'perhaps' to fuzz"),
        (("--only", "qvk"), "no check matches 'qvk'"),
        (("--time", "soon"), "must be a duration"),
        (("--max-examples", "0"), "must be a whole number from 1, not '0'"),
        (("--adapter", "nobody"), "nobody"),
    ],
)
def test_a_wrong_command_line_is_one_line(command, arguments, said):
    status, out, err = command("fuzz", "falcon", *arguments)
    assert status == 2
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_kept_case_that_is_broken_is_one_line(command, tmp_path):
    folder = tmp_path / kept.FOLDER
    folder.mkdir()
    (folder / "abcdefgh.json").write_text("{")
    status, _, err = command(*FEW, "--adapter", "fuzzed:Right", "--out", tmp_path)
    assert status == 2
    assert "is no kept case" in err
    assert len(err.splitlines()) == 1


def test_a_kept_case_that_was_edited_wrongly_is_one_line(command, tmp_path):
    case = {"family": "falcon", "config": {}, "batch": "5"}
    folder = tmp_path / kept.FOLDER
    folder.mkdir()
    (folder / "abcdefgh.json").write_text(
        json.dumps({"fingerprint": "abcdefgh", "check": "forward.logits", "differs": {}, "case": case})
    )
    status, out, err = command(*FEW, "--adapter", "fuzzed:Right", "--out", tmp_path)
    assert (status, out) == (2, "")
    assert "is no kept case: the file's `case.batch` must be a whole number, not '5'; remove it, or mend it" in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_ends_an_endless_campaign_with_what_was_found(in_folder, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "verifier", *map(str, FEW[:-2]), "--adapter", "fuzzed:Right", "--out", str(tmp_path)],
        cwd=in_folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            path = tmp_path / record.FILE
            if path.exists() and path.read_text().count('"kind": "done"') >= 5:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "CONFORMS" in out
    last = json.loads((tmp_path / record.FILE).read_text().splitlines()[-1])
    assert (last["kind"], last["stop"]) == ("end", "complete")


def test_an_adapter_that_cannot_be_imported_is_one_line(command, tmp_path, in_folder):
    (in_folder / "broken_adapter.py").write_text("raise RuntimeError('no')\n")
    status, _, err = command(*FEW, "--adapter", "broken_adapter:Adapter", "--out", tmp_path)
    assert status == 3
    assert "raised at import: RuntimeError: no" in err.splitlines()[-1]
