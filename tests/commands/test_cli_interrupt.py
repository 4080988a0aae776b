"""A run that is stopped: everything that was finished is there, and nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import time

import processes
import pytest
from user_adapters import FEW

from verifier import record

NARROW = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--workers", 2)


def _wait_for(condition, what, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def _lines(place, kind):
    try:
        text = (place / record.FILE).read_text()
    except FileNotFoundError:
        return []
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


def wait_for_the_long_cases(place, processes=2):
    """Until all processes sleep, each in a case with a bias. Returns the cases that are over by then, in whichever
    order they were taken."""
    over: set[str] = set()

    def all_sleep():
        over.clear()
        over.update(line["case"] for line in _lines(place, "done"))
        begun = [line for line in _lines(place, "case") if line["case"] not in over]
        return len(begun) == processes and all(line["config"]["bias"] for line in begun)

    _wait_for(all_sleep, "the long cases")
    assert over
    return over


def test_an_interrupt_ends_in_a_second_with_what_is_there(started, tmp_path):
    process = started(*NARROW, "--adapter", "mine:Sleeps", "--out", tmp_path)
    over = wait_for_the_long_cases(tmp_path)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert "INTERRUPTED" in out.splitlines()[-1]
    assert "Traceback" not in out + err
    found = record.read(tmp_path)
    assert (found.end.stop, found.end.exit) == ("interrupted", 130)
    assert over == found.done.keys() == {entry.case for entry in found.entries}
    assert (tmp_path / "report.html").exists()
    _wait_for(lambda: not processes.marked(str(tmp_path)), "its processes to end", 5)


@pytest.mark.slow
def test_an_interrupt_while_it_loads_leaves_nothing(started, tmp_path):
    process = started(*NARROW, "--adapter", "mine:Right", "--out", tmp_path)
    process.stderr.readline()  # it says that it is loading
    time.sleep(0.3)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert err == "verifier: interrupted before the first case; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["Sleeps", "SleepsInC"])
def test_workers_end_with_a_killed_coordinator_and_the_record_stays_readable(started, tmp_path, adapter):
    process = started(*NARROW, "--adapter", f"mine:{adapter}", "--out", tmp_path)
    over = wait_for_the_long_cases(tmp_path)
    process.kill()
    process.wait()
    _wait_for(lambda: not processes.marked(str(tmp_path)), "its processes to end", 5)
    found = record.read(tmp_path)
    assert found.end is None
    assert over == found.done.keys() == {entry.case for entry in found.entries}
    assert any("cut off" in note for note in found.notes)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_what_an_adapter_detached_ends_with_the_run(started, tmp_path, number):
    process = started(*NARROW, "--adapter", "mine:Detaches", "--out", tmp_path)
    wait_for_the_long_cases(tmp_path)
    _wait_for(lambda: "sleep 600" in processes.marked(str(tmp_path)).values(), "the adapter's process", 5)
    process.send_signal(number)
    process.wait(20)
    _wait_for(lambda: not processes.marked(str(tmp_path)), "its processes to end", 5)
