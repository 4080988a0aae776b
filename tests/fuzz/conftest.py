"""A user's folder with adapters that campaigns find out about, and campaigns over Falcon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz_subjects import SOURCE

from verifier import family
from verifier.engine.limits import Limits
from verifier.engine.plan import Plan
from verifier.fuzz import campaign
from verifier.fuzz.fields import Space, space
from verifier.fuzz.ledger import Event
from verifier.fuzz.request import CampaignRequest


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    (place / "fuzzed.py").write_text(SOURCE)
    return place


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The process stands in the user's folder, and forgets it afterwards."""
    path = list(sys.path)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.path[:] = path


@pytest.fixture(scope="session")
def falcons() -> Callable[..., Space]:
    """Falcon's space, some fields of which are fixed."""
    return lambda **fixed: space(family.load("falcon"), "falcon", fixed=fixed)


Happened = list[Event]


@pytest.fixture
def fuzz(in_folder: Path, falcons: Callable[..., Space]) -> Callable[..., Happened]:
    """Runs a campaign to its end; what it told."""

    def run(
        adapter: str,
        *only: str,
        most: int | None = 200,
        seconds: float = 20.0,
        fixed: dict[str, str] | None = None,
        **more: Any,
    ) -> Happened:
        limits = Limits(seconds=seconds, bytes=2**31)
        plan = Plan(family="falcon", adapter=f"fuzzed:{adapter}", specs=(), only=only, limits=limits)
        request = CampaignRequest(space=falcons(**(fixed or {})), plan=plan, most=most, **more)
        return list(campaign.run(request))

    return run
