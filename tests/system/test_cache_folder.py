"""Where what can be found out again is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifier.system.cache_folder import VARIABLE, cache_folder


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")


def test_it_is_in_the_users_home() -> None:
    assert cache_folder() == Path("/home/someone/.cache/verifier")


def test_it_is_where_the_user_has_all_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/verifier")


def test_a_relative_place_of_all_caches_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert cache_folder() == Path("/home/someone/.cache/verifier")


def test_our_own_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv(VARIABLE, "/ours")
    assert cache_folder() == Path("/ours")
