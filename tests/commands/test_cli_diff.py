"""`verifier diff`: a run before a change of an adapter and one after it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from user_adapters import FEW

from verifier import cli, record

CHANGED = """
from mine import Subject

class Right:
    name = "changed"
    version = "1.0"
    def wrap(self, model):
        return Subject(model)

class Wrong(Right):
    version = "1.1"
    def wrap(self, model):
        if model.config.bias:
            raise RuntimeError("cannot wrap a bias")
        return Subject(model)
"""


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory):
    """The records of an adapter before a change and after it, and what else a user might compare."""
    (folder / "changed.py").write_text(CHANGED)
    place = tmp_path_factory.mktemp("runs")

    def run(name, adapter, *more, where=FEW, only="build"):
        arguments = ["run", "falcon", "--adapter", adapter, "--where", where, "--only", only, "--workers", "1"]
        return cli.main([*arguments, *more, "--out", str(place / name)])

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("right", "changed:Right") == 0
        assert run("wrong", "changed:Wrong") == 1
        assert run("narrow", "changed:Right", only="build.adapter") == 0
        assert run("seed", "changed:Right", "--seed", "1") == 0
    return place


def test_what_a_change_broke_is_told_with_its_rule_and_the_line_that_shows_it(verifier, runs):
    ended = verifier("diff", runs / "right", runs / "wrong")
    assert (ended.status, ended.err) == (1, "")
    fingerprint = next(one.fingerprint for one in record.read(runs / "wrong").entries if one.fingerprint)
    for needed in (
        "adapter            changed:Right → changed:Wrong",
        "adapter's version  changed 1.0 → changed 1.1",
        "build.adapter  ERROR  2 cases",
        "RuntimeError: cannot wrap a bias",
        "bias (broken 2 of 2, passes 2 of 2)",
        "alibi=true num_ln_in_parallel_attn=1 bias=true",
        f"verifier repro {fingerprint} {runs / 'wrong'}",
        "blocked by build.adapter",
    ):
        assert needed in ended.out
    assert ended.out.splitlines()[-1].startswith("OLD → NEW: BROKEN (1 bug in 2 cases; ")


def test_the_line_that_it_gives_shows_the_failure_again(verifier, runs):
    told = verifier("diff", runs / "right", runs / "wrong").out
    (line,) = [line for line in told.splitlines() if "verifier repro" in line]
    ended = verifier(*line.split()[2:])
    assert (ended.status, ended.out.splitlines()[-1]) == (1, "it still fails")


def test_what_a_change_mended_is_told_and_conforms(verifier, runs):
    ended = verifier("diff", runs / "wrong" / record.FILE, runs / "right")
    assert (ended.status, ended.err) == (0, "")
    assert "Mended\n  1  build.adapter  ERROR  2 cases" in ended.out
    assert ended.out.splitlines()[-1] == "OLD → NEW: NOTHING BROKEN"


def test_the_same_run_twice_differs_in_nothing(verifier, runs):
    for name in ("right", "wrong"):
        ended = verifier("diff", runs / name, runs / name)
        assert (ended.status, ended.out.splitlines()[-1]) == (0, "OLD → NEW: NOTHING BROKEN")


def test_a_run_that_looks_at_less_is_inconclusive(verifier, runs):
    ended = verifier("diff", runs / "right", runs / "narrow")
    assert ended.status == 4
    assert re.search("^asked: only +build → build.adapter$", ended.out, re.MULTILINE)
    assert "NEW did not run the check" in ended.out
    assert ended.out.splitlines()[-1].startswith("OLD → NEW: INCONCLUSIVE (")
    assert verifier("diff", runs / "narrow", runs / "right").status == 0


def test_a_run_that_was_cut_off_is_inconclusive(verifier, runs, tmp_path):
    lines = (runs / "right" / record.FILE).read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[:-1]))
    ended = verifier("diff", runs / "right", tmp_path / "cut.jsonl")
    assert ended.status == 4
    assert ended.out.splitlines()[-1] == "OLD → NEW: INCONCLUSIVE (NEW was cut off)"


def test_json_goes_into_a_file_beside_the_terminal_or_alone_to_the_standard_output(verifier, runs, tmp_path):
    path = tmp_path / "new" / "diff.json"
    ended = verifier("diff", runs / "right", runs / "wrong", "--json", path)
    assert ended.status == 1
    assert ended.out == verifier("diff", runs / "right", runs / "wrong").out
    alone = verifier("diff", runs / "right", runs / "wrong", "--json", "-")
    assert (alone.status, alone.out) == (1, path.read_text())
    (broken,) = json.loads(alone.out)["broken"]
    failing = [one.case for one in record.read(runs / "wrong").entries if one.outcome.verdict.gates]
    assert broken["cases"] == sorted(failing)


def test_markdown_goes_to_the_standard_output_or_into_a_file(verifier, runs, tmp_path):
    shown = verifier("diff", runs / "right", runs / "wrong", "--format", "markdown")
    assert shown.status == 1
    assert shown.out.startswith("## falcon: BROKEN (1 bug in 2 cases; ")
    path = tmp_path / "comment.md"
    arguments = ("diff", runs / "right", runs / "wrong", "--format", "markdown", "--out", path)
    assert verifier(*arguments).out == f"{path}\n"
    assert path.read_text() == shown.out
    assert json.loads(verifier(*arguments, "--json", "-").out)["exit"] == 1  # and no name of a file in it


def test_a_reader_who_has_seen_enough_changes_no_status(runs):
    command = [sys.executable, "-m", "verifier", "diff", str(runs / "right"), str(runs / "wrong")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(), said) == (1, b"")


# --- what is wrong with the command line or with a record -------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["right"], "Missing argument 'NEW'"),
        (["right", "nowhere"], "cannot read the record 'nowhere"),
        (["nowhere", "right"], "cannot read the record 'nowhere"),
        (["right", "seed"], "have no case in common: seed is 0 in OLD and 1 in NEW"),
        (["right", "wrong", "--format", "markdwon"], "(did you mean 'markdown'?)"),
        (["right", "wrong", "--out", "x.md"], "give --format markdown with it"),
        (["right", "wrong", "--format", "markdown", "--json", "-"], "both want the standard output"),
        (["right", "wrong", "--format", "markdown", "--out", "x", "--json", "x"], "are two files, not both 'x'"),
        (["right", "wrong", "--json", "right/record.jsonl/below"], "cannot write the report"),
        (["right", "wrong", "--jsno", "x"], "--json"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(verifier, runs, monkeypatch, arguments, said):
    monkeypatch.chdir(runs)
    ended = verifier("diff", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.line


def test_records_of_two_families_are_told_in_one_line(verifier, runs, tmp_path):
    lines = (runs / "right" / record.FILE).read_text().splitlines(keepends=True)
    first = {**json.loads(lines[0]), "family": "bird"}
    (tmp_path / record.FILE).write_text(json.dumps(first) + "\n" + "".join(lines[1:]))
    ended = verifier("diff", runs / "right", tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert "is of the family 'falcon' and" in ended.line
    assert "of 'bird': only records of one family can be compared" in ended.line


def test_a_file_that_is_no_record_is_told_in_one_line(verifier, runs, tmp_path):
    for content, said in ((b"", "it is empty"), (b"\x00\xff\n", "not UTF-8"), (b"[]\n", "not an object")):
        (tmp_path / "strange").write_bytes(content)
        ended = verifier("diff", runs / "right", tmp_path / "strange")
        assert (ended.status, ended.out) == (2, "")
        assert said in ended.line
