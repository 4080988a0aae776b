"""What checks there are is read without importing them, and it is what the modules define."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from verifier import checks
from verifier.engine import catalogue
from verifier.errors import ImportFailed, UsageError

KNOWN = catalogue.describe_checks(checks.own_checks())

READABLE = '''
from verifier.checks import check
raise RuntimeError("imported")
@check("theirs.plain")
def plain(case):
    """It holds.

    A failure means that it does not.
    """
@check("theirs.dear", needs=["hooks"], applies="sampled", subject=False)
def dear(case):
    """It is dear."""
'''
COMPUTED = """
from verifier.checks import check
def make(name):
    def run(case):
        "It holds."
    return check(f"theirs.{name}")(run)
plain = make("plain")
"""
OTHER_DECORATOR = """
from verifier import checks
def check(name):
    return checks.check("theirs.plain")
@check("not.its.id")
def plain(case):
    "It holds."
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a package with the source of a module of checks, registered by their functions' names."""

    def installed(source: str, *names: str) -> None:
        package = tmp_path / "outside_checks"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "theirs.py").write_text(source)
        info = tmp_path / "outside_checks-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-checks\nVersion: 1\n")
        points = "".join(f"{name} = outside_checks.theirs:{name}\n" for name in names)
        (info / "entry_points.txt").write_text(f"[verifier.checks]\n{points}")
        monkeypatch.syspath_prepend(str(tmp_path))

    yield installed
    for name in ("outside_checks", "outside_checks.theirs"):
        sys.modules.pop(name, None)


def test_what_is_read_is_what_is_defined() -> None:
    assert catalogue.registered() == KNOWN


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


def test_checks_of_third_parties_are_read_where_they_can_be(install) -> None:
    install(READABLE, "dear", "plain")
    dear, plain = catalogue.registered()[len(KNOWN) - 1 : -1]
    assert (dear.id, dear.doc, dear.applies) == ("theirs.dear", "It is dear.", "sampled")
    assert (plain.id, plain.applies) == ("theirs.plain", "valid")
    assert plain.doc == "It holds. A failure means that it does not."
    assert "outside_checks" not in sys.modules
    with pytest.raises(UsageError, match=r"no check matches 'theirs\.misspelt'"):
        catalogue.require_known(["theirs.misspelt"])


@pytest.mark.parametrize("source", [COMPUTED, OTHER_DECORATOR])
def test_those_that_cannot_be_read_are_imported_where_they_are_listed_alone(install, source: str) -> None:
    install(source, "plain")
    catalogue.require_known(["theirs.misspelt"])
    assert "outside_checks" not in sys.modules
    assert [one.id for one in catalogue.registered()] == [*(one.id for one in KNOWN[:-1]), "theirs.plain", KNOWN[-1].id]
    assert "outside_checks.theirs" in sys.modules


def test_an_id_that_another_check_has_is_refused(install) -> None:
    install(READABLE.replace("theirs.plain", "qkv.rows"), "plain")
    with pytest.raises(ImportFailed, match=r"check 'plain' has the id 'qkv\.rows', which another one has"):
        catalogue.registered()
