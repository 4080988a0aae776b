"""What an adapter does to its process costs its case, and is told with all that is known of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace

import pytest
from hostile import last_outcomes

from verifier.engine import events, limits, worker_pool
from verifier.engine.retry_policy import CONVINCED
from verifier.engine.run import run
from verifier.errors import ImportFailed
from verifier.judging.outcome import Verdict


def of_the_biased(plan, seen):
    """The outcomes of the one case with biases; the others must have passed."""
    biased = {spec.id for spec in plan.specs if spec.config["bias"]}
    outcomes = last_outcomes(seen)
    assert {outcome.verdict for (case, _), outcome in outcomes.items() if case not in biased} == {Verdict.PASS}
    return [outcome for (case, _), outcome in outcomes.items() if case in biased]


ONLY = ("reference.acceptance", "build.adapter", "build.forward")


def test_a_segmentation_fault_is_told_with_its_stack_and_last_words(plan):
    wanted = plan("Segfaults", count=2, only=ONLY)
    first, crash, blocked = of_the_biased(wanted, run(wanted, workers=2))
    assert first.verdict is Verdict.PASS
    assert (crash.check, crash.verdict, crash.exception) == ("build.adapter", Verdict.CRASH, "SIGSEGV")
    assert crash.site.endswith("subjects.py:act")
    lines = crash.detail.splitlines()
    assert lines[:2] == ["these are my last words", "Fatal Python error: Segmentation fault"]
    assert any("in act" in line for line in lines)
    assert (blocked.verdict, blocked.message) == (Verdict.SKIP, "blocked: the process died in build.adapter")


@pytest.mark.parametrize(
    ("adapter", "in_stack"),
    [
        ("Hangs", "in act"),
        pytest.param("HangsInC", "in act", marks=pytest.mark.slow),
        pytest.param("Floods", "in act", marks=pytest.mark.slow),
        pytest.param("HangsDeaf", None, marks=pytest.mark.slow),
    ],
)
def test_a_hang_is_cut_off_wherever_it_is(plan, adapter, in_stack):
    wanted = plan(adapter, count=2, only=ONLY, seconds=1.5)
    _, hang, blocked = of_the_biased(wanted, run(wanted, workers=2))
    assert (hang.check, hang.verdict) == ("build.adapter", Verdict.TIMEOUT)
    assert hang.message == "the process was not done with the case after 1.5 s (--timeout)"
    assert blocked.verdict is Verdict.SKIP
    if in_stack:
        assert in_stack in hang.detail
    if adapter == "Hangs":
        assert hang.detail.startswith("waiting for a lock\nStack (most recent call first):\n")


@pytest.mark.slow
def test_a_process_that_grows_is_ended(plan):
    wanted = plan("Grows", count=2, only=ONLY, megabytes=300)
    _, crash, blocked = of_the_biased(wanted, run(wanted, workers=2))
    assert (crash.check, crash.verdict, crash.exception) == ("build.adapter", Verdict.CRASH, "memory")
    assert crash.message == "the process took more than 300 MiB for the case (--memory), and was ended"
    assert "in act" in crash.detail
    assert blocked.verdict is Verdict.SKIP


@pytest.mark.slow
def test_a_process_that_earlier_cases_have_swollen_is_replaced(plan, place, monkeypatch):
    monkeypatch.chdir(place)
    wanted = plan("Leaks", count=8, megabytes=150)
    outcomes = last_outcomes(run(wanted, workers=1))
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.PASS}
    served = Counter((place / "workers").read_text().split())
    # Each may have kept 75 MB, which is two cases' 30 and a third's on top.
    assert sum(served.values()) == 8
    assert max(served.values()) <= 3
    assert len(served) > 1


def test_a_death_that_does_not_come_again_is_held_against_nobody_and_told(plan, place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "died").unlink(missing_ok=True)
    wanted = plan("DiesOnce", count=4, only=ONLY)
    seen = list(run(wanted, workers=2))
    assert {outcome.verdict for outcome in last_outcomes(seen).values()} == {Verdict.PASS}
    (lost,) = [event for event in seen if isinstance(event, events.WorkerLost)]
    assert (lost.check, lost.verdict, lost.reason, lost.again) == (
        "build.adapter",
        Verdict.CRASH,
        "ended with exit status 5",
        True,
    )
    finished = [event.case for event in seen if isinstance(event, events.CaseFinished)]
    assert sorted(finished) == sorted(spec.id for spec in wanted.specs)
    assert finished[-1] == lost.case  # alone, when everything else is over


@pytest.mark.slow
def test_what_has_come_again_often_enough_is_believed_without_being_run_again(plan, place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "deaths").unlink(missing_ok=True)
    wanted = plan("Counts", count=8)
    seen = list(run(wanted, workers=2))
    outcomes = last_outcomes(seen)
    assert sum(outcome.verdict is Verdict.CRASH for outcome in outcomes.values()) == 8
    assert len((place / "deaths").read_text()) == 8 + CONVINCED
    finished = Counter(event.case for event in seen if isinstance(event, events.CaseFinished))
    assert finished == {spec.id: 1 for spec in wanted.specs}


def test_a_death_between_two_cases_is_no_cases_fault(plan):
    wanted = plan("QuitsBetween", count=4)
    seen = list(run(wanted, workers=1))
    assert {outcome.verdict for outcome in last_outcomes(seen).values()} == {Verdict.PASS}
    lost = [event for event in seen if isinstance(event, events.WorkerLost)]
    assert lost
    assert {event.reason for event in lost} == {"ended with exit status 4"}
    finished = Counter(event.case for event in seen if isinstance(event, events.CaseFinished))
    assert finished == {spec.id: 1 for spec in wanted.specs}


@pytest.mark.slow
def test_an_import_that_never_ends_is_named(place, plan):
    (place / "endless.py").write_text("import time\nwhile True:\n    time.sleep(0.1)\n")
    wanted = plan("Right", count=1)
    endless = replace(wanted, adapter="endless:Adapter", limits=limits.Limits(loading=3.0))
    with pytest.raises(
        ImportFailed, match=r"adapter 'endless:Adapter' was not over after 3 s .*--timeout.*; it was at line 3 in"
    ):
        list(run(endless, workers=1))


def test_who_gives_a_case_longer_gives_importing_as_long():
    usual = limits.default_limits(large=False, workers=1)
    asked = [usual.with_asked(seconds, None).loading for seconds in (None, 5, 600, 0)]
    assert asked == [limits.LOADING_SECONDS, limits.LOADING_SECONDS, 600, None]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["GarblesLengths", "GarblesMessages"])
def test_garbage_in_the_harness_own_pipe_is_its_cases_fault(plan, adapter, monkeypatch):
    monkeypatch.setattr(worker_pool, "_MESSAGE_SECONDS", 1)
    wanted = plan(adapter, count=2, only=ONLY, seconds=30)
    began = time.perf_counter()
    _, crash, blocked = of_the_biased(wanted, run(wanted, workers=1))
    assert (crash.check, crash.verdict, crash.exception) == ("build.adapter", Verdict.CRASH, "garbled")
    assert crash.message == "the process wrote what is no message into the harness' own pipe, and was ended"
    assert blocked.verdict is Verdict.SKIP
    assert time.perf_counter() - began < 30


@pytest.mark.slow
def test_the_heart_beats_while_a_case_is_long(plan):
    wanted = plan("Hangs", count=2, only=ONLY, seconds=3.5)
    began = time.perf_counter()
    beats = [event for event in run(wanted, workers=2) if isinstance(event, events.Heartbeat)]
    took = time.perf_counter() - began
    (biased,) = [spec.id for spec in wanted.specs if spec.config["bias"]]
    assert sum(biased in beat.running for beat in beats) >= 4
    assert len(beats) <= took
    assert max(beat.running.get(biased, 0.0) for beat in beats) > 2


def test_memory_is_measured_where_the_system_tells():

    here = limits.resident_memory(os.getpid())
    assert here is not None
    kept = bytearray(b"x" * 50_000_000)
    assert limits.resident_memory(os.getpid()) - here > len(kept) / 2
    assert limits.resident_memory(2**22 + 1) is None
    assert limits.default_limits(large=False, workers=2) == limits.Limits(seconds=60.0, bytes=2 * 2**30)
    large = limits.default_limits(large=True, workers=2)
    assert large.seconds == 3600.0
    assert 0 < large.bytes <= limits.free_memory() // 2 + 2**30
