"""What an adapter is made of is read off its imports, what was touched off git: in real small repositories."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from verifier.commands import changed_since
from verifier.engine import sources
from verifier.errors import UsageError

Write = Callable[..., None]


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which modules are found, and of which Python knows nothing any more afterwards."""
    place = tmp_path.resolve() / "tree"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    yield place
    sys.path_importer_cache.pop(str(place), None)


@pytest.fixture
def write(tree: Path) -> Write:
    """Writes files, by their path and content."""

    def put(files: dict[str, str]) -> None:
        for name, content in files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        sys.path_importer_cache.pop(str(tree), None)

    return put


@pytest.fixture
def commit(tree: Path, write: Write) -> Write:
    """The same, and what is there then is a commit."""

    def put(files: dict[str, str]) -> None:
        write(files)
        if not (tree / ".git").exists():
            git(tree, "init")
        git(tree, "add", "--all")
        git(tree, "commit", "--message", "state", "--allow-empty")

    return put


def made_of(tree: Path, name: str) -> set[str]:
    """The files that are there, of all that a module is made of."""
    found = sources.find_sources(name, lambda path: tree in path.parents)
    return {str(path.relative_to(tree)) for path in found.files if path.exists()}


def look(tree: Path, adapter: str = "mine:Adapter", family: str = "toy:Family", **more) -> changed_since.Touched:
    return changed_since.look(changed_since.since("HEAD", tree), family=family, adapter=adapter, **more)


# --- what a module is made of ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import helper",
        "import helper as other, json",
        "from helper import something",
        "from helper import *",
        "def later():\n    import helper",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helper",
        "try:\n    import helper\nexcept ImportError:\n    helper = None",
        "import importlib\nhelper = importlib.import_module('helper')",
        "from importlib import import_module\nhelper = import_module('helper')",
        "helper = __import__('helper')",
        "class One:\n    async def later(self):\n        from helper import x",
    ],
)
def test_an_import_counts_wherever_it_stands(tree, write, source):
    write({"mine.py": source, "helper.py": "", "other.py": ""})
    assert made_of(tree, "mine") == {"mine.py", "helper.py"}


def test_imports_are_followed_and_cycles_end(tree, write):
    write({"mine.py": "import a", "a.py": "import b", "b.py": "import a, mine, torch, no_such_module", "c.py": ""})
    assert made_of(tree, "mine") == {"mine.py", "a.py", "b.py"}


def test_nothing_is_imported_for_it(tree, write):
    write({"mine.py": "import loud", "loud.py": "raise SystemExit('imported')"})
    assert made_of(tree, "mine") == {"mine.py", "loud.py"}
    assert not {"mine", "loud"} & sys.modules.keys()


def test_packages_run_with_their_modules(tree, write):
    write(
        {
            "lib/__init__.py": "from . import first",
            "lib/first.py": "",
            "lib/second.py": "",
            "lib/deep/__init__.py": "from ..second import x",
            "lib/deep/third.py": "from .fourth import y\nfrom ... import beyond",
            "lib/deep/fourth.py": "",
            "lib/deep/fifth.py": "",
            "mine.py": "import lib.deep.third",
        }
    )
    assert made_of(tree, "mine") == {
        "mine.py",
        *("lib/__init__.py", "lib/first.py", "lib/second.py"),
        *("lib/deep/__init__.py", "lib/deep/third.py", "lib/deep/fourth.py"),
    }


def test_what_is_imported_from_a_package_may_be_a_module(tree, write):
    write({"lib/__init__.py": "", "lib/part.py": "", "lib/other.py": "", "mine.py": "from lib import part, constant"})
    assert made_of(tree, "mine") == {"mine.py", "lib/__init__.py", "lib/part.py"}


def test_packages_without_a_file_are_followed_in_all_their_places(tree, write, monkeypatch):
    write({"one/space/left.py": "", "two/space/right.py": "import space.left", "mine.py": "import space.right"})
    monkeypatch.setattr(sys, "path", [str(tree), str(tree / "one"), str(tree / "two"), *sys.path])
    assert made_of(tree, "mine") == {"mine.py", "one/space/left.py", "two/space/right.py"}


