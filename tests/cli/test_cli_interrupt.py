"""A run that is stopped: everything that was finished is there, and nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import time

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


def _in_the_long_case(place):
    # The two cases without a bias are over, and both workers sleep in the others.
    return lambda: len(_lines(place, "outcome")) == 2 and len(_lines(place, "case")) == 4


def _group(process):
    """The processes of its group that still run."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == process.pid and fields[0] != "Z":
                found.append(int(name))
    return found


def test_an_interrupt_ends_in_a_second_with_what_is_there(started, tmp_path):
    process = started(*NARROW, "--adapter", "mine:Sleeps", "--out", tmp_path)
    _wait_for(_in_the_long_case(tmp_path), "the long cases")
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert "INTERRUPTED" in out.splitlines()[-1]
    assert "Traceback" not in out + err
    found = record.read(tmp_path)
    assert (found.end.stop, found.end.exit) == ("interrupted", 130)
    assert len(found.entries) == 2
    assert (tmp_path / "report.html").exists()
    _wait_for(lambda: not _group(process), "its processes to end", 5)


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


@pytest.mark.parametrize("adapter", ["Sleeps", "SleepsInC"])
def test_workers_end_with_a_killed_coordinator_and_the_record_stays_readable(started, tmp_path, adapter):
    process = started(*NARROW, "--adapter", f"mine:{adapter}", "--out", tmp_path)
    _wait_for(_in_the_long_case(tmp_path), "the long cases")
    process.kill()
    process.wait()
    _wait_for(lambda: not _group(process), "its processes to end", 5)
    found = record.read(tmp_path)
    assert found.end is None
    assert len(found.entries) == 2
    assert any("cut off" in note for note in found.notes)
