"""What is shown while a run goes on: rate, time left, failures by fingerprint, and a case that takes long."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from verifier.engine.events import CaseFinished, Heartbeat, OutcomeReady, RunStarted, WorkerLost
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.fuzz_finding import CampaignProgress
from verifier.report import progress
from verifier.report.fuzzing import MOST_SHOWN, CampaignMeter
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


# --- the thread that draws -------------------------------------------------------------------------------------------


@contextmanager
def drawn_all_the_time(draw: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Draws in another thread, as rich does, but without a rest; collects what drawing raises."""
    raised: list[BaseException] = []
    over = threading.Event()

    def draw_on() -> None:
        while not over.is_set():
            try:
                draw()
            except BaseException as error:
                raised.append(error)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=draw_on)
    thread.start()
    try:
        yield raised
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(usual)


def many_outcomes() -> Iterator[OutcomeReady]:
    """Failures of many bugs, each of which a second run of the case takes back."""
    for number in range(1_500):
        case = str(number)
        yield OutcomeReady(case=case, outcome=failing(f"place {number % 40}"))
        if number % 3 == 0:
            yield OutcomeReady(case=case, outcome=Outcome(check="hooks.values", verdict=Verdict.PASS))


def terminal() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=True)


def test_events_do_not_disturb_the_thread_that_draws():
    meter = Meter(terminal(), title="falcon × mine", cases=8)
    with drawn_all_the_time(meter._frame) as raised:
        for event in many_outcomes():
            meter.note(event)
    assert raised == []


def test_a_campaigns_events_do_not_disturb_the_thread_that_draws():
    meter = CampaignMeter(terminal(), "fuzzing falcon × mine")
    with drawn_all_the_time(meter._frame) as raised:
        for event in many_outcomes():
            meter.note(event)
    assert raised == []


def test_what_is_drawn_does_not_change_under_the_thread_that_draws():
    """Rich may draw at any moment: what it reads is made anew, and never changed."""
    meter = Meter(terminal(), title="falcon × mine", cases=8)
    meter.note(OutcomeReady(case="a", outcome=failing()))
    before = meter._shown
    meter.note(OutcomeReady(case="b", outcome=failing("another place")))
    assert (before.number, len(before.lines)) == (1, 1)
    assert (meter._shown.number, len(meter._shown.lines)) == (2, 2)
    with pytest.raises(AttributeError):
        before.number = 3  # type: ignore[misc]


def test_a_campaign_shows_how_far_it_is_and_its_failures_below():
    meter = CampaignMeter(terminal(), "fuzzing falcon × mine")
    for number in range(MOST_SHOWN + 2):
        meter.note(OutcomeReady(case="a", outcome=failing(f"place {number}")))
    so_far = CampaignProgress(phase="random cases", cases=3, refused=1, shrinking=0, found=2, pairs=(1, 9), seconds=1.0)
    meter.note(so_far)
    frame = io.StringIO()
    Console(file=frame, width=200).print(meter._frame())
    first, *lines = frame.getvalue().splitlines()
    assert first.startswith("fuzzing falcon × mine: random cases, 3 cases (1 refused by HF)")
    assert "hooks.values FAIL at place 0: shrinking" in lines[0]
    assert (len(lines), lines[-1].strip()) == (MOST_SHOWN + 1, "… and 2 more")


def test_what_one_mistake_raises_in_several_checks_is_one_bug(monkeypatch):
    def raised(check: str) -> Outcome:
        return Outcome(check=check, verdict=Verdict.ERROR, message="m", exception="TypeError", site="mine.py:hooked")

    events = [OutcomeReady(case="a", outcome=raised(check)) for check in ("hooks.fires", "hooks.order", "hooks.shown")]
    lines = plain(monkeypatch, [STARTED, *events, CaseFinished(case="a", seconds=1.0)])
    assert ", 1 bug: " in lines[-1]
    assert "×3 " in lines[-1]