def test_a_name_that_is_computed_may_be_any_of_the_package(tree, write):
    code = "import importlib\ndef one(name): return importlib.import_module(f'lib.{name}')"
    write({"lib/__init__.py": code, "lib/a.py": "import outer", "lib/deep/b.py": "", "outer.py": "", "else.py": ""})
    assert made_of(tree, "lib") == {"lib/__init__.py", "lib/a.py", "lib/deep/b.py", "outer.py"}


def test_a_file_that_cannot_be_parsed_is_itself_alone(tree, write):
    write({"mine.py": "import broken, helper", "broken.py": "import other\ndef (:", "other.py": "", "helper.py": ""})
    found = sources.find_sources("mine", lambda path: tree in path.parents)
    assert made_of(tree, "mine") == {"mine.py", "broken.py", "helper.py"}
    assert found.unread == {tree / "broken.py"}


def test_what_lies_outside_is_not_followed(tree, write):
    write({"inside/mine.py": "import helper", "helper.py": "import inner", "inner.py": ""})
    found = sources.find_sources("inside.mine", lambda path: tree / "inside" in path.parents)
    assert {path.name for path in found.files if path.exists()} == {"mine.py"}


# --- what was touched ------------------------------------------------------------------------------------------------

PROJECT = {
    "mine.py": "import helper\nclass Adapter: ...",
    "helper.py": "",
    "other.py": "class Adapter: ...",
    "toy.py": "import toy_parts\nclass Family: ...",
    "toy_parts.py": "",
    "README.md": "",
    "packed/__init__.py": "",
    "packed/adapter.py": "class Adapter: ...",
    "packed/tables/one.json": "{}",
    "packed/unused.py": "",
}


def test_nothing_is_touched_where_nothing_was(tree, commit):
    commit(PROJECT)
    found = look(tree)
    assert not found.is_touched
    assert found.sentence == "mine:Adapter: nothing that it is made of was touched since HEAD; not run"


@pytest.mark.parametrize("file", ["mine.py", "helper.py", "toy.py", "toy_parts.py"])
def test_a_touched_file_touches_what_is_made_of_it(tree, commit, write, file):
    commit(PROJECT)
    write({file: PROJECT[file] + "\n# touched"})
    found = look(tree)
    assert found.is_touched
    assert found.sentence == f"mine:Adapter: touched since HEAD: {file}"


@pytest.mark.parametrize("file", ["other.py", "README.md", "packed/adapter.py", "new.py"])
def test_what_it_is_not_made_of_does_not_matter(tree, commit, write, file):
    commit(PROJECT)
    write({file: "# touched"})
    assert not look(tree).is_touched


def test_what_was_committed_since_counts_too(tree, commit):
    commit(PROJECT)
    commit({"helper.py": "# touched"})
    changes = changed_since.since("HEAD~1", tree)
    assert changed_since.look(changes, family="toy:Family", adapter="mine:Adapter").is_touched
    assert not look(tree).is_touched


def test_a_file_that_is_only_in_the_index_counts(tree, commit, write):
    commit(PROJECT)
    write({"helper.py": "# touched"})
    git(tree, "add", "--all")
    assert look(tree).is_touched


def test_a_file_that_git_does_not_know_yet_counts(tree, commit, write):
    commit({**PROJECT, "mine.py": "import newcomer\nclass Adapter: ..."})
    write({"newcomer.py": ""})
    assert look(tree).sentence.endswith("touched since HEAD: newcomer.py")


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("import helper", "helper.py"),
        ("from lib import part", "lib/part.py"),
        ("import lib.deep.part", "lib/deep/__init__.py"),
    ],
)
def test_a_file_that_is_gone_counts_where_it_is_still_imported(tree, commit, source, file):
    files = {
        "helper.py": "",
        "lib/__init__.py": "",
        "lib/part.py": "",
        "lib/deep/__init__.py": "",
        "lib/deep/part.py": "",
    }
    commit({**PROJECT, **files, "mine.py": source})
    (tree / file).unlink()
    found = look(tree)
    assert found.is_touched
    assert file in found.sentence


