"""Verdicts that gate only where that was asked for."""

from __future__ import annotations

import pytest
from made_records import outcome, specs

from verifier.analysis.summary import summarize
from verifier.analysis.verdict import exit_status, gating_verdicts
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict


def once(verdict):
    """A plain adapter with one outcome of that verdict."""
    left = [verdict]

    def fails(spec, check):
        return outcome(check, left.pop(), where="x", message="y") if check == "qkv.rows" and left else None

    return fails


@pytest.mark.parametrize("verdict", [Verdict.REDUCED, Verdict.UPSTREAM, Verdict.SKIP])
def test_a_verdict_gates_where_that_was_asked_for(make, verdict):
    assert summarize(make(specs(), once(verdict))).status is ExitStatus.CONFORMS
    assert summarize(make(specs(), once(verdict), asked={"gate": [str(verdict)]})).status is ExitStatus.DIFFERS


def test_a_verdict_that_was_not_asked_for_does_not_gate(make):
    assert summarize(make(specs(), once(Verdict.REDUCED), asked={"gate": ["skip"]})).status is ExitStatus.CONFORMS


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict.REDUCED, "1 reduced outcome, which gates here"),
        (Verdict.SKIP, "1 not applicable outcome, which gates here"),
        (Verdict.UPSTREAM, "1 upstream finding, which gates here"),
    ],
)
def test_the_reason_says_what_gates(make, verdict, said):
    assert summarize(make(specs(), once(verdict), asked={"gate": [str(verdict)]})).reasons == said


def test_several_are_counted(make):
    found = make(
        specs(), lambda spec, check: outcome(check, Verdict.REDUCED) if check == "qkv.rows" else None,
        asked={"gate": ["reduced"]},
    )  # fmt: skip
    assert summarize(found).reasons == "12 reduced outcomes, which gate here"


@pytest.mark.parametrize("asked", ["reduced", 3, ["nonsense", 4, None], {"reduced": 1}, None])
def test_a_record_that_asks_for_nonsense_gates_nothing(make, asked):
    assert gating_verdicts(make(specs(), asked={"gate": asked}).run) == frozenset()


def test_what_gates_is_an_argument_of_the_status():
    verdicts = {("a", "qkv.rows"): Verdict.REDUCED}
    assert exit_status({"a"}, verdicts) is ExitStatus.CONFORMS
    assert exit_status({"a"}, verdicts, frozenset({Verdict.REDUCED})) is ExitStatus.DIFFERS
