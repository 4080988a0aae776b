"""Whatever a worker has started ends with it, and with the run, in each way in which they can end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import processes
import pytest
from hostile import last_outcomes

from verifier.engine.case_runner import SubprocessRunner
from verifier.engine.run import run
from verifier.judging.outcome import Verdict

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can adopt what loses its parent")

# The real processes of a run, with nothing imported into them: a coordinator, and a worker that starts what it can.
SOURCE = """
import os, subprocess, sys, time
from pathlib import Path
import psutil
from verifier.engine import server, worker
from verifier.engine.plan import Plan
from verifier.engine.worker_pool import Launcher

def leave(pipe, log, mark):
    worker.lead_process_group(pipe)
    worker._end_with_parent()
    sleep = ["sleep", f"3600.{mark}"]
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, start_new_session=True)
    subprocess.Popen(sleep, process_group=0, env={})
    subprocess.run(["sh", "-c", f"setsid {' '.join(sleep)} & setsid sh -c '{' '.join(sleep)} & wait' &"], check=True)
    forkserver = psutil.Process().parent()
    pipe.send((forkserver.ppid(), forkserver.pid, os.getpid()))
    time.sleep(3600)

def describe(pipe):
    guard = psutil.Process().parent().parent()
    pipe.send(("torch" in sys.modules, guard.ppid()))

def on_device():
    context = server.context(Plan(family="falcon", adapter="bridge", specs=(), device="cuda"))
    reading, writing = context.Pipe(duplex=False)
    server.start(context.Process(target=describe, args=(writing,)))
    print(*reading.recv(), os.getpid())

def main(log, mark):
    server.HEAVY = server.MODULES = ()
    launcher = Launcher(server.shared_context(), server.shared_context)
    started = launcher.start(leave, Path(log), mark, seconds=None)
    print(os.getpid(), *started.pipe.recv(), flush=True)
    if sys.stdin.readline() == "stop":
        started.close()
        time.sleep(3600)
"""
NAMES = ("coordinator", "guard", "forkserver", "worker")
SECONDS = 5.0


@pytest.fixture
def mark() -> Iterator[str]:
    """Digits that nothing else on this machine has; what has them still is ended."""
    digits = str(random.SystemRandom().randrange(10**14, 10**15))
    yield digits
    for process in processes.marked(digits):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def started(tmp_path, mark) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A coordinator, and the ids of it and of the processes below it."""
    (tmp_path / "leaving.py").write_text(SOURCE)
    command = [sys.executable, "-c", f"import leaving; leaving.main({str(tmp_path / 'log')!r}, {mark!r})"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "VERIFIER_TEST_MARK": mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        names = dict(zip(NAMES, map(int, process.stdout.readline().split()), strict=True))
        assert process.pid == names["coordinator"]
        yield process, names
        process.kill()


def wait_for_the_end(mark: str, *, word: str = "") -> None:
    """Wait until no process has the mark, or none of those whose command lines contain a word."""
    deadline = time.monotonic() + SECONDS

    def left() -> list[str]:
        return [command for command in processes.marked(mark).values() if word in command]

    while left():
        assert time.monotonic() < deadline, left()
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_outlives_a_coordinator_that_gets_a_signal(started, mark, number) -> None:
    process, _ = started
    process.send_signal(number)
    process.wait(timeout=SECONDS)
    wait_for_the_end(mark)


def test_nothing_outlives_a_coordinator_that_is_done(started, mark) -> None:
    process, _ = started
    process.communicate("done")
    wait_for_the_end(mark)


@pytest.mark.parametrize("name", ["guard", "forkserver", "worker"])
def test_nothing_outlives_what_it_was_started_by(started, mark, name) -> None:
    process, names = started
    os.kill(names[name], signal.SIGKILL)
    wait_for_the_end(mark, word="sleep")
    assert process.poll() is None


def test_nothing_outlives_a_worker_that_is_stopped(started, mark) -> None:
    process, _ = started
    process.stdin.write("stop")
    process.stdin.close()
    wait_for_the_end(mark, word="sleep")
    assert process.poll() is None


def test_what_a_case_has_started_ends_before_the_next_case(plan, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = plan("Detaches", count=2)
    outcomes = last_outcomes(run(wanted, workers=1))
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.PASS}
    with contextlib.closing(SubprocessRunner(wanted)) as runner:
        for spec in wanted.specs:
            assert [one.verdict for one in runner.run(spec, ["build.adapter"]).outcomes] == [Verdict.PASS]


def test_what_was_started_before_all_cases_serves_them_all(plan, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = last_outcomes(run(plan("Serves", count=2), workers=1))
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.PASS}
    (served,) = set((tmp_path / "servers").read_text().split())
    deadline = time.monotonic() + SECONDS
    while os.path.exists(f"/proc/{served}/cmdline"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_worker_of_a_device_is_forked_from_has_a_guard_and_no_torch(tmp_path) -> None:
    (tmp_path / "leaving.py").write_text(SOURCE)
    said = subprocess.check_output(
        [sys.executable, "-c", "import leaving; leaving.on_device()"], cwd=tmp_path, text=True
    )
    has_torch, above, coordinator = said.split()
    assert has_torch == "False"
    assert above == coordinator


def test_an_orphan_that_an_import_has_started_serves_all_cases(plan, place) -> None:
    (place / "served.py").write_text(
        "import os, subprocess, subjects\n"
        'HELPER = subprocess.check_output(["sh", "-c", "setsid sleep 600 > /dev/null & echo $!"], text=True).strip()\n'
        "class Served(subjects.Right):\n"
        "    def wrap(self, model):\n"
        '        assert os.path.exists(f"/proc/{HELPER}/cmdline")\n'
        "        return super().wrap(model)\n"
    )
    outcomes = last_outcomes(run(replace(plan("Right", count=2), adapter="served:Served"), workers=1))
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.PASS}
