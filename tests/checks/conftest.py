"""One check at a time, under right and wrong adapters and families."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
from falcons import SPREAD, spec
from made_once import MadeOnce
from one_check import DEFAULT, AmongAll, Broken, Judge

from verifier import checks
from verifier.adapter import Adapter
from verifier.checks.runner import run_case
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import MutantAdapter
from verifier.judging.outcome import Outcome


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
