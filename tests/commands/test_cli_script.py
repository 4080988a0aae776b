"""`verifier repro --script` and `--pytest`: files instead of a run."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import scripted_adapters
from user_adapters import FEW

from verifier import record
from verifier.judging.outcome import Verdict


@pytest.fixture(scope="module")
def silent(folder, tmp_path_factory):
    """The record of an adapter whose models give zeros, and which does not say how it is used."""
    from verifier import cli

    place = tmp_path_factory.mktemp("silent")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["run", "falcon", "--adapter", "mine:Silent", "--where", FEW, "--only", "forward.logits"]
        assert cli.main([*arguments, "--out", str(place)]) == 1
    return place


@pytest.fixture(scope="module")
def fingerprint(silent):
    return next(entry.fingerprint for entry in record.read(silent).entries if entry.fingerprint)


def test_a_file_and_a_test_are_written_and_nothing_is_run(verifier, silent, fingerprint, tmp_path):
    files = [tmp_path / "shown.py", tmp_path / "test_shown.py"]
    ended = verifier("repro", fingerprint, silent, "--adapter", "bridge", "--script", files[0], "--pytest", files[1])
    assert ended.status == 0
    assert ended.out.splitlines() == [str(file) for file in files]
    assert ended.err == ""
    assert "def test_forward_logits():" in files[1].read_text()
    assert files[0].read_text().endswith("    reproduce()\n")


def test_a_case_is_written_to_the_standard_output(verifier, silent):
    case = next(entry.case for entry in record.read(silent).entries if entry.fingerprint)
    ended = verifier("repro", case, silent, "--adapter", "bridge", "--script", "-")
    assert ended.status == 0
    assert "from verifier_bridge import Bridge\n" in ended.out
    ast.parse(ended.out)


def test_an_adapter_that_does_not_say_how_it_is_used_is_run_by_the_harness(
    verifier, silent, fingerprint, tmp_path, in_folder, capsys
):
    ended = verifier("repro", fingerprint, silent, "--script", tmp_path / "shown.py")
    assert ended.status == 0
    assert ended.line.startswith("verifier: it needs `verifier`: the adapter does not say how its library is used")
    namespace: dict[str, object] = {"__name__": "shown"}
    exec(compile((tmp_path / "shown.py").read_text(), "shown.py", "exec"), namespace)
    with pytest.raises(AssertionError, match=r"it fails: \['forward.logits'\]"):
        namespace["reproduce"]()  # type: ignore[operator]
    assert capsys.readouterr().out.startswith("forward.logits fail logits ")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--script", "nowhere/shown.py"), "cannot write 'nowhere/shown.py': it is in 'nowhere', which is no folder"),
        (("--pytest", "."), "cannot write '.': it is a folder"),
        (("--script", "-", "--pdb"), "--pdb stops where a case is run, and --script and --pytest run none"),
        (("--pytest", "a.py", "--pdb"), "--pdb stops where a case is run, and --script and --pytest run none"),
        (("--script", "-", "--pytest", "-"), "--script and --pytest are two files, not both '-'"),
        (("--script", "a.py", "--adapter", "brigde"), "unknown adapter 'brigde' (did you mean 'bridge'?)"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(verifier, silent, fingerprint, options, line):
    ended = verifier("repro", fingerprint, silent, *options)
    assert ended.status == 2
    assert line in ended.line
    assert ended.out == ""


def test_a_death_is_shown_by_no_script(verifier, tmp_path):
    verifier("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "mine:Quits", "--out", tmp_path)
    crash = next(entry for entry in record.read(tmp_path).entries if entry.outcome.verdict is Verdict.CRASH)
    ended = verifier("repro", crash.fingerprint, tmp_path, "--script", tmp_path / "shown.py")
    assert ended.status == 2
    assert "no script can show a crash" in ended.line
    assert not (tmp_path / "shown.py").exists()


@pytest.mark.slow
def test_a_wrong_hook_is_found_and_written_as_a_file_that_fails_until_it_is_right(verifier, tmp_path, monkeypatch):
    beside = str(Path(scripted_adapters.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", beside)  # the workers', and the file's
    adapter = "scripted_adapters:NextHeadsAdapter"
    ended = verifier(
        "run", "falcon", "--adapter", adapter, "--where", FEW, "--only", "hooks.values", "--out", tmp_path / "run"
    )
    assert ended.status == 1
    (fingerprint,) = {entry.fingerprint for entry in record.read(tmp_path / "run").entries if entry.fingerprint}
    for library, status in ((adapter, 1), ("bridge", 0)):
        file = tmp_path / f"shown_{status}.py"
        ended = verifier("repro", fingerprint, tmp_path / "run", "--adapter", library, "--script", file)
        assert (ended.status, ended.err) == (0, "")
        assert "import verifier" not in file.read_text()
        ran = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == status, ran.stderr
        assert "rms difference" in ran.stdout
        assert ("AssertionError: the adapter's activation is not Hugging Face's" in ran.stderr) == bool(status)
