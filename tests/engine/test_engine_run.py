"""The coordinator's events: whole, in order within a case, and true when a worker dies."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import processes
import pytest
from hostile import last_outcomes

from verifier.engine import events
from verifier.engine.case_runner import SubprocessRunner
from verifier.engine.plan import applicable
from verifier.engine.run import run
from verifier.errors import ImportFailed
from verifier.judging.outcome import Verdict


def test_every_case_begins_has_its_outcomes_in_order_and_ends(plan):
    wanted = plan("Right", refused=True)
    seen = list(run(wanted, workers=2))
    assert isinstance(seen[0], events.RunStarted)
    assert isinstance(seen[-1], events.RunFinished)
    assert seen[-1].stop is events.Stop.COMPLETE
    for spec in wanted.specs:
        own = [
            event for event in seen if getattr(event, "case", None) == spec.id or getattr(event, "spec", None) == spec
        ]
        assert isinstance(own[0], events.CaseStarted)
        assert tuple(event.outcome.check for event in own[1:-1]) == applicable(spec, seen[0].checks)
        assert isinstance(own[-1], events.CaseFinished)
    assert seen[0].expected == sum(isinstance(event, events.OutcomeReady) for event in seen)


def test_a_case_that_no_check_looks_at_is_told_of_without_a_worker(plan):
    wanted = plan("Quits", only=("build.refusal",))
    seen = [event for event in run(wanted, workers=1) if not isinstance(event, events.Heartbeat)]  # it is the clock's
    assert Counter(type(event).__name__ for event in seen) == {
        "RunStarted": 1,
        "CaseStarted": 3,
        "CaseFinished": 3,
        "RunFinished": 1,
    }


def test_a_wrap_that_raises_system_exit_ends_no_process(plan):
    seen = list(run(plan("Exits"), workers=2))
    assert not any(isinstance(event, events.WorkerLost) for event in seen)
    assert any(isinstance(event, events.OutcomeReady) and event.outcome.verdict is Verdict.ERROR for event in seen)


def test_each_death_costs_one_case_and_names_the_check(plan):
    seen = list(run(plan("Quits"), workers=2))
    outcomes = last_outcomes(seen)
    assert Counter((outcome.check, outcome.verdict) for outcome in outcomes.values()) == {
        ("reference.acceptance", Verdict.PASS): 3,
        ("build.adapter", Verdict.CRASH): 3,
    }
    assert [event.again for event in seen if isinstance(event, events.WorkerLost)] == [True] * 3
    assert len({outcome.fingerprint for outcome in outcomes.values() if outcome.fingerprint}) == 1


@pytest.mark.parametrize("adapter", ["Forks", "Pools"])
def test_what_an_adapter_starts_does_not_speak_for_it(plan, adapter):
    seen = list(run(plan(adapter), workers=2))
    told = [event for event in seen if isinstance(event, events.OutcomeReady)]
    assert Counter((one.outcome.check, one.outcome.verdict) for one in told) == {
        ("reference.acceptance", Verdict.PASS): 3,
        ("build.adapter", Verdict.PASS): 3,
    }


@pytest.mark.slow
def test_what_an_adapter_starts_ends_with_it(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(run(plan("LeavesBehind", count=1, seconds=2.0), workers=1))
    started = Path(f"/proc/{(tmp_path / 'started').read_text()}/stat")
    for _ in range(100):
        if not started.exists() or ") Z " in started.read_text():
            return
        time.sleep(0.05)
    pytest.fail("it is there still")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system does not tell of other processes")
def test_an_import_that_starts_a_thread_leaves_no_process_behind(tmp_path):
    """The thread runs where modules are imported for all workers, and keeps that process from ending by itself."""
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "from verifier import adapter\n"
        "from verifier.reference import models as reference\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "class Subject(adapter.Subject):\n"
        "    def __init__(self, model):\n"
        "        self.model = model\n"
        "    def forward(self, inputs):\n"
        "        return reference.forward(self.model, inputs)\n"
        "    def close(self):\n"
        "        pass\n"
        "class Right:\n"
        "    name = version = 'right'\n"
        "    def wrap(self, model):\n"
        "        return Subject(model)\n"
    )
    where = "alibi=true,new_decoder_architecture=false,multi_query=true,num_ln_in_parallel_attn=1,bias=false"
    mark = f"{tmp_path}/of-this-test"
    command = [sys.executable, "-m", "verifier", "run", "falcon", "--adapter", "threaded:Right", "--where", where]
    ended = subprocess.run(
        [*command, "--only", "build.adapter", "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "VERIFIER_TEST_MARK": mark},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr

    deadline = time.monotonic() + 10
    while processes.marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes.marked(mark) == {}


def test_a_death_after_the_last_check_is_a_failure_to_close(plan):
    seen = list(run(plan("QuitsLate", count=1), workers=1))
    told = {event.outcome.check: event.outcome for event in seen if isinstance(event, events.OutcomeReady)}
    assert told["build.adapter"].verdict is Verdict.PASS
    assert (told["build.close"].verdict, told["build.close"].exception) == (Verdict.CRASH, "exit 3")
    assert told["build.close"].site.endswith("subjects.py:<lambda>")


def test_an_adapter_that_cannot_be_made_is_named(plan):
    with pytest.raises(ImportFailed, match=r"adapter 'subjects:QuitsOnce' ended the process at import.*exit status 9"):
        list(run(plan("QuitsOnce"), workers=2))


def test_an_adapter_is_not_blamed_for_the_first_death_before_a_case(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = plan("QuitsAtFirst", count=1)
    assert {outcome.verdict for outcome in last_outcomes(run(wanted, workers=1)).values()} == {Verdict.PASS}
    (tmp_path / "made").unlink()
    with contextlib.closing(SubprocessRunner(wanted)) as runner:
        assert [one.verdict for one in runner.run(wanted.specs[0], ["build.adapter"]).outcomes] == [Verdict.PASS]


@pytest.mark.slow
def test_a_script_without_a_guard_can_run_a_plan(place):
    script = (
        "from verifier import family\nfrom verifier.cases import matrix\n"
        "from verifier.engine.plan import Plan\n"
        "from verifier.engine.run import run\n"
        "spec = next(spec for spec in matrix.cases(family.load('falcon'), 'falcon') if spec.valid)\n"
        "plan = Plan(family='falcon', adapter='subjects:Right', specs=(spec,), only=('build.adapter',))\n"
        "print([event.outcome.verdict.value for event in run(plan, workers=1) if hasattr(event, 'outcome')])\n"
    )
    ended = subprocess.run([sys.executable, "-"], input=script, cwd=place, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "['pass']\n"), ended.stderr
