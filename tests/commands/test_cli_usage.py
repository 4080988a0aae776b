"""A wrong command line: one line that says what would be right, status 2, and no time lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "hypothesis", "rich", "jinja2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu", "falcon"], "unknown command 'rnu' (did you mean 'run'?)"),
        (["run"], "Missing argument 'FAMILY'"),
        (["run", "falcno"], "unknown family 'falcno' (did you mean 'falcon'?)"),
        (["run", "falcon", "--adapter", "brigde"], "unknown adapter 'brigde' (did you mean 'bridge'?)"),
        (["run", "falcon", "--adapter", "mein:Right"], "no module 'mein'"),
        (["run", "falcon", "--adapter", "mine:"], "'mine:' is no module:object"),
        (["run", "falcon", "--only", "bulid", "--adapter", "mine:Right"], "'bulid' (did you mean 'build'?)"),
        (["run", "falcon", "--adapter", "mine:Wright"], "'mine' has no 'Wright' (did you mean 'Right'?)"),
        (
            ["run", "falcon", "--adapter", "mine:Unnamed"],
            "'mine:Unnamed' is no adapter: it has no `name` and no `version`",
        ),
        (["run", "falcon", "--adapter", "mine:os"], "'mine:os' is no adapter: it is a module"),
        (["run", "falcon", "--where", "alibbi=true"], "no flag, dim or axis 'alibbi' (did you mean 'alibi'?)"),
        (["run", "falcon", "--where", "alibi=perhaps"], "no case has alibi=perhaps"),
        (["run", "falcon", "--where", "dtpye=bfloat16"], "no flag, dim or axis 'dtpye' (did you mean 'dtype'?)"),
        (["run", "falcon", "--where", "mask=lefft"], "mask has no value 'lefft' (did you mean 'left'?); it is one of"),
        (["run", "falcon", "--quick", "--everywhere"], "--quick and --everywhere contradict each other"),
        (["run", "falcon", "--quick", "--preset", "falcon-7b"], "--quick and --preset both say what to run"),
        (["run", "falcon", "--quick", "--cases", "mine.py"], "--quick and --cases both say what to run"),
        (["run", "falcon", "--where", "alibi"], "'alibi' is not flag=value"),
        (["run", "falcon", "--where", "alibi=true", "--where", "alibi=false"], "names 'alibi' twice"),
        (["run", "falcon", "--preset", "falcon-40a"], "no preset 'falcon-40a' (did you mean 'falcon-40b'?)"),
        (["run", "falcon", "--dtype", "bfloat61"], "(did you mean 'bfloat16'?)"),
        (["run", "falcon", "--devise", "cpu"], "--device"),
        (
            ["run", "falcon", "--device", "cpuu", "--workers", "1", "--adapter", "mine:Right"],
            "device 'cpuu' cannot be used here",
        ),
        pytest.param(
            ["run", "falcon", "--device", "meta", "--workers", "1", "--adapter", "mine:Right"],
            "device 'meta' cannot be used here",
            marks=pytest.mark.slow,  # its worker is no fork, and imports torch for itself
        ),
        (
            ["run", "falcon", "--timeout", "soon"],
            "a duration (a number and one of s, m, h, as in 90s), not 'soon'",
        ),
        (["run", "falcon", "--memory", "4X"], "must be a size (a number and one of k, m, g, t, as in 4G), not '4X'"),
        (["run", "falcon", "--no-isolation", "--workers", "2"], "it goes with --workers 1 alone"),
        (["run", "falcon", "--pdb", "--timeout", "3"], "not with --no-isolation or --pdb"),
        (["run", "falcon", "--cases", "nowhere"], "cannot read the cases 'nowhere'"),
        (["run", "falcon", "--cases", "mine.py", "--where", "alibi=true"], "--cases and --where both say what to run"),
        (
            ["run", "falcon", "--cases", "mine.py", "--seed", "3"],
            "--seed says nothing here: each of --cases has its own",
        ),
        (["run", "falcon", "--cases", "mine.py", "--dtype", "float32"], "--dtype says nothing here"),
        (["run", "falcon", "--cases", "mine.py", "--device", "cpu"], "--device says nothing here"),
        (["run", "falcon", "--adapter", "__main__:Right"], "no other process can import __main__"),
        (
            ["run", "falcon", "--adapter", "./mine.py:Right"],
            "'./mine.py' is no module's name; of a file here it is mine:R",
        ),
        (["run", "falcon", "--adapter", ".mine:Right"], "'.mine' is no module's name"),
        (["run", "falcon", "--memory", "9" * 40 + "T"], "is more than any size"),
        (["run", "falcon", "--timeout", "9" * 400], "is more than any duration"),
        (["run", "falcon", "--checkpoint", "~nosuchuser/model"], "--checkpoint '~nosuchuser/model'"),
        (["run", "falcon", "--workers", "0"], "Invalid value for '--workers'"),
        (["run", "falcon", "--seed", "-1"], "Invalid value for '--seed'"),
        (["run", "falcon", "--out", "mine.py"], "cannot write a record into 'mine.py'"),
        (["run", "falcon", "--out", "mine.py/below"], "cannot write a record into 'mine.py/below'"),
        (["repro", "aaaaaaaa"], "there is no record under reports/ here"),
        (["repro", "aaaaaaaa", "nowhere"], "cannot read the record 'nowhere'"),
        (["report", "mine.py"], "mine.py line 1: not JSON"),
        (["report"], "Missing argument 'RECORD…'"),
        (["selftest", "falcno"], "falcno"),
        (["list", "hoks"], "(did you mean 'hooks'?)"),
        (["list", "adapters", "falcon"], "`list adapters` takes no family"),
        (["list", "presets", "falcno"], "(did you mean 'falcon'?)"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(verifier, arguments, said):
    ended = verifier(*arguments)
    assert ended.status == 2
    assert ended.line.startswith("verifier: ")
    assert said in ended.line
    assert ended.out == ""


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    script = f"import os, sys\nos.chdir({str(tmp_path)!r})\nos.rmdir({str(tmp_path)!r})\n"
    script += "from verifier.cli import main\nsys.exit(main(['run', 'falcon']))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "verifier: the current folder is not there any more: change into one that is\n"


def test_a_file_that_is_in_the_way_of_the_record_is_kept(verifier, tmp_path):
    (tmp_path / "record.jsonl").write_text('{"kind": "shopping list"}\n')
    ended = verifier("run", "falcon", "--adapter", "mine:Right", "--out", tmp_path)
    assert ended.status == 2
    assert "is in the way" in ended.line
    assert (tmp_path / "record.jsonl").read_text() == '{"kind": "shopping list"}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["record.jsonl"]


def test_without_a_command_there_is_help(verifier):
    ended = verifier()
    assert ended.status == 2
    assert "Commands:" in ended.out


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('adaptor = "mine:Right"', "unknown key 'adaptor' (did you mean 'adapter'?)"),
        ("adapter = 3", "`adapter` in [tool.verifier] must be a list"),
        ('adapter = "mine:Right', "cannot be read"),
        ('out = "~nosuchuser/reports"', "`out` in [tool.verifier]: Could not determine home directory"),
        ('baseline = "known\\u0000.toml"', "`baseline` in [tool.verifier] must be a path"),
    ],
)
def test_a_wrong_configuration_is_told_with_its_file(verifier, tmp_path, monkeypatch, section, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(f"[tool.verifier]\n{section}\n")
    ended = verifier("run", "falcon")
    assert ended.status == 2
    assert str(tmp_path / "pyproject.toml") in ended.line
    assert said in ended.line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["list", "--help"],
        ["run"],
        ["run", "falcno"],
        ["run", "falcon", "--adapter", "brigde"],
        ["run", "falcon", "--only", "bulid"],
        ["run", "falcon", "--where", "alibi=perhaps"],
        ["run", "falcon", "--timeout", "soon"],
        ["fuzz", "falcon", "--workers", "0"],
        ["diff", "nowhere", "nowhere"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_to_help_or_to_refuse(tmp_path: Path, arguments):
    script = (
        "import json, sys\nfrom verifier.cli import main\nmain(sys.argv[1:])\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stderr.splitlines()[-1]) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("list", "checks")], ids=lambda arguments: arguments[0])
def test_output_that_nothing_can_take_is_one_line(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "verifier", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (3, "verifier: cannot print: No space left on device\n")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_stream_that_a_shell_has_closed_changes_no_status(closed):
    command = f"{sys.executable} -m verifier list checks {closed}"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_a_locale_cannot_print_is_spelt_out():
    command = [sys.executable, "-m", "verifier", "run", "no×family"]
    told = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "no\\xd7family" in ended.stderr
