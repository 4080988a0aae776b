"""One check at a time, under right and wrong adapters and families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from falcons import SPREAD, spec
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
def among_all(falcon: FalconFamily, bridge: Adapter) -> AmongAll:
    """Each case is run once."""
    found: dict[str, Mapping[str, Outcome]] = {}

    def of(kind: str) -> Mapping[str, Outcome]:
        if kind not in found:
            ran = run_case(spec(SPREAD[kind]), falcon, bridge, checks.registered())
            found[kind] = {outcome.check: outcome for outcome in ran}
        return found[kind]

    return of
