"""What is shown while a run goes on: rate, time left, failures by fingerprint, and a case that takes long."""

from __future__ import annotations

import io

from rich.console import Console

from verifier.engine.events import CaseFinished, Heartbeat, OutcomeReady, RunStarted, WorkerLost
from verifier.judging.outcome import Outcome, Verdict
from verifier.report import progress
from verifier.report.progress import MOST_BUGS, Meter

STARTED = RunStarted(adapter_name="mine", adapter_version="1", checks=(), expected=8, workers=2)


def failing(where: str = "blocks.0.attn.hook_q") -> Outcome:
    return Outcome(check="hooks.values", verdict=Verdict.FAIL, where=where, message="off")


def plain(monkeypatch, events, *, cases: int = 8, done: int = 0, every: float = 0.0) -> list[str]:
    """The lines that a log gets, where each event may write one."""
    monkeypatch.setattr(progress, "PLAIN_SECONDS", every)
    out = io.StringIO()
    with Meter(Console(file=out, width=60), title="falcon × mine", cases=cases, done=done) as meter:
        for event in events:
            meter.note(event)
    return out.getvalue().splitlines()


def test_a_log_gets_a_line_now_and_then_with_all_of_it(monkeypatch):
    lines = plain(
        monkeypatch,
        [
            STARTED,
            OutcomeReady(case="aaaaaaaa", outcome=failing()),
            OutcomeReady(case="bbbbbbbb", outcome=failing("blocks.1.attn.hook_q")),
            CaseFinished(case="aaaaaaaa", seconds=1.0),
            Heartbeat(running={"bbbbbbbb": 2.0, "cccccccc": 34.0}, left=80.0),
        ],
    )
    assert lines[0] == "falcon × mine: loading, then 8 cases"
    last = lines[-1]
    assert last.startswith("falcon × mine: 1 of 8 cases, ")
    assert "/s, 1 min 20 s left, at cccccccc for 34 s, 1 bug: " in last
    # One bug in two layers: one fingerprint, twice.
    assert last.endswith(f"{failing().fingerprint} ×2 hooks.values FAIL at blocks.1.attn.hook_q")


def test_a_log_is_not_filled(monkeypatch):
    events = [STARTED, *(CaseFinished(case=str(number), seconds=0.1) for number in range(8))]
    lines = plain(monkeypatch, events, every=1e6)
    assert len(lines) == 2
    assert "8 of 8 cases" in lines[1]  # the last word is said whatever the clock says


def test_what_is_there_already_counts(monkeypatch):
    lines = plain(monkeypatch, [STARTED, CaseFinished(case="a", seconds=1.0)], done=5)
    assert lines[0] == "falcon × mine: loading, then 8 cases (5 are there already)"
    assert "6 of 8 cases" in lines[-1]


def test_an_outcome_that_a_second_run_of_the_case_replaces_is_no_bug(monkeypatch):
    passed = Outcome(check="hooks.values", verdict=Verdict.PASS)
    lost = WorkerLost(case="a", check="hooks.values", verdict=Verdict.CRASH, reason="was ended", again=True)
    lines = plain(
        monkeypatch,
        [
            STARTED,
            OutcomeReady(case="a", outcome=failing()),
            lost,
            OutcomeReady(case="a", outcome=passed),
            CaseFinished(case="a", seconds=1.0),
        ],
    )
    assert "1 case to be run again alone, 1 bug" in lines[-2]
    assert "bug" not in lines[-1]
    assert "again" not in lines[-1]


def test_a_terminal_gets_a_bar_and_the_most_frequent_failures_below_it():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None)
    with Meter(console, title="falcon × mine", cases=8) as meter:
        meter.note(STARTED)
        for number in range(MOST_BUGS + 2):
            for case in range(number + 1):
                meter.note(OutcomeReady(case=f"{number}.{case}", outcome=failing(f"place {number}")))
        meter.note(CaseFinished(case="0", seconds=1.0))
        frame = io.StringIO()
        Console(file=frame, width=100).print(meter._frame())
    lines = frame.getvalue().splitlines()
    assert "falcon × mine" in lines[0]
    assert "1/8" in lines[0]
    assert f"×{MOST_BUGS + 2} hooks.values FAIL at place {MOST_BUGS + 1}" in lines[1]
    assert lines[-1].strip() == "… and 2 more bugs"
    assert len(lines) == 1 + MOST_BUGS + 1


def test_a_terminal_that_others_write_to_gets_lines():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None)
    with Meter(console, title="falcon × mine", cases=1, plain=True) as meter:
        meter.note(STARTED)
        meter.note(CaseFinished(case="0", seconds=1.0))
    assert out.getvalue().splitlines()[0] == "falcon × mine: loading, then 1 case"
    assert "\x1b[" not in out.getvalue()
