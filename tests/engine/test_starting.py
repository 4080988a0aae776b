"""What a machine does not give to a run is said before its first process starts, in one line."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable

import pytest

from verifier.engine import starting
from verifier.errors import ExitStatus, VerifierError

Limits = dict[int, tuple[int, int]]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Limits]:
    """Gives a process limits, and notes those that it sets for itself."""

    def limit(**limits: tuple[int, int]) -> Limits:
        now = {getattr(resource, name): value for name, value in limits.items()}
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        monkeypatch.setattr(resource, "getrlimit", lambda kind: now.get(kind, unlimited))
        monkeypatch.setattr(resource, "setrlimit", now.__setitem__)
        return now

    return limit


def said(workers: int = 1) -> tuple[str, ExitStatus]:
    with pytest.raises(VerifierError) as caught:
        starting.prepare(workers)
    return str(caught.value), caught.value.status


def test_few_files_are_too_few(limited: Callable[..., Limits]) -> None:
    limited(RLIMIT_NOFILE=(20, 20))
    message, status = said(workers=2)
    assert message == "a process may have 20 files open here, and this run needs 80: raise it (`ulimit -n 80`)"
    assert status is ExitStatus.BROKEN


def test_files_that_may_be_had_are_asked_for(limited: Callable[..., Limits]) -> None:
    now = limited(RLIMIT_NOFILE=(20, 4096))
    starting.prepare(2)
    assert now[resource.RLIMIT_NOFILE] == (80, 4096)


def test_little_address_space_is_too_little(limited: Callable[..., Limits]) -> None:
    limited(RLIMIT_AS=(600 * 2**20, resource.RLIM_INFINITY))
    message, status = said()
    assert message.startswith("a process may have 600 MiB of address space, and one that runs cases needs 1 GiB")
    assert status is ExitStatus.BROKEN


def test_a_folder_for_temporary_files_may_be_too_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + "a" * 100)
    message, status = said()
    assert message.startswith("TMPDIR has 105 characters, and a socket in it would have a longer name than")
    assert status is ExitStatus.USAGE


def test_there_may_be_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    message, status = said()
    assert "let TMPDIR name one" in message
    assert status is ExitStatus.USAGE
