"""A case that breaks what runs it ends as that case's crash, with type, place and message; the other cases run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from breaking import SOURCE
from hostile import last_outcomes

from verifier.engine import events, inline, safeguard
from verifier.engine.case_runner import SubprocessRunner
from verifier.engine.run import run
from verifier.errors import ImportFailed
from verifier.judging.outcome import Outcome, Verdict

ONLY = ("build.adapter", "build.forward")
HOW = ["here", "workers"]


@pytest.fixture(autouse=True)
def breaking(place, monkeypatch):
    (place / "breakers.py").write_text(SOURCE)
    monkeypatch.chdir(place)
    yield
    safeguard.restore()  # what an adapter broke in this process


@pytest.fixture
def tell(plan):
    """Runs an adapter on a case without biases, one with, and one without: gives the outcomes of the one with."""

    def run_it(adapter: str, how: str = "workers", only: tuple[str, ...] = ONLY) -> dict[str, Outcome]:
        wanted = replace(plan("Right", count=3, only=only), adapter=adapter)
        seen = list(inline.run(wanted) if how == "here" else run(wanted, workers=1))
        assert isinstance(seen[-1], events.RunFinished)
        assert seen[-1].stop is events.Stop.COMPLETE
        biased = {spec.id for spec in wanted.specs if spec.config["bias"]}
        outcomes = last_outcomes(seen)
        assert {case for case, _ in outcomes} == {spec.id for spec in wanted.specs}
        assert {one.verdict for (case, _), one in outcomes.items() if case not in biased} == {Verdict.PASS}
        return {check: one for (case, check), one in outcomes.items() if case in biased}

    return run_it


@pytest.mark.parametrize(
    ("adapter", "exception", "site"),
    [
        ("NoLength", "RuntimeError", "breakers.py:gone"),
        pytest.param("SaysCode", "garbled", None, marks=pytest.mark.slow),
        ("SaysOthers", "garbled", None),
        pytest.param("ClosesFiles", "lost", None, marks=pytest.mark.slow),
    ],
)
def test_what_breaks_a_worker_is_its_cases(tell, place, adapter, exception, site):
    told = tell(f"breakers:{adapter}")
    crash, blocked = told["build.adapter"], told["build.forward"]
    assert (crash.verdict, crash.exception, crash.site) == (Verdict.CRASH, exception, site)
    assert blocked.message == "blocked: the process died in build.adapter"
    assert not (place / "unpickled").exists()


@pytest.mark.parametrize("how", HOW)
def test_a_clock_that_gives_text_ends_no_run(tell, how):
    told = tell("breakers:NoTime", how, ("build.adapter", "state.process"))
    assert told["build.adapter"].verdict is Verdict.PASS
    assert told["state.process"].verdict is Verdict.FAIL


@pytest.mark.slow
def test_what_a_case_breaks_in_this_process_is_its_cases(tell):
    crash = tell("breakers:NoLength", "here")["build.adapter"]
    assert (crash.verdict, crash.exception, crash.site) == (Verdict.CRASH, "RuntimeError", "breakers.py:gone")
    assert crash.message == "the process could not go on: RuntimeError: it is gone"


@pytest.mark.parametrize(
    ("adapter", "exception", "how"),
    [
        ("RaisesInterrupt", "KeyboardInterrupt", "workers"),
        ("RaisesInterrupt", "KeyboardInterrupt", "here"),
        ("RaisesOwn", "Own", "here"),
        pytest.param("RaisesOwn", "Own", "workers", marks=pytest.mark.slow),
        pytest.param("RaisesCancelled", "CancelledError", "workers", marks=pytest.mark.slow),
    ],
)
def test_what_is_no_exception_is_told_with_type_place_and_message(tell, adapter, exception, how):
    told = tell(f"breakers:{adapter}", how)
    error = told["build.adapter"]
    assert (error.verdict, error.message) == (Verdict.ERROR, f"{exception}: mine")
    assert (error.exception, error.site) == (exception, "breakers.py:act")
    assert told["build.forward"].message == "blocked by build.adapter"


def test_a_users_interrupt_still_ends_a_run_in_this_process(plan):
    wanted = replace(plan("Right", count=3, only=ONLY), adapter="breakers:PressesInterrupt")
    *seen, last = inline.run(wanted)
    assert last.stop is events.Stop.INTERRUPTED
    assert {case for case, _ in last_outcomes(seen)} == {wanted.specs[0].id}


@pytest.mark.slow
def test_where_a_process_was_left_tells_two_failures_apart(tell):
    told = [tell(f"breakers:{adapter}")["build.adapter"] for adapter in ("Leaves", "LeavesElsewhere")]
    assert [one.site for one in told] == ["breakers.py:act", "breakers.py:away"]
    assert {one.exception for one in told} == {"exit 1"}
    assert len({one.fingerprint for one in told}) == 2


@pytest.mark.slow
def test_an_adapter_that_interrupts_its_import_is_named(plan):
    runner = SubprocessRunner(replace(plan("Right", count=1), adapter="breakers:InterruptsImport"))
    with pytest.raises(ImportFailed, match=r"breakers:InterruptsImport.*KeyboardInterrupt: at import"):
        runner.load()
    runner.close()
