"""`verifier run --changed-since`: only the adapters that something of was touched, and what is said of the others."""

from __future__ import annotations

import subprocess

import pytest
from user_adapters import FEW

from verifier import record

RUN = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--changed-since", "HEAD")
BOTH = ("--adapter", "mine:Right", "--adapter", "bridge", "--adapter", "other:Right")


@pytest.fixture
def project(tmp_path, monkeypatch, folder):
    """A repository with two modules of adapters, committed."""
    place = tmp_path.resolve()
    for name in ("mine", "other"):
        (place / f"{name}.py").write_text((folder / "mine.py").read_text())
    (place / ".gitignore").write_text("reports/\n")
    monkeypatch.chdir(place)
    for arguments in (["init"], ["add", "."], ["commit", "--message", "state"]):
        names = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        subprocess.run(["git", *names, *arguments], check=True, capture_output=True)
    return place


def test_where_nothing_was_touched_nothing_runs(verifier, project):
    ended = verifier(*RUN, *BOTH)
    assert ended.status == 0
    assert ended.out == ""
    assert ended.err.splitlines() == [
        "verifier: mine:Right: nothing that it is made of was touched since HEAD; not run",
        f"verifier: bridge: nothing that it is made of lies in {str(project)!r}; not run",
        "verifier: other:Right: nothing that it is made of was touched since HEAD; not run",
        "verifier: no adapter is to be run; nothing ran",
    ]
    assert not (project / "reports").exists()


def test_a_touched_adapter_runs_alone(verifier, project):
    with (project / "mine.py").open("a") as file:
        file.write("\n# touched\n")
    ended = verifier(*RUN, *BOTH, "--out", "reports/all")
    assert ended.status == 0
    assert "verifier: mine:Right: touched since HEAD: mine.py\n" in ended.err
    assert "verifier: other:Right: nothing that it is made of was touched" in ended.err
    assert ended.out.splitlines()[-1] == "falcon × mine:Right (right 1.0): CONFORMS: 4 of 4 looked at"
    # Its folder is the one that it has among the others.
    assert [path.name for path in (project / "reports" / "all").iterdir()] == ["falcon-mine-Right"]
    assert len(record.read(project / "reports" / "all" / "falcon-mine-Right").cases) == 4


@pytest.mark.slow
def test_a_touched_setting_touches_all_of_them(verifier, project):
    (project / "verifier.toml").write_text("seed = 3\n")
    ended = verifier(*RUN, "--adapter", "mine:Right", "--adapter", "other:Right")
    assert ended.status == 0
    assert ended.err.count("touched since HEAD: verifier.toml") == 2
    assert ended.out.count("CONFORMS") == 2


@pytest.mark.parametrize(
    ("revision", "said"),
    [("HEAD~7", "has no such revision"), ("--all", "has no such revision"), ("", "must be a text, not ''")],
)
def test_a_wrong_revision_is_told_in_one_line(verifier, project, revision, said):
    ended = verifier(*RUN[:-2], f"--changed-since={revision}", "--adapter", "mine:Right")
    assert ended.status == 2
    assert said in ended.line
    assert ended.out == ""


def test_a_folder_without_a_repository_is_told_in_one_line(verifier, tmp_path, monkeypatch, folder):
    (tmp_path / "mine.py").write_text((folder / "mine.py").read_text())
    monkeypatch.chdir(tmp_path)
    ended = verifier(*RUN, "--adapter", "mine:Right")
    assert ended.status == 2
    assert "is in no git repository with a working tree" in ended.line
