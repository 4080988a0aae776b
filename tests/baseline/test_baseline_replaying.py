"""What became of a known failure: its own case is run again, with its check, before everything else."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from known_toys import OTHER, WRONG, baseline, failure, spec

from verifier.baseline.replaying import replay, settle
from verifier.engine.events import CheckInfo, OutcomeReady, RunFinished, RunStarted, Stop
from verifier.engine.plan import Plan
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.known_failure import EntryState

TODAY = date(2026, 5, 1)
PASSES = Outcome(check="qkv.rows", verdict=Verdict.PASS)


def settled(outcome, *, selected=True, **changed):
    return settle(failure(**changed), outcome, selected, TODAY)


def test_what_still_fails_so_is_known():
    found = settled(WRONG)
    assert (found.state, found.message) == (EntryState.KNOWN, None)


def test_other_numbers_and_another_layer_are_the_same_failure():
    assert settled(replace(WRONG, measured=0.5, bound=0.1, where="blocks.3.attn.hook_q")).state is EntryState.KNOWN


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.REDUCED, Verdict.UPSTREAM])
def test_what_does_not_fail_any_more_is_fixed(verdict):
    assert settled(Outcome(check="qkv.rows", verdict=verdict, where="eager")).state is EntryState.FIXED


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (OTHER, "ERROR: KeyError: 'q'"),
        (replace(WRONG, where="blocks.0.mlp.hook_post", message="off by 1"), "FAIL: off by 1"),
        (
            Outcome(check="qkv.rows", verdict=Verdict.SKIP, message="blocked: it does not build"),
            "n/a: blocked: it does",
        ),
        (Outcome(check="qkv.rows", verdict=Verdict.SKIP), "n/a: no reason given"),
        (Outcome(check="qkv.rows", verdict=Verdict.CRASH, message="it died of SIGSEGV"), "CRASH: it died of SIGSEGV"),
        (Outcome(check="qkv.rows", verdict=Verdict.TIMEOUT, message="it took 30 s"), "TIMEOUT: it took 30 s"),
    ],
)
def test_anything_else_is_a_change_and_says_what_it_is(outcome, said):
    found = settled(outcome)
    assert found.state is EntryState.CHANGED
    assert found.message.startswith(said)


def test_a_known_crash_is_known():
    crash = Outcome(check="qkv.rows", verdict=Verdict.CRASH, message="it died of SIGSEGV")
    assert settled(crash, fingerprint=crash.fingerprint).state is EntryState.KNOWN


@pytest.mark.parametrize(
    ("days", "state"),
    [
        (1, EntryState.KNOWN),
        (0, EntryState.KNOWN),
        (-1, EntryState.EXPIRED),
        (-1000, EntryState.EXPIRED),
    ],
)
def test_the_day_on_which_it_expires_is_the_last_on_which_it_is_accepted(days, state):
    found = settled(WRONG, expires=TODAY + timedelta(days=days))
    assert found.state is state
    assert (found.message is None) is (state is EntryState.KNOWN)


def test_what_expired_and_is_fixed_is_fixed_and_what_changed_has_changed():
    assert settled(PASSES, expires=date(2000, 1, 1)).state is EntryState.FIXED
    assert settled(OTHER, expires=date(2000, 1, 1)).state is EntryState.CHANGED


def test_a_check_that_was_not_selected_says_nothing():
    assert settled(None, selected=False).state is EntryState.NOT_RUN


def test_a_check_that_does_not_look_at_the_case_any_more_is_a_change():
    found = settled(None)
    assert (found.state, found.message) == (EntryState.CHANGED, "qkv.rows does not look at its case any more")


# --- the replay ------------------------------------------------------------------------------------------------------

ONE, TWO = failure(), failure(fingerprint="second22", check="forward.logits")
THREE = failure(fingerprint="third333", spec=spec(alibi=True))
CHECKS = tuple(CheckInfo(id=check, doc="", applies="valid") for check in ("qkv.rows", "forward.logits"))


class _Runs:
    """Runs nothing: keeps the plan, and gives these outcomes."""

    def __init__(self, *outcomes, stop=Stop.COMPLETE):
        self.outcomes, self.stop, self.plans = outcomes, stop, []

    def __call__(self, plan):
        self.plans.append(plan)
        yield RunStarted(adapter_name="mine", adapter_version="1", checks=CHECKS, workers=1, expected=0)
        for case, outcome in self.outcomes:
            yield OutcomeReady(case=case, outcome=outcome)
        yield RunFinished(stop=self.stop, seconds=1.0)


PLAN = Plan(family="toy", adapter="mine:Adapter", specs=(spec(heads=4),), only=("q*", "forward"))


def _replayed(runs, *failures, plan=PLAN, refusal=lambda spec: None):
    return replay(baseline(*failures), plan, runs, refusal, TODAY)


def test_each_case_is_run_once_for_the_checks_of_its_entries_alone():
    runs = _Runs()
    _replayed(runs, ONE, TWO, THREE)
    [plan] = runs.plans
    assert plan.specs == (ONE.spec, THREE.spec)
    assert plan.wanted == {ONE.spec.id: ("qkv.rows", "forward.logits"), THREE.spec.id: ("qkv.rows",)}
    assert (plan.adapter, plan.only, plan.limits) == (PLAN.adapter, PLAN.only, PLAN.limits)


def test_where_a_check_was_not_selected_all_that_were_are_run_and_may_rest_on_it():
    runs = _Runs((ONE.spec.id, PASSES), (TWO.spec.id, replace(WRONG, check="forward.logits")))
    found, _ = _replayed(runs, ONE, TWO, THREE, plan=replace(PLAN, only=("q*",)))
    assert runs.plans[0].wanted == {THREE.spec.id: ("qkv.rows",)}
    assert [one.state for one in found] == [
        EntryState.FIXED,
        EntryState.CHANGED,
        EntryState.CHANGED,
    ]


def test_each_entry_is_settled_by_its_own_outcome_in_the_order_of_the_file():
    passes = replace(PASSES, check="forward.logits")
    found, stop = _replayed(_Runs((ONE.spec.id, passes), (THREE.spec.id, OTHER), (ONE.spec.id, WRONG)), ONE, TWO, THREE)
    assert stop is Stop.COMPLETE
    assert [one.failure for one in found] == [ONE, TWO, THREE]
    assert [one.state for one in found] == [EntryState.KNOWN, EntryState.FIXED, EntryState.CHANGED]


def test_of_a_case_that_is_run_again_the_later_outcome_counts():
    crash = Outcome(check="qkv.rows", verdict=Verdict.CRASH)
    [one], _ = _replayed(_Runs((ONE.spec.id, crash), (ONE.spec.id, WRONG)), ONE)
    assert one.state is EntryState.KNOWN


def test_nothing_is_settled_by_a_replay_that_is_interrupted():
    found, stop = _replayed(_Runs((ONE.spec.id, WRONG), stop=Stop.INTERRUPTED), ONE)
    assert (found, stop) == ((), Stop.INTERRUPTED)


def test_without_entries_nothing_is_run():
    runs = _Runs()
    assert _replayed(runs) == ((), Stop.COMPLETE)
    assert runs.plans == []


def test_the_case_is_valid_if_hugging_face_accepts_it_today():
    runs = _Runs()
    _replayed(runs, ONE, refusal=lambda spec: "no longer")
    [again] = runs.plans[0].specs
    assert (again.valid, again.reason) == (False, "no longer")


def test_the_case_is_run_on_the_device_of_the_run():
    runs = _Runs()
    [one], _ = _replayed(runs, ONE, plan=replace(PLAN, device="meta"))
    assert [again.device for again in runs.plans[0].specs] == ["meta"]
    assert one.failure.spec.device == "cpu"
