"""What checks there are is told without importing them, and it is what the modules define."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from verifier import checks, plugins
from verifier.checks import Check
from verifier.engine import catalogue
from verifier.errors import UsageError

KNOWN = catalogue.infos(checks.ours())


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checks' sources and the catalogue in a folder in which they may be changed."""
    for path in (*catalogue.FILE.parent.glob("*.py"), catalogue.FILE):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(catalogue, "FILE", tmp_path / catalogue.FILE.name)
    return tmp_path


def test_what_is_written_down_is_what_is_defined() -> None:
    found = json.loads(catalogue.FILE.read_text(encoding="utf-8"))["checks"]
    due = "the checks were changed: `python -m verifier.engine.catalogue` writes them down"
    assert found == [check.to_json() for check in KNOWN], due
    assert catalogue._written.__wrapped__() == KNOWN, due


def test_nothing_is_imported_for_it() -> None:
    asked = (
        "import sys\nfrom verifier.engine import catalogue\nassert catalogue.select(['qkv'])\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'transformers', 'numpy')])"
    )
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("patterns", [[], ["qkv"], ["*.logits", "hooks.values"]])
def test_it_selects_as_the_checks_are(patterns: list[str]) -> None:
    assert [one.id for one in catalogue.select(patterns)] == [one.id for one in checks.select(patterns)]


def test_a_name_in_an_area_that_there_is_must_be_one() -> None:
    with pytest.raises(UsageError, match=r"no check matches 'qkv\.row' \(did you mean 'qkv\.rows'\?\)"):
        catalogue.require_known(["qkv.row"])


def test_what_was_written_of_other_sources_is_not_believed(copied: Path) -> None:
    assert catalogue._written.__wrapped__() == KNOWN
    (copied / "qkv.py").write_text("# nothing is left of it\n")
    assert catalogue._written.__wrapped__() is None


@pytest.mark.parametrize("broken", ["", "[]", '{"sources": 1}'])
def test_what_cannot_be_read_is_not_needed(copied: Path, broken: str) -> None:
    catalogue.FILE.write_text(broken)
    assert catalogue._written.__wrapped__() is None
    catalogue.FILE.unlink()
    assert catalogue._written.__wrapped__() is None
    catalogue.write()
    assert catalogue._written.__wrapped__() == KNOWN


def test_checks_of_third_parties_are_imported_where_they_are_listed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Check(id="theirs.check", run=checks.ours()[0].run, needs=frozenset(), applies="valid", subject=True)
    loaded: list[str] = []

    def load(name: str, **_: object) -> Check:
        loaded.append(name)
        return theirs

    monkeypatch.setattr(plugins, "names", lambda group: ["theirs"])
    monkeypatch.setattr(plugins, "load", load)
    catalogue.require_known(["theirs.misspelt"])
    assert loaded == []
    assert [one.id for one in catalogue.registered()] == [*(one.id for one in KNOWN), "theirs.check"]
    assert loaded == ["theirs"]
