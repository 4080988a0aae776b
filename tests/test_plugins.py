"""What others wrote is found by name or path, and what is wrong with it is said in one line."""

from __future__ import annotations

import sys

import pytest

from verifier import adapter, checks, family, plugins
from verifier.errors import ImportFailed, UsageError


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads `outside:…` from a module with that source in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def from_source(source, path="Thing"):
        (tmp_path / "outside.py").write_text(source)
        monkeypatch.delitem(sys.modules, "outside", raising=False)
        return plugins.load(
            f"outside:{path}", group="verifier.nothing", kind="thing", is_one=lambda one: hasattr(one, "shape")
        )

    yield from_source
    sys.modules.pop("outside", None)


def test_a_class_is_made(load):
    assert load("class Thing:\n    shape = 3").shape == 3


def test_an_object_is_taken_as_it_is(load):
    assert load("class Kind:\n    shape = 3\nThing = Kind()").shape == 3


def test_a_path_goes_into_classes(load):
    assert load("class Outer:\n    class Inner:\n        shape = 4", "Outer.Inner").shape == 4


@pytest.mark.parametrize(
    ("source", "path", "said"),
    [
        ("Thing = 3", "Thing", "'outside:Thing' is no thing: it is an int"),
        ("class Thing: pass", "Think", "'outside' has no 'Think' (did you mean 'Thing'?)"),
    ],
)
def test_a_wrong_name_is_the_users(load, source, path, said):
    with pytest.raises(UsageError) as raised:
        load(source, path)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('two\\nlines')", "raised at import: ValueError: two lines"),
        ("import no_such_module_at_all", "raised at import: ModuleNotFoundError"),
        ("import sys; sys.exit(3)", "raised at import: SystemExit: 3"),
        ("class Thing:\n    def __init__(self):\n        raise KeyError('x')", "could not be made: KeyError"),
        ("def broken(:", "raised at import: SyntaxError"),
    ],
)
def test_what_raises_is_its_authors(load, source, said):
    with pytest.raises(ImportFailed) as raised:
        load(source)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_bundled_ones_are_registered():
    assert "falcon" in family.registered()
    assert {"bridge", "transformer-lens"} <= set(adapter.registered())


@pytest.mark.parametrize("name", sorted(family.registered()))
def test_each_registered_family_is_one(name):
    assert family.load(name).name == name


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Thing:\n    def wrap(self): ...", "it has no `name` and no `version`"),
        ("class Thing:\n    name = version = 'x'", "it has no `wrap`"),
        ("import os as Thing", "it is a module"),
        ("Thing = 3", "it is an int"),
    ],
)
def test_what_an_adapter_lacks_is_named(tmp_path, monkeypatch, source, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lacking", raising=False)
    (tmp_path / "lacking.py").write_text(source)
    with pytest.raises(UsageError, match=f"'lacking:Thing' is no adapter: {said}$"):
        adapter.load("lacking:Thing")
    sys.modules.pop("lacking", None)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(UsageError, match=r"unknown adapter 'brid' \(did you mean 'bridge'\?\); registered: bridge"):
        adapter.load("brid")


def test_each_check_says_what_it_proves():
    found = checks.registered()
    assert len({one.id for one in found}) == len(found)
    assert all(one.area in checks.AREAS and len(one.doc) > 40 for one in found)


@pytest.mark.parametrize(("patterns", "area"), [(["build"], "build"), (["build.*"], "build"), (["qkv.r*"], "qkv")])
def test_checks_are_chosen_by_glob_or_area(patterns, area):
    chosen = checks.select(patterns)
    assert chosen
    assert {one.area for one in chosen} == {area}
    assert list(chosen) == [one for one in checks.registered() if one in chosen]
