"""Runs of cases as a measuring process tells of them, made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from verifier.bench.clock import Kind, Tally
from verifier.bench.orders import CaseRun, CheckRun
from verifier.cases.spec import CaseSpec

MakeRun = Callable[..., CaseRun]


@pytest.fixture
def made_run() -> MakeRun:
    """Makes a run of two checks, a quarter of whose time is the harness's."""

    def make(seconds: float, *, case: str = "case", cpu: float | None = None, verdict: str = "pass") -> CaseRun:
        models = 3 * seconds / 4
        checks = (
            CheckRun(check="a.one", verdict="pass", fingerprint=None, gates=False, seconds=seconds / 4, models=0.0),
            CheckRun(
                check="b.two",
                verdict=verdict,
                fingerprint=None,
                gates=verdict == "fail",
                seconds=3 * seconds / 4,
                models=models,
            ),
        )
        inside = {
            Kind.BUILD: Tally(calls=2, seconds=models / 3),
            Kind.FORWARD: Tally(calls=4, seconds=2 * models / 3, watched_calls=3, watched_seconds=models / 2),
        }
        return CaseRun(case=case, seconds=seconds, cpu=cpu or seconds, checks=checks, inside=inside)

    return make


@pytest.fixture
def spec() -> CaseSpec:
    return CaseSpec(family="toy", config={"size": 3})
