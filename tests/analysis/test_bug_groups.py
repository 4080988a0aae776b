"""One mistake of an adapter is told once, however many checks it stops."""

from __future__ import annotations

import pytest
from made_records import outcome, specs

from verifier.analysis.bugs import find_origin
from verifier.analysis.causes import find_causes
from verifier.analysis.summary import summarize
from verifier.judging.outcome import Verdict

STOPPED = ("build.adapter", "qkv.rows", "forward.logits")


def raises(verdict=Verdict.ERROR, *, checks=STOPPED, when=lambda config: True, **raised):
    """What an adapter gives that raises the same wherever it is used."""
    facts = {"exception": "TypeError", "message": "TypeError: hooked() takes 2 arguments", **raised}

    def fails(spec, check):
        return outcome(check, verdict, **facts) if check in checks and when(spec.config) else None

    return fails


@pytest.mark.parametrize("site", ["mine.py:hooked", None], ids=["raised in its code", "raised by its signature"])
def test_one_mistake_is_one_bug_whatever_checks_it_stops(make, site):
    found = summarize(make(specs(), raises(site=site)))
    assert len(found.bugs) == 3  # each check's failure can be looked up and run again
    [group] = found.bug_groups
    assert {bug.number for bug in found.bugs} == {"1"}
    assert group.facts["also"] == "in 2 other checks: qkv.rows, forward.logits"
    assert found.reasons == "1 bug in 12 cases"
    assert {cell.numbers for cells in found.cells.values() for cell in cells.values()} == {(), ("1",)}


def test_the_bug_in_most_cases_stands_for_all(make):
    def fails(spec, check):
        few = check == "build.adapter" and not spec.config["bias"]
        return None if few else raises(site="mine.py:hooked")(spec, check)

    [group] = summarize(make(specs(), fails)).bug_groups
    assert (group.lead.entry.outcome.check, len(group.lead.cases)) == ("qkv.rows", 12)


def test_other_words_of_the_same_function_are_not_lost(make):
    def fails(spec, check):
        return raises(site="mine.py:forward", message=f"TypeError: no {check}")(spec, check)

    [group] = summarize(make(specs(), fails)).bug_groups
    assert group.facts["said"] == "TypeError: no build.adapter"
    assert group.facts["also"] == (
        "in 2 other checks: qkv.rows, forward.logits; there also: TypeError: no qkv.rows; TypeError: no forward.logits"
    )


@pytest.mark.parametrize(
    "differing",
    [
        {"site": "mine.py:hooked", "exception": "ValueError"},
        {"site": "mine.py:names"},
        {"site": None},
    ],
    ids=["another exception", "another function", "nobody's code"],
)
def test_other_mistakes_are_others(make, differing):
    def fails(spec, check):
        facts = {"site": "mine.py:hooked"} | (differing if check == "qkv.rows" else {})
        return raises(**facts)(spec, check)

    groups = summarize(make(specs(), fails)).bug_groups
    assert [(group.lead.number, len(group.bugs)) for group in groups] == [("1", 2), ("2", 1)]


def test_a_difference_is_a_bug_of_its_check():
    assert find_origin(outcome("qkv.rows", Verdict.FAIL, where="x", message="off")) is None
    assert find_origin(outcome("qkv.rows", Verdict.SKIP, message="m")) is None


def test_processes_that_died_nobody_knows_where_are_not_one_bug():
    died = outcome("qkv.rows", Verdict.CRASH, exception="SIGSEGV", message="the process died")
    assert find_origin(died) is None


def test_what_one_mistake_raises_has_one_cause_and_two_have_two(make):
    def fails(spec, check):
        message = "TypeError: no axes" if check == "qkv.rows" else "TypeError: no switch"
        return raises(message=message)(spec, check)

    found = find_causes(summarize(make(specs(), fails)).bugs)
    assert [(one.place, len(one.bugs)) for one in found] == [("TypeError: no switch", 2), ("TypeError: no axes", 1)]
