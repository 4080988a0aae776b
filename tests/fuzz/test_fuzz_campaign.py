"""Campaigns: rare meetings of fields are found and shrunk, whatever dies is a failure like any other, all are told."""

from __future__ import annotations

import queue
import threading
import time
from types import SimpleNamespace

import pytest
from made_records import row, specs

from verifier.cases.circumstances import AXES, PLAIN
from verifier.engine import events
from verifier.engine.case_runner import CaseResult
from verifier.engine.plan import Plan
from verifier.fuzz import campaign, ledger
from verifier.fuzz.fields import STEPS
from verifier.fuzz.ledger import Ledger, believable
from verifier.fuzz.request import CampaignRequest
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.fuzz_finding import CampaignProgress, ReplayedFailure, ShrinkStatus, ShrunkFailure, StoredFailure


def _found(happened):
    return {one.check: one for one in happened if isinstance(one, ShrunkFailure)}


def _last(happened):
    return [one for one in happened if isinstance(one, CampaignProgress)][-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "check", "differs", "within"),
    [
        ("SlopesOfLongText", "forward.outputs", {"alibi": True, "length": "multiple"}, 115),
        ("OneActivation", "forward.logits", {"activation": "silu"}, 50),
    ],
)
def test_a_rare_meeting_of_fields_is_found_and_shrunk_to_it(fuzz, adapter, check, differs, within):
    # These adapters forward and nothing else, so that they offer few circumstances.
    offered = ("rows", "length", "mask", "positions", "dims")
    happened = fuzz(adapter, check, most=within, fixed={axis: PLAIN[axis] for axis in AXES if axis not in offered})
    found = _found(happened)
    assert set(found) == {check}
    assert dict(found[check].differs) == differs
    assert found[check].first <= within
    assert found[check].again == (2, 2)
    # Each field of it is needed: with the plainest value in its place the check passes.
    assert {one.field for one in found[check].neighbours if one.verdict is Verdict.PASS} == set(differs)


@pytest.mark.slow
def test_what_is_wrong_after_two_steps_is_found_and_shrunk_to_them(fuzz):
    most = 400
    plain = {axis: PLAIN[axis] for axis in AXES if axis != "history"}
    few = {"vocab_size": "89", "activation": "gelu", "long": "97", "padding": "0", "d_head": "6"}
    (found,) = _found(fuzz("AfterTwo", "forward.outputs", most=most, fixed={**plain, **few})).values()
    assert dict(found.differs) == {"history": "masked", "then": "longer"}
    assert found.again == (2, 2)


@pytest.mark.slow
def test_shrinking_ends_soon_after_the_campaign_and_is_not_called_over(fuzz, monkeypatch, tmp_path):
    plain = {"vocab_size": "89", "long": "97", "padding": "0", "d_head": "6"}
    began = []

    def late(self):
        began.append(len(began))
        return len(began) > 6

    monkeypatch.setattr(Ledger, "is_late", property(late))
    (found,) = _found(fuzz("OneActivation", "forward.logits", most=50, fixed=plain, choices=tmp_path)).values()
    assert found.cut
    assert 2 < found.calls < 10
    assert found.again == (2, 2)
    assert found.neighbours == ()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_how_long_a_campaign_may_go_on_shrinking():
    def late(limit, at):
        one = object.__new__(Ledger)
        one._request, one._began = SimpleNamespace(seconds=limit), time.perf_counter() - at
        return one.is_late

    assert not late(None, 1e9)
    assert [late(60, at) for at in (61, 89, 91)] == [False, False, True]
    assert [late(600, at) for at in (659, 661)] == [False, True]


def test_what_came_of_a_case_s_circumstances_is_told_before_the_case_ends():
    one = object.__new__(Ledger)
    one.events, one._usual = queue.SimpleQueue(), []
    (spec, *_) = specs()
    one.tell(spec, CaseResult(outcomes=(), seconds=1.0, rows=(row(spec.id),)))
    told = [one.events.get_nowait() for _ in range(one.events.qsize())]
    assert told[1:] == [events.RowReady(row=row(spec.id)), events.CaseFinished(case=spec.id, seconds=1.0)]


@pytest.mark.slow
def test_a_failure_that_is_found_again_is_shrunk_in_few_calls(fuzz, tmp_path):
    plain = {**PLAIN, "vocab_size": "89", "activation": "gelu", "long": "97", "padding": "0", "d_head": "6"}

    def shrunk():
        (found,) = _found(fuzz("Grouped", "build.adapter", most=70, fixed=plain, choices=tmp_path)).values()
        return found

    first, again = shrunk(), shrunk()
    assert dict(first.differs) == {"new_decoder_architecture": True, "num_kv_heads": 2}
    assert again.case == first.case
    assert again.calls * 3 < first.calls
    # Nothing but time hangs on the folder, and what is broken in it is mended.
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"garbage")
    broken, mended = shrunk(), shrunk()
    assert (broken.case, broken.calls) == (first.case, first.calls)
    assert (mended.case, mended.calls) == (again.case, again.calls)


