"""An outcome leaves a worker in plain types, with its texts cut, and the same each time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys

from verifier.cases.spec import CaseSpec
from verifier.checks import runner
from verifier.engine import events, loading, preload, worker
from verifier.engine.plan import Task
from verifier.engine.worker import DETAIL_LIMIT, LINE_LIMIT, trim_outcome
from verifier.errors import HarnessError
from verifier.judging.outcome import Outcome, Verdict


def test_a_huge_text_is_cut_and_says_so():
    outcome = trim_outcome(
        Outcome(
            check="a.b", verdict=Verdict.ERROR, message="x" * 10_000_000, detail="first" + "y" * 10_000_000 + "last"
        )
    )
    assert len(outcome.message) < LINE_LIMIT + 100
    assert "characters left out" in outcome.message
    assert len(outcome.detail) < DETAIL_LIMIT + 100
    assert outcome.detail.startswith("first")
    assert outcome.detail.endswith("last")


def test_addresses_are_not_told():
    outcome = trim_outcome(Outcome(check="a.b", verdict=Verdict.ERROR, message="<Model object at 0x7f3a2b1c0d10>"))
    assert outcome.message == "<Model object at 0x…>"


def test_a_short_number_is_no_address():
    assert trim_outcome(Outcome(check="a.b", verdict=Verdict.FAIL, message="flag 0x1f")).message == "flag 0x1f"


def test_what_a_check_gives_becomes_plain():
    class Number(float):
        pass

    class Word(str):
        pass

    outcome = trim_outcome(
        Outcome(check="a.b", verdict=Verdict.FAIL, measured=Number(2), bound=Number(1), where=Word("here"))
    )
    assert type(outcome.measured) is type(outcome.bound) is float
    assert type(outcome.where) is str
    assert pickle.loads(pickle.dumps(outcome)) == outcome


def test_preloading_outlives_what_fails(tmp_path):
    (tmp_path / "fine.py").write_text("print('noise')\nTOLD = []\ndef __getattr__(name):\n    TOLD.append(name)")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    (tmp_path / "raises.py").write_text("raise RuntimeError('no')")
    script = (
        f"import gc, sys, {preload.__name__}\n"
        "assert 'exits' not in sys.modules and 'raises' not in sys.modules\n"
        "assert sys.modules['fine'].TOLD == ['Lazy']\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 1000\n"
    )
    spelt = preload.spell(["exits", "raises", "absent", "fine"], [("fine", "Lazy"), ("absent", "X")], [str(tmp_path)])
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, preload.VARIABLE: spelt, preload.OWNER: str(os.getpid())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "")


def test_a_fault_of_the_harness_is_no_outcome(monkeypatch):
    def run_case(spec, family, adapter, checks, seen, looked):
        yield Outcome(check="a.b", verdict=Verdict.PASS)
        raise LookupError("the harness lost its way")

    monkeypatch.setattr(runner, "run_case", run_case)
    here, there = multiprocessing.Pipe()
    spec = CaseSpec(family="toy", config={})
    worker._run(there, Task(spec=spec), loading.Loaded(family=None, adapter=None, checks=()))
    assert isinstance(here.recv(), events.OutcomeReady)
    failed = here.recv()
    assert isinstance(failed, HarnessError)
    assert str(failed) == f"the harness failed on case {spec.id}: LookupError: the harness lost its way"
    assert "run_case" in failed.detail
