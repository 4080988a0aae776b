"""Failures are run again alone, in the order in which they are told, as many as there is time for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verifier import record
from verifier.cases.replaying import narrow
from verifier.cases.spec import CaseSpec
from verifier.engine import confirming
from verifier.engine.case_runner import CaseResult
from verifier.engine.events import Stop
from verifier.engine.plan import Plan
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.confirmation import Alone

DEALT = ({"grad": "grad"}, {"dtype": "float16", "mask": "left", "rows": "one"})
CASE = CaseSpec(family="toy", config={"bias": True}, circumstances=DEALT)
NEEDED = {"dtype": ("bfloat16", "float16"), "mask": ("left",)}
FAILURE = Outcome(check="forward.outputs", verdict=Verdict.FAIL, where="logits", circumstance=NEEDED)
PASS = Outcome(check="forward.outputs", verdict=Verdict.PASS)
OTHER = Outcome(check="build.adapter", verdict=Verdict.ERROR, exception="ValueError")
TIMEOUT = Outcome(check="forward.outputs", verdict=Verdict.TIMEOUT)
PLAN = Plan(family="toy", adapter="mine", specs=(), only=("hooks",))
LINE = record.RunLine(
    family="toy",
    adapter="mine",
    adapter_name="mine",
    adapter_version="1",
    versions={},
    seed=0,
    started="2024-01-01T00:00:00+00:00",
    flags={"bias": [False, True]},
    dims={},
    checks=[],
    planned={"valid": 1, "refused": 0},
    asked={},
    workers=1,
)


@pytest.fixture
def confirm(tmp_path, monkeypatch):
    """Confirm failures of a record, whose case gives these outcomes when it is run again, one each time."""

    def run(ends, *, failures=(FAILURE,), isolated=True, found=None):
        ran = []

        class Runner:
            def __init__(self, plan, *, retries):
                assert not retries
                assert plan.only == ()  # what a selected check rests on is told, though nobody selected it

            def renew(self):
                ran.append("a fresh process")

            def run(self, spec, checks, *, seconds, told):
                assert checks is None or set(told) == set(checks)  # it is looked for where it was told
                ran.append((spec.circumstances, checks))
                end = ends[sum(one != "a fresh process" for one in ran) - 1]
                if isinstance(end, BaseException):
                    raise end
                return CaseResult(outcomes=(end,), seconds=0.0)

            def close(self):
                pass

        monkeypatch.setattr(confirming, "SubprocessRunner", Runner)
        with record.Writer(tmp_path) as writer:
            checks = [{"id": failure.check, "doc": "", "applies": "valid"} for failure in failures]
            writer.run(replace(LINE, checks=checks))
            writer.case(CASE)
            for failure in failures:
                writer.outcome(CASE.id, failure)
            for one in found or ():
                writer.alone(one)
            stop, _ = confirming.confirm_failures(
                record.read(tmp_path), writer, PLAN, lambda number: None, isolated=isolated
            )
        return stop, list(record.read(tmp_path).confirmations.values()), ran

    return run


def test_the_plainest_circumstance_is_enough(confirm):
    stop, (found,), ran = confirm([FAILURE])
    assert (stop, found.alone, found.narrowed, found.caveat) == (Stop.COMPLETE, Alone.FAILS, True, None)
    assert ran == ["a fresh process", (({"dtype": "bfloat16", "mask": "left"},), ("forward.outputs",))]


@pytest.mark.parametrize(
    ("ends", "alone", "word"),
    [
        ([PASS, FAILURE], Alone.FAILS, None),
        ([PASS, replace(FAILURE, circumstance={"mask": ("left",)})], Alone.FAILS, None),
        ([PASS, replace(FAILURE, where="loss")], Alone.DIFFERS, "fails in another way"),
        ([PASS, PASS], Alone.PASSES, "passes"),
        ([PASS, OTHER], Alone.DIFFERS, "fails in another way"),
        ([PASS, TIMEOUT], Alone.NOT_TRIED, None),
    ],
)
def test_what_is_not_enough_is_tried_in_all_that_the_case_was_dealt(confirm, ends, alone, word):
    _, (found,), ran = confirm(ends)
    assert (found.alone, found.narrowed) == (alone, False)
    assert ran[3] == (DEALT, ("forward.outputs",))
    assert word is None if found.caveat is None else f"it {word}:" in found.caveat


def test_an_interrupt_leaves_the_rest_for_a_run_that_is_taken_up_again(confirm):
    second = Outcome(check="zzz.later", verdict=Verdict.FAIL, where="x")
    stop, found, _ = confirm([FAILURE, KeyboardInterrupt()], failures=(FAILURE, second))
    assert stop is Stop.INTERRUPTED
    assert [one.fingerprint for one in found] == [FAILURE.fingerprint]
    _, again, ran = confirm([second], failures=(FAILURE, second), found=found)
    assert [one.alone for one in again] == [Alone.FAILS, Alone.FAILS]
    assert len(ran) == 2


def test_only_so_many_are_tried_and_the_others_are_named(confirm):
    many = [Outcome(check=f"a.{number:03}", verdict=Verdict.FAIL, where="x") for number in range(confirming.MOST + 2)]
    _, found, _ = confirm(many, failures=many)
    assert [one.alone for one in found] == [Alone.FAILS] * confirming.MOST + [Alone.NOT_TRIED] * 2


def test_when_the_time_is_up_none_is_tried(confirm, monkeypatch):
    monkeypatch.setattr(confirming, "SECONDS", 0.0)
    _, (found,), ran = confirm([])
    assert (found.alone, ran) == (Alone.NOT_TRIED, [])


def test_this_process_is_no_fresh_one(confirm):
    _, (found,), ran = confirm([], isolated=False)
    assert (found.alone, ran) == (Alone.NOT_TRIED, [])


def test_one_mistake_is_run_once_and_a_death_not_at_all(confirm):
    same = [
        Outcome(check=check, verdict=Verdict.ERROR, exception="TypeError", site="mine.py:wrap")
        for check in ("a.b", "c.d")
    ]
    crash = Outcome(check="e.f", verdict=Verdict.CRASH)
    _, found, _ = confirm(same, failures=(*same, crash))
    assert [one.fingerprint for one in found] == [same[0].fingerprint]


def test_a_case_is_narrowed_to_the_plainest_circumstance_of_a_failure():
    narrowed = narrow(CASE, "forward.outputs", NEEDED)
    assert narrowed is not None
    assert (narrowed.circumstances, narrowed.id) == (({"dtype": "bfloat16", "mask": "left"},), CASE.id)
    gradients = narrow(CASE, "backward.weights", None)
    assert gradients is not None
    assert gradients.circumstances == ({"grad": "grad"},)
    assert narrow(CASE, "forward.outputs", {"past": ("token",), "mask": ("additive",)}) is None
