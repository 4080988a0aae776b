"""One check at a time, under right and wrong adapters and families."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
from falcons import FEWER, SPREAD, spec
from made_once import MadeOnce
from one_check import DEFAULT, AmongAll, Broken, Judge

from verifier import checks
from verifier.adapter import Adapter
from verifier.checks.runner import run_case
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import MutantAdapter
from verifier.judging.outcome import Outcome


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every check on a kind of block takes many seconds, so that the default run has four kinds of the nine."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if "among_all" in getattr(item, "fixturenames", ()) and parameters.get("kind", FEWER[0]) not in FEWER:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def judge(falcon: FalconFamily, bridge: Adapter) -> Judge:
    def run(
        check: str, *, adapter: Any = None, family: Any = None, config: Mapping[str, Any] = DEFAULT, **more: Any
    ) -> Outcome:
        chosen = [one for one in checks.registered() if one.id == check]
        outcome, *_ = run_case(spec(config, **more), family or falcon, adapter or bridge, chosen)
        return outcome

    return run


@pytest.fixture(scope="session")
def broken(bridge: Adapter) -> Broken:
    return lambda breaks: MutantAdapter(bridge, breaks if callable(breaks) else lambda _model: breaks)


@pytest.fixture(scope="session")
def among_all(falcon: FalconFamily, bridge: Adapter, made_once: MadeOnce) -> AmongAll:
    """Each case is run once, for all processes."""

    def run(kind: str) -> Mapping[str, Outcome]:
        ran = run_case(spec(SPREAD[kind]), falcon, bridge, checks.registered())
        return {outcome.check: outcome for outcome in ran}

    return functools.cache(lambda kind: made_once.value(f"among-all-{kind}", lambda: run(kind)))
