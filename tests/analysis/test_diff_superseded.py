"""Records of before and after checks became observables, compared: what failed is still there, mended, or unknown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_records import CHECKS, outcome, specs

from verifier.analysis.changes import ChangeKind
from verifier.analysis.diff import compare_records
from verifier.checks.superseded import SUPERSEDED
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict
from verifier.report import diff

GONE, HEIR = "qkv.rows", "forward.outputs"
LEFT = {"mask": "left"}
PASS, FAIL, SKIP = Verdict.PASS, Verdict.FAIL, Verdict.SKIP


@pytest.fixture(autouse=True)
def _superseded(monkeypatch):
    monkeypatch.setitem(SUPERSEDED, GONE, [(HEIR, LEFT)])


@pytest.fixture
def compared(make):
    """What became of an outcome of the check that is gone, in a record in which its observable has another outcome."""

    def both(before, after, *, padded=True, cases=None, looked=None):
        chosen = specs()[:1] if cases is None else cases
        old = make(chosen, lambda spec, check: outcome(check, before, where="padding") if check == GONE else None)
        if looked is not None:  # OLD looked at the observable too
            old = _with(old, [replace(_renamed(one), outcome=outcome(HEIR, looked)) for one in _of(old, GONE)])
        circumstances = ({}, LEFT) if padded else ({},)
        dealt = [replace(spec, circumstances=circumstances) for spec in chosen]
        new = make(dealt, lambda spec, check: outcome(check, after, where="logits") if check == GONE else None)
        checks = [{"id": HEIR if check == GONE else check, "doc": ""} for check in CHECKS]
        entries = tuple(_renamed(one) if one.outcome.check == GONE else one for one in new.entries)
        return compare_records(old, replace(new, run=replace(new.run, checks=checks), entries=entries))

    return both


def _of(record, check):
    return [one for one in record.entries if one.outcome.check == check]


def _with(record, entries):
    return replace(record, entries=(*record.entries, *entries))


def _renamed(entry):
    return replace(entry, outcome=replace(entry.outcome, check=HEIR), fingerprint=None)


def _kind(found):
    """The kind of the outcome in question: what else there is agrees, or was looked at by neither."""
    others = (ChangeKind.AGREES, ChangeKind.UNSEEN)
    (kind,) = [kind for kind, count in found.counts.items() if count and kind not in others] or [None]
    return kind


@pytest.mark.parametrize(
    ("before", "after", "padded", "kind"),
    [
        (FAIL, FAIL, True, ChangeKind.CHANGED),
        (FAIL, FAIL, False, ChangeKind.CHANGED),
        (FAIL, PASS, True, ChangeKind.MENDED),
        (FAIL, SKIP, True, ChangeKind.LOST),
        (FAIL, SKIP, False, ChangeKind.SUPERSEDED),
        (PASS, PASS, True, None),
        (PASS, FAIL, True, ChangeKind.BROKEN),
        (PASS, SKIP, True, ChangeKind.LOST),
        (PASS, SKIP, False, ChangeKind.SUPERSEDED),
        (SKIP, PASS, True, ChangeKind.GAINED),
        (SKIP, FAIL, True, ChangeKind.BROKEN),
    ],
)
def test_an_outcome_of_a_check_that_is_gone_is_held_against_its_observable(compared, before, after, padded, kind):
    assert _kind(compared(before, after, padded=padded)) is kind


def test_where_new_looks_at_a_case_in_other_circumstances_nothing_is_mended_and_nothing_lost(compared):
    found = compared(FAIL, PASS, padded=False, cases=specs())
    assert found.of(ChangeKind.MENDED) == found.lost == ()
    assert (found.counts[ChangeKind.SUPERSEDED], found.counts[ChangeKind.GAINED]) == (12, 12)
    assert found.status is ExitStatus.CONFORMS
    (gone,) = found.superseded
    assert (gone.check, len(gone.apart), gone.failed) == (GONE, 12, 12)
    assert found.notes == (
        "1 check of OLD superseded by observables: qkv.rows; of 12 failures in OLD nothing is known, because NEW does "
        "not look at the case in that way",
    )


def test_what_failed_before_is_still_there_and_names_the_check_that_is_gone(compared):
    found = compared(FAIL, FAIL)
    (changed,) = found.of(ChangeKind.CHANGED)
    assert (changed.entry.outcome.check, changed.was) == (HEIR, "qkv.rows FAIL: padding")
    assert found.status is ExitStatus.CONFORMS
    assert found.notes == ("1 check of OLD superseded by observables: qkv.rows",)


def test_what_old_saw_of_the_observable_itself_counts_too_and_the_worse_of_the_two(compared):
    assert _kind(compared(FAIL, FAIL, looked=PASS)) is ChangeKind.CHANGED
    assert _kind(compared(PASS, FAIL, looked=FAIL)) is ChangeKind.CHANGED
    assert _kind(compared(FAIL, PASS, looked=PASS)) is ChangeKind.MENDED
    assert _kind(compared(PASS, FAIL, looked=PASS)) is ChangeKind.BROKEN


def test_a_failure_that_is_mended_is_looked_at_again_where_it_can_be(compared):
    found = compared(FAIL, PASS)
    (mended,) = found.of(ChangeKind.MENDED)
    assert mended.entry.outcome.check == GONE
    assert mended.reproduce == f"verifier repro {mended.smallest.id} {found.new.location}"


def test_where_new_did_not_run_the_observable_the_outcome_is_lost(make):
    old = make(specs()[:1])
    run = {"checks": [{"id": check, "doc": ""} for check in CHECKS if check != GONE]}
    new = make(specs()[:1], **run)
    found = compare_records(old, replace(new, entries=tuple(one for one in new.entries if one.outcome.check != GONE)))
    assert [(one.check, one.reason) for one in found.lost] == [(GONE, "NEW did not run what took its place")]
    assert found.superseded == ()


def test_a_check_that_both_ran_is_compared_as_any_other(make):
    found = compare_records(make(specs()[:1]), make(specs()[:1], lambda spec, check: outcome(check, FAIL, where="q")))
    assert {one.entry.outcome.check for one in found.of(ChangeKind.BROKEN)} >= {GONE}
    assert found.superseded == ()


def test_all_that_took_its_place_counts(compared, monkeypatch):
    monkeypatch.setitem(SUPERSEDED, GONE, [(HEIR, LEFT), ("forward.logits", {})])
    assert _kind(compared(FAIL, PASS)) is ChangeKind.MENDED
    monkeypatch.setitem(SUPERSEDED, GONE, [(HEIR, LEFT), ("forward.logits", {"length": "long"})])
    found = compared(FAIL, PASS)
    assert (found.counts[ChangeKind.SUPERSEDED], found.counts[ChangeKind.MENDED]) == (1, 0)


def test_the_json_has_what_took_its_place(compared):
    found = json.loads(diff.as_json(compared(FAIL, PASS, padded=False)))
    (gone,) = found["superseded"]
    assert gone == {"check": GONE, "now": [[HEIR, LEFT]], "cases_apart": [specs()[0].id], "failed": 1}
    assert found["counts"]["superseded"] == 1