@pytest.mark.slow
def test_four_ways_of_failing_are_four_minimal_cases(fuzz, monkeypatch):
    monkeypatch.setattr(ledger, "_LEAST_SECONDS", 0.6)  # each case that hangs is waited for
    happened = fuzz("Everything", "build.adapter", "forward.logits", most=150, seconds=4.0, workers=2)
    minimal = {frozenset(one.differs.items()) for one in happened if isinstance(one, ShrunkFailure)}
    assert minimal == {
        frozenset({"alibi": True, "bias": True}.items()),
        frozenset({"multi_query": False, "activation": "relu"}.items()),
        frozenset({"parallel_attn": False, "vocab_size": 23}.items()),
        frozenset({"ffn_hidden_size": 40, "tie_word_embeddings": False}.items()),
    }
    failing = {
        one.outcome.verdict for one in happened if isinstance(one, events.OutcomeReady) and one.outcome.verdict.gates
    }
    assert failing == {Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR, Verdict.FAIL}
    assert happened[-1].stop is events.Stop.COMPLETE


@pytest.mark.slow
def test_what_does_not_come_again_is_unstable_and_stays_told(fuzz, in_folder):
    happened = fuzz("Wavers", "forward.logits", most=25, fixed={"bias": "true"})
    (found,) = _found(happened).values()
    assert not found.stable
    assert found.again[1] == 2
    last = {}
    for one in happened:
        if isinstance(one, events.OutcomeReady):
            last[one.case, one.outcome.check] = one.outcome.verdict
    assert Verdict.FAIL in last.values()
    (in_folder / "wavered").unlink()


@pytest.mark.slow
def test_kept_failures_are_tried_first_and_told_what_became_of_them(fuzz, in_folder):
    before = fuzz("Mended", "forward.logits", most=10, fixed={"bias": "true"})
    (found,) = _found(before).values()
    spec = next(one.spec for one in before if isinstance(one, events.CaseStarted) and one.spec.id == found.case)
    kept = StoredFailure(fingerprint=found.fingerprint, check=found.check, spec=spec, differs={})
    changed = StoredFailure(fingerprint="another", check=found.check, spec=spec, differs={})

    def statuses(*some):
        happened = fuzz("Mended", "forward.logits", most=3, kept=some)
        return [one.status for one in happened if isinstance(one, ReplayedFailure)], happened

    still, happened = statuses(kept)
    assert still == [ShrinkStatus.STILL]
    assert next(one for one in happened if isinstance(one, events.CaseStarted)).spec.id == spec.id
    assert [one.case for one in happened if isinstance(one, ShrunkFailure)] == [spec.id]
    assert statuses(changed)[0] == [ShrinkStatus.CHANGED]
    (in_folder / "mended").touch()
    assert statuses(kept)[0] == [ShrinkStatus.FIXED]
    (in_folder / "mended").unlink()


@pytest.mark.slow
def test_a_right_adapter_has_no_failure_and_pairs_are_counted(fuzz):
    happened = fuzz("Right", "forward.logits", "build.forward", most=60, workers=2)
    assert _found(happened) == {}
    last = _last(happened)
    assert last.cases == 60
    assert 0 < last.pairs[0] < last.pairs[1]
    assert last.refused > 0


@pytest.mark.slow
def test_one_worker_and_one_seed_give_the_same_campaign(fuzz):
    def cases():
        happened = fuzz("Right", "build.adapter", most=250, fixed={"vocab_size": "89", "activation": "gelu"})
        return [one.spec.id for one in happened if isinstance(one, events.CaseStarted)]

    first = cases()
    assert len(first) == len(set(first)) == 250
    assert cases() == first


@pytest.mark.slow
def test_a_space_that_is_exhausted_ends_the_campaign(fuzz, falcons):
    plain = {field.name: None for field in falcons().fields}
    free = ("alibi", "bias")
    from verifier.output.text import value

    fixed = {name: value(field.values[0]) for field in falcons().fields if (name := field.name) not in (*free, *STEPS)}
    assert {*fixed, *free, *STEPS} == set(plain)  # a history is fixed with its steps
    happened = fuzz("Right", "build.adapter", most=None, fixed=fixed)
    assert _last(happened).cases == 4


@pytest.mark.slow
def test_whoever_stops_listening_leaves_no_thread_behind(in_folder, falcons):
    plan = Plan(family="falcon", adapter="fuzzed:Right", specs=(), only=("build.adapter",))
    request = CampaignRequest(space=falcons(), plan=plan, workers=2)
    events_told = campaign.run(request)
    for event in events_told:
        if isinstance(event, events.CaseFinished):
            break
    events_told.close()
    assert [one for one in threading.enumerate() if one.name.startswith("verifier-fuzz")] == []


@pytest.mark.slow
def test_what_was_not_looked_at_is_not_called_fixed(fuzz):
    (found,) = _found(before := fuzz("Mended", "forward.logits", most=4, fixed={"bias": "true"})).values()
    spec = next(one.spec for one in before if isinstance(one, events.CaseStarted) and one.spec.id == found.case)
    kept = StoredFailure(fingerprint=found.fingerprint, check=found.check, spec=spec, differs={})
    happened = fuzz("Mended", "build.adapter", most=2, kept=(kept,))
    assert [one.status for one in happened if isinstance(one, ReplayedFailure)] == [ShrinkStatus.UNSEEN]


def test_what_is_cut_off_while_a_hang_is_shrunk_is_no_failure_of_its_own() -> None:
    def cut_off(check: str) -> Outcome:
        return Outcome(check=check, verdict=Verdict.TIMEOUT, message="the process was not done", exception="timeout")

    hang, raised = cut_off("forward.outputs"), Outcome(check="forward.losses", verdict=Verdict.FAIL)
    outcomes = (hang, cut_off("weights.restore"), raised)
    assert tuple(believable(outcomes, hang)) == (hang, raised)
    assert tuple(believable(outcomes, raised)) == outcomes  # nothing was hurried