def test_a_renamed_file_counts_under_both_names(tree, commit, write):
    commit({**PROJECT, "helper.py": "x = 1\n" * 30})
    git(tree, "mv", "helper.py", "assistant.py")
    assert look(tree).sentence.endswith("touched since HEAD: helper.py")
    write({"mine.py": "import assistant\nclass Adapter: ..."})
    assert look(tree).sentence.endswith("touched since HEAD: assistant.py, mine.py")


@pytest.mark.parametrize("file", ["packed/tables/one.json", "packed/tables/new.bin"])
def test_data_in_the_adapters_package_counts(tree, commit, write, file):
    commit(PROJECT)
    write({file: "[]"})
    assert look(tree, "packed.adapter:Adapter").sentence.endswith(f"touched since HEAD: {file}")
    assert not look(tree).is_touched


def test_code_in_the_adapters_package_counts_only_where_it_is_imported(tree, commit, write):
    commit(PROJECT)
    write({"packed/unused.py": "# touched"})
    assert not look(tree, "packed.adapter:Adapter").is_touched


def test_what_python_compiles_is_no_data(tree, commit, write):
    commit(PROJECT)
    write({"packed/__pycache__/adapter.cpython-311.pyc": "", "packed/tables/__pycache__/x.pyc": ""})
    assert not look(tree, "packed.adapter:Adapter").is_touched


def test_a_file_that_cannot_be_parsed_counts_as_touched(tree, commit):
    commit({**PROJECT, "helper.py": "def (:"})
    found = look(tree)
    assert found.is_touched
    assert found.sentence.endswith("touched since HEAD: helper.py, which cannot be parsed")


def test_a_file_that_stands_beside_counts(tree, commit, write):
    commit({**PROJECT, "known.toml": ""})
    write({"known.toml": "# touched"})
    assert look(tree, beside=[Path("known.toml")]).sentence.endswith("touched since HEAD: known.toml")
    assert not look(tree).is_touched


def test_a_folder_that_stands_beside_counts_with_all_that_is_in_it(tree, commit, write):
    commit({**PROJECT, "model/config.json": "{}", "model/parts/first.bin": "", "model2/config.json": "{}"})
    write({"model2/config.json": "{} "})
    assert not look(tree, beside=[Path("model")]).is_touched
    write({"model/parts/first.bin": "x", "model/parts/second.bin": "y"})
    found = look(tree, beside=[Path("model")])
    assert found.sentence.endswith("touched since HEAD: model/parts/first.bin, model/parts/second.bin")


def test_what_git_ignores_and_stands_beside_may_have_been_touched(tree, commit, write):
    commit({**PROJECT, ".gitignore": "models/"})
    write({"models/config.json": "{}"})
    assert look(tree, beside=[Path("models")]).sentence.endswith("touched since HEAD: models, which git ignores")


def test_a_link_that_stands_beside_counts_and_what_it_leads_to(tree, commit, write):
    write({"kept/known.toml": "", "kept/other.toml": ""})
    (tree / "known.toml").symlink_to("kept/known.toml")
    commit(PROJECT)
    write({"kept/known.toml": "# touched"})
    assert look(tree, beside=[Path("known.toml")]).sentence.endswith("touched since HEAD: kept/known.toml")
    commit({})
    (tree / "known.toml").unlink()
    (tree / "known.toml").symlink_to("kept/other.toml")
    assert look(tree, beside=[Path("known.toml")]).sentence.endswith("touched since HEAD: known.toml")


def test_the_configuration_counts(tree, commit, write):
    commit({**PROJECT, "verifier.toml": "seed = 1"})
    write({"verifier.toml": "seed = 2"})
    assert look(tree).sentence.endswith("touched since HEAD: verifier.toml")
    (tree / "verifier.toml").unlink()
    assert look(tree).sentence.endswith("touched since HEAD: verifier.toml")


def test_many_files_are_counted(tree, commit, write):
    names = [f"part{number}" for number in range(5)]
    commit({**PROJECT, **{f"{name}.py": "" for name in names}, "mine.py": f"import {', '.join(names)}"})
    write({f"{name}.py": "# touched" for name in names})
    assert look(tree).sentence.endswith("part0.py, part1.py, part2.py and 2 more")


