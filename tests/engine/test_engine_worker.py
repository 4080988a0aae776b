"""An outcome leaves a worker in plain types, with its texts cut, and the same each time."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
import time

import pytest

from verifier.cases.spec import CaseSpec
from verifier.checks import runner
from verifier.engine import events, loading, messages, preload, safeguard, worker
from verifier.engine.plan import Task
from verifier.engine.worker import DETAIL_LIMIT, LINE_LIMIT, trim_outcome
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


class Left(Exception):
    """A worker process has ended itself."""


def leave(status):
    raise Left(status)


@pytest.fixture
def broken(monkeypatch):
    """A case whose second check never ends, because something broke what runs it."""

    def run_case(spec, family, adapter, checks, seen, looked, refused):
        yield Outcome(check="a.b", verdict=Verdict.PASS)
        raise LookupError("the harness lost its way")

    monkeypatch.setattr(runner, "run_case", run_case)
    monkeypatch.setattr(worker, "_exit_now", leave)
    return Task(spec=CaseSpec(family="toy", config={}))


def test_what_breaks_the_harness_is_its_cases_and_the_process_ends(broken, tmp_path):
    said = []
    with pytest.raises(Left):
        worker._run(said.append, broken, NOTHING, tmp_path / "log")
    outcome, failed = said
    assert isinstance(outcome, events.OutcomeReady)
    assert isinstance(failed, messages.CaseFailed)
    assert (failed.case, failed.exception) == (broken.spec.id, "LookupError")
    assert failed.said == "LookupError: the harness lost its way"
    assert "run_case" in failed.detail


def test_last_words_that_cannot_be_sent_are_written_down(broken, tmp_path):
    def say(message):
        raise OSError("the pipe is closed")

    with pytest.raises(Left):
        worker._run(say, broken, NOTHING, tmp_path / "log")
    words = messages.decode((tmp_path / "log.words").read_bytes())
    assert (words.exception, words.said) == ("OSError", "OSError: the pipe is closed")


NOTHING = loading.Loaded(family=None, adapter=None, checks=())


def test_what_a_case_patched_of_python_is_put_back():
    kept = len, json.dumps, time.perf_counter, os.open
    builtins.len = json.dumps = time.perf_counter = os.open = None
    safeguard.restore()
    assert (len, json.dumps, time.perf_counter, os.open) == kept
