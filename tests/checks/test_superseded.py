"""Checks that are gone: each has observables that there are, in circumstances that there are, in its place."""

from __future__ import annotations

import subprocess
import sys

import pytest

from verifier.cases.circumstances import PLAIN, complete, differences, has_met, needs_of, read_rows
from verifier.checks import select_from
from verifier.checks.superseded import SUPERSEDED, is_taken_over
from verifier.engine import catalogue
from verifier.errors import UsageError

PLACES = [(check, *place) for check, places in SUPERSEDED.items() for place in places]
_IDS = [f"{check}-{place}" for check, places in SUPERSEDED.items() for place in range(len(places))]
_REGISTERED = {one.id for one in catalogue.registered()}


@pytest.mark.parametrize("check", SUPERSEDED)
def test_a_check_that_is_gone_is_no_check(check):
    assert check not in _REGISTERED
    assert SUPERSEDED[check]


@pytest.mark.parametrize(("check", "observable", "needed"), PLACES, ids=_IDS)
def test_what_took_its_place_is_looked_at_in_circumstances_that_there_are(check, observable, needed):
    assert observable in _REGISTERED
    assert all(PLAIN[axis] != value for axis, value in needed.items()), "what is plain goes without saying"
    assert complete(needed, needs_of(observable)) is not None
    wanted = {axis: (value,) for axis, value in needed.items()}
    assert any(has_met(observable, [differences(row)], wanted) for row in read_rows())


def test_it_is_taken_over_where_a_case_is_looked_at_in_all_of_them(monkeypatch):
    places = [("forward.outputs", {"length": "one"}), ("forward.losses", {"mask": "left"})]
    monkeypatch.setitem(SUPERSEDED, "toy.gone", places)
    one, padded = {"length": "one", "dtype": "float32"}, {"mask": "left", "labels": "given"}
    assert is_taken_over("toy.gone", [one, padded])
    assert not is_taken_over("toy.gone", [one])
    assert not is_taken_over("toy.gone", [one, {"mask": "left"}])  # without labels there is no loss
    assert not is_taken_over("toy.gone", [])


def test_a_check_that_is_gone_is_said_to_be_its_observable(monkeypatch):
    for number in range(5):
        monkeypatch.setitem(SUPERSEDED, f"toy.gone{number}", [("forward.losses", {})])
    monkeypatch.setitem(SUPERSEDED, "toy.gone1", [("forward.outputs", {"mask": "left", "past": "token"})])
    monkeypatch.setitem(SUPERSEDED, "toy.gone2", [("hooks.shown", {"mask": "left"}), ("hooks.shown", {})])

    def said(pattern):
        with pytest.raises(UsageError) as refused:
            select_from(catalogue.registered(), [pattern])
        return str(refused.value)

    assert said("toy.gone0") == "no check matches 'toy.gone0' any more: toy.gone0 is now `--only forward.losses`"
    assert said("toy.gone1").endswith("is now `--only forward.outputs --where mask=left,past=token`")
    assert said("toy.gone2").endswith("is now `--only hooks.shown --where mask=left` and `--only hooks.shown`")
    assert said("toy").count(" is now ") == 3
    assert said("toy").endswith(" and 2 more")
    assert "did you mean" in said("toi.gone")


def test_a_pattern_that_matches_a_check_that_there_is_selects_it(monkeypatch):
    monkeypatch.setitem(SUPERSEDED, "forward.gone", [("forward.losses", {})])
    monkeypatch.setitem(SUPERSEDED, "forward.logits", [("forward.losses", {})])  # as a third party may call its own
    (only,) = select_from(catalogue.registered(), ["forward.log*"])
    assert only.id == "forward.logits"
    assert len(select_from(catalogue.registered(), ["forward"])) > 1


def test_it_can_be_read_without_torch():
    code = "import sys, verifier.checks.superseded; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