def test_an_adapter_from_elsewhere_is_not_of_this_tree(tree, commit, tmp_path, monkeypatch):
    commit(PROJECT)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "strange.py").write_text("class Adapter: ...")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "elsewhere")])
    found = look(tree, "strange:Adapter")
    assert not found.is_touched
    assert f"nothing that it is made of lies in {str(tree)!r}; not run" in found.sentence


def test_an_adapter_that_git_ignores_is_run(tree, commit, write):
    commit({**PROJECT, ".gitignore": "secret.py\n"})
    write({"secret.py": "class Adapter: ..."})
    assert look(tree, "secret:Adapter").sentence.endswith("touched since HEAD: git ignores secret.py")


def test_an_adapter_that_is_not_found_is_run(tree, commit):
    commit(PROJECT)
    assert look(tree, "packed.gone:Adapter").sentence.endswith("its module is not found")


def test_it_is_asked_from_a_folder_below(tree, commit, write, monkeypatch):
    commit(PROJECT)
    write({"helper.py": "# touched"})
    (tree / "below").mkdir()
    monkeypatch.chdir(tree / "below")
    assert changed_since.look(
        changed_since.since("HEAD", tree / "below"), family="toy:Family", adapter="mine:Adapter"
    ).is_touched


def test_names_may_be_odd(tree, commit, write):
    commit({"päck/__init__.py": "", "päck/a b\n.json": "", "toy.py": ""})
    write({"päck/a b\n.json": "1"})
    assert look(tree, "päck:Adapter").is_touched


# --- what git does not say -------------------------------------------------------------------------------------------


def test_a_folder_without_a_repository_is_told(tmp_path):
    with pytest.raises(UsageError, match=f"--changed-since asks git, and '{tmp_path}' is in no git repository"):
        changed_since.since("HEAD", tmp_path)


@pytest.mark.parametrize("revision", ["mian", "", "--output=x", "HEAD..main", "HEAD~9", "HEAD:mine.py"])
def test_an_unknown_revision_is_told(tree, commit, revision):
    commit(PROJECT)
    with pytest.raises(UsageError) as raised:
        changed_since.since(revision, tree)
    assert f"--changed-since {revision!r}: the git repository {str(tree)!r} has no such revision" in str(raised.value)


def test_the_nearest_branch_is_named(tree, commit):
    commit(PROJECT)
    git(tree, "branch", "release")
    with pytest.raises(UsageError, match=r"\(did you mean 'release'\?\)"):
        changed_since.since("relaese", tree)


def test_a_shallow_clone_is_told(tree, commit, tmp_path):
    commit(PROJECT)
    commit({"mine.py": ""})
    subprocess.run(
        ["git", "clone", "--depth", "1", f"file://{tree}", str(tmp_path / "clone")], check=True, capture_output=True
    )
    with pytest.raises(UsageError, match="the clone is shallow: fetch that revision first"):
        changed_since.since("HEAD~1", tmp_path / "clone")


def test_without_git_that_is_told(tree, commit, monkeypatch):
    commit(PROJECT)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="--changed-since needs git, which cannot be run here"):
        changed_since.since("HEAD", tree)


# --- the harness -----------------------------------------------------------------------------------------------------


def test_the_harness_counts_as_a_whole_where_it_lies_in_the_tree(tree, commit, write, monkeypatch):
    commit({**PROJECT, "harness/checks/one.py": "", "harness/page.css": ""})
    monkeypatch.setattr(sources, "package_folder", lambda name: tree / "harness")
    assert not look(tree).is_touched
    write({"harness/page.css": "a {}", "harness/checks/new.py": ""})
    assert look(tree).sentence.endswith("touched since HEAD: harness/checks/new.py, harness/page.css")


def test_the_harness_is_found_where_it_is():
    assert sources.package_folder("verifier") == Path(sources.__file__).parents[1]


def test_the_harness_is_not_followed_file_by_file(tree, write):
    write({"mine.py": "from verifier import adapter"})
    found = sources.find_sources("mine", lambda path: True, leaving="verifier")
    assert {path.name for path in found.files if path.exists()} == {"mine.py"}
