"""What build servers are given: shards, JUnit XML, GitHub's annotations and summary, and the gate of a report."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from user_adapters import FEW

from verifier import record

FORWARD = ("--only", "forward.logits", "--only", "build.adapter", "--workers", 1)
OF = 2


@pytest.fixture
def github(tmp_path, in_folder, monkeypatch):
    """A step of a job: its summary."""
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(in_folder))
    return summary


@pytest.fixture
def off_github(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)


@pytest.fixture
def shards(verifier, tmp_path):
    """Runs an adapter in shards; their folders."""

    def run(adapter, *numbers, of=OF):
        folders = []
        for number in numbers or range(1, of + 1):
            folder = tmp_path / f"{adapter}-{number}"
            ended = verifier(
                "run", "falcon", "--adapter", f"mine:{adapter}", "--where", FEW, *FORWARD, "--out", folder,
                "--shard", f"{number}/{of}",
            )  # fmt: skip
            assert ended.status in (0, 1), ended.err
            folders.append(folder)
        return folders

    return run


def _commands(out):
    return [line for line in out.splitlines() if line.startswith("::")]


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_tells_github_and_leaves_junit(verifier, tmp_path, in_folder, github):
    file = tmp_path / "new" / "junit.xml"
    github.write_text("what another command wrote\n")
    ended = verifier(
        "run", "falcon", "--adapter", "mine:Raises", "--adapter", "mine:Silent", "--where", FEW, *FORWARD,
        "--out", tmp_path / "out", "--github", "--junit", file,
    )  # fmt: skip
    assert ended.status == 1
    raised, silent = _commands(ended.out)
    assert raised.startswith("::error file=mine.py,line=")
    number = int(raised.partition("line=")[2].partition(",")[0])
    assert "raise RuntimeError" in (in_folder / "mine.py").read_text().splitlines()[number - 1]
    assert "build.adapter ERROR in 4 of 4 cases" in raised
    assert "\x1b" not in raised
    assert silent.startswith("::error title=forward.logits FAIL in 4 of 4 cases")
    root = ElementTree.parse(file).getroot()
    assert (root.attrib["failures"], root.attrib["errors"]) == ("1", "1")
    assert {case.attrib["classname"] for case in root.iter("testcase")} == {
        f"verifier.falcon.mine_{name}.{area}" for name in ("Raises", "Silent") for area in ("build", "forward")
    }
    summary = github.read_text()
    assert summary.startswith("what another command wrote\n## Side by side\n")
    assert summary.count("**DOES NOT CONFORM**") == 2


def test_a_run_that_conforms_leaves_nothing_red(verifier, tmp_path, off_github):
    ended = verifier(
        "run", "falcon", "--adapter", "mine:Right", "--where", FEW, *FORWARD, "--out", tmp_path, "--github",
        "--junit", tmp_path / "junit.xml",
    )  # fmt: skip
    assert ended.status == 0
    assert _commands(ended.out) == []
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert [root.attrib[name] for name in ("tests", "failures", "errors")] == ["2", "0", "0"]


def test_an_adapter_that_could_not_be_run_is_red(verifier, tmp_path, in_folder, github):
    (in_folder / "unimportable.py").write_text("raise RuntimeError('no')\n")
    run = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--junit", tmp_path / "j.xml", "--github")
    ended = verifier(*run, "--adapter", "mine:Right", "--adapter", "unimportable:X", "--out", tmp_path)
    assert ended.status == 3
    assert "::error title=BROKEN OFF (falcon × unimportable%3AX)::" in ended.out
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert root.attrib["errors"] == "1"
    (error,) = root.iter("error")
    assert "raised at import: RuntimeError: no" in error.attrib["message"]
    (tmp_path / "j.xml").unlink()
    assert verifier(*run, "--adapter", "unimportable:X", "--out", tmp_path / "alone").status == 3
    assert ElementTree.parse(tmp_path / "j.xml").getroot().attrib["errors"] == "1"


@pytest.mark.slow
def test_without_a_word_nothing_is_left(verifier, tmp_path, github):
    ended = verifier("run", "falcon", "--adapter", "mine:Silent", "--where", FEW, *FORWARD, "--out", tmp_path / "out")
    assert _commands(ended.out) == []
    assert not github.exists()


# --- shards ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_shard_says_which_it_is_and_goes_into_a_folder_of_its_own(verifier, in_folder):
    for number in (1, 2):
        ended = verifier("run", "falcon", "--adapter", "mine:Right", "--where", FEW, *FORWARD, "--shard", f"{number}/2")
        assert ended.status == 0
        found = record.read(in_folder / "reports" / f"falcon-mine-Right-{number}-of-2")
        assert found.run.asked["shard"] == f"{number}/2"
        assert len(found.cases) == sum(found.run.planned.values()) == 2


@pytest.mark.slow
def test_shards_of_cases_that_differ_in_dtype_are_one_run(verifier, tmp_path):
    config = {"hidden_size": 16, "num_attention_heads": 2, "vocab_size": 60, "num_hidden_layers": 1}
    lines = [{"family": "falcon", "config": config, "dtypes": dtypes} for dtypes in (["float32"], ["bfloat16"])]
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folders = [tmp_path / number for number in ("1", "2")]
    for folder in folders:
        shard = ("--shard", f"{folder.name}/2", "--out", folder)
        assert verifier("run", "falcon", "--cases", file, "--adapter", "mine:Right", *FORWARD, *shard).status == 0
    assert verifier("report", *folders, "--out", tmp_path / "report.html", "--gate").status == 0


@pytest.mark.slow
def test_shards_give_the_report_of_the_whole(verifier, shards, tmp_path):
    folders = shards("Silent")
    whole = verifier("run", "falcon", "--adapter", "mine:Silent", "--where", FEW, *FORWARD, "--out", tmp_path / "whole")
    assert whole.status == 1
    ended = verifier("report", *folders, "--format", "markdown")
    alone = verifier("report", tmp_path / "whole", "--format", "markdown")
    assert (ended.status, ended.err) == (0, "")

    def said(text):
        places = (*folders, tmp_path / "whole")
        for place in places:
            text = text.replace(str(place), "FOLDER")
        return [line for line in text.partition("<details>")[0].splitlines() if "put together" not in line and line]

    assert said(ended.out) == said(alone.out)


def test_a_shard_without_a_case_is_told(verifier, tmp_path):
    ended = verifier("run", "falcon", "--adapter", "mine:Right", "--where", FEW, "--out", tmp_path, "--shard", "5/5")
    assert (ended.status, ended.out) == (4, "")
    assert ended.line == (
        "verifier: shard 5/5 has no case: there are 4 to be dealt out, so that the last shard with one is 4/5; "
        "nothing ran"
    )


@pytest.mark.parametrize(("text", "said"), [("5/4", "the last of which is 4/4"), ("two", "must be I/N")])
def test_what_is_no_shard_is_told(verifier, text, said):
    ended = verifier("run", "falcon", "--shard", text)
    assert (ended.status, ended.out) == (2, "")
    assert "--shard" in ended.line
    assert said in ended.line


@pytest.mark.slow
def test_a_shard_is_resumed_as_that_shard_alone(verifier, shards, tmp_path):
    (folder,) = shards("Right", 1)
    again = ("run", "falcon", "--adapter", "mine:Right", "--where", FEW, *FORWARD, "--out", folder, "--resume")
    ended = verifier(*again, "--shard", "2/2")
    assert ended.status == 2
    assert "its shard is 1/2, and this one's 2/2" in ended.line
    assert verifier(*again, "--shard", "1/2").status == 0


def test_a_missing_shard_is_told_and_the_report_is_written(verifier, shards, tmp_path):
    folders = shards("Right", 1, 3, of=4)
    page = tmp_path / "report.html"
    ended = verifier("report", *folders, "--out", page, "--junit", tmp_path / "junit.xml")
    assert (ended.status, ended.out) == (4, f"{page}\n")
    assert ended.line == (
        "verifier: falcon × mine:Right: shards 2/4 and 4/4 are missing, and the report is of the others alone"
    )
    assert "INCONCLUSIVE" in page.read_text()
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().attrib["errors"] == "1"
    assert verifier("report", *folders, "--out", page, "--gate").status == 4


def test_a_shard_that_is_named_twice_is_told(verifier, shards, tmp_path):
    (folder,) = shards("Right", 1)
    ended = verifier("report", folder, folder, "--out", tmp_path / "report.html")
    assert ended.status == 2
    assert "are both shard 1/2 of the same run" in ended.line
    assert not (tmp_path / "report.html").exists()


# --- the gate of a report --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_gates_where_that_is_asked_for(verifier, shards, tmp_path):
    right, wrong = shards("Right"), shards("Silent")
    page = tmp_path / "report.html"
    assert verifier("report", *right, *wrong, "--out", page).status == 0
    assert verifier("report", *right, *wrong, "--out", page, "--gate").status == 1
    assert verifier("report", *right, "--out", page, "--gate").status == 0
    # What fails for certain comes before what is not known.
    assert verifier("report", right[0], *wrong, "--out", page, "--gate").status == 1
    assert verifier("report", right[0], *wrong, "--out", page).status == 4


@pytest.mark.slow
def test_a_report_tells_github(verifier, shards, tmp_path, github):
    folders = shards("Silent")
    ended = verifier("report", *folders, "--out", tmp_path / "report.html", "--github")
    (line,) = _commands(ended.out)
    assert line.startswith("::error title=forward.logits FAIL in 4 of 4 cases")
    assert "**DOES NOT CONFORM**" in github.read_text()


@pytest.mark.slow
def test_a_summary_that_is_full_is_told(verifier, shards, tmp_path, github):
    (folder,) = shards("Right", 1, of=1)
    github.write_bytes(b"x" * 2**20)
    ended = verifier("report", folder, "--out", tmp_path / "report.html", "--github")
    assert ended.status == 0
    assert "the step's summary is full" in ended.line
    assert github.stat().st_size == 2**20


def test_a_summary_that_cannot_be_written_is_told(verifier, shards, tmp_path, monkeypatch):
    (folder,) = shards("Right", 1, of=1)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary.md"))
    ended = verifier("report", folder, "--out", tmp_path / "report.html", "--github")
    assert ended.status == 2
    assert "cannot write the step's summary" in ended.line


@pytest.mark.slow
def test_github_is_told_though_the_xml_cannot_be_written(verifier, shards, tmp_path, github):
    (folder,) = shards("Silent", 1, of=1)
    (tmp_path / "file").write_text("")
    junit = tmp_path / "file" / "junit.xml"
    ended = verifier("report", folder, "--out", tmp_path / "report.html", "--github", "--junit", junit)
    assert ended.status == 2
    assert f"cannot write the report '{junit}'" in ended.line
    assert len(_commands(ended.out)) == 1
    assert "**DOES NOT CONFORM**" in github.read_text()
