"""Failures that look like one."""

from __future__ import annotations

from made_records import CHECKS, outcome, specs

from verifier.analysis.causes import find_causes
from verifier.analysis.summary import summarize
from verifier.judging.outcome import Verdict

Q, Z = "blocks.0.attn.hook_q", "blocks.0.attn.hook_z"


def _causes(make, places, when=lambda config: config["bias"], **more):
    """Those of a record in which each of these checks fails there, on cases of which that is true."""

    def fails(spec, check):
        if check not in places or not when(spec.config):
            return None
        return outcome(check, Verdict.FAIL, where=places[check], **more)

    return find_causes(summarize(make(specs(), fails)).bugs)


def test_failures_with_one_rule_at_one_place_are_one(make):
    (cause,) = _causes(make, {"qkv.rows": Q, "forward.logits": Q})
    assert [one.entry.outcome.check for one in cause.bugs] == ["qkv.rows", "forward.logits"]
    assert (cause.place, cause.cases) == ("blocks.{i}.attn.hook_q", 6)
    assert cause.bugs[0].explanation == "bias (fails 6 of 6, passes 6 of 6)"


def test_the_layer_does_not_tell_two_places_apart(make):
    assert len(_causes(make, {"qkv.rows": Q, "forward.logits": Q.replace("0", "7")})) == 1


def test_failures_at_two_places_are_two(make):
    assert [one.place for one in _causes(make, {"qkv.rows": Q, "forward.logits": Z})] == [
        "blocks.{i}.attn.hook_q",
        "blocks.{i}.attn.hook_z",
    ]


def test_failures_with_two_rules_are_two_those_in_most_cases_first(make):
    def fails(spec, check):
        wrong = {"qkv.rows": spec.config["bias"] and spec.config["alibi"], "forward.logits": spec.config["alibi"]}
        return outcome(check, Verdict.FAIL, where=Q) if wrong.get(check) else None

    found = find_causes(summarize(make(specs(), fails)).bugs)
    assert [(one.bugs[0].rule.text, one.cases) for one in found] == [("alibi", 6), ("alibi and bias", 3)]


def test_equally_large_ones_stay_in_the_order_of_the_findings(make):
    found = _causes(make, dict(zip(CHECKS[3:], (Z, Q), strict=True)))
    assert [one.bugs[0].number for one in found] == ["1", "2"]


def test_a_case_with_several_of_its_failures_counts_once(make):
    def fails(spec, check):
        if not spec.config["bias"] or check not in ("qkv.rows", "forward.logits"):
            return None
        return outcome(check, Verdict.FAIL, where=Q)

    (cause,) = find_causes(summarize(make(specs(), fails)).bugs)
    assert sum(len(one.cases) for one in cause.bugs) == 12
    assert cause.cases == 6


def test_errors_start_where_the_code_is_that_raised(make):
    (cause,) = _causes(make, {"qkv.rows": None, "forward.logits": None}, exception="ValueError", site="mine.py:forward")
    assert (cause.place, len(cause.bugs)) == ("mine.py:forward", 2)


def test_where_nothing_passes_the_explanation_says_so_and_there_is_no_rule(make):
    (cause,) = _causes(make, {"qkv.rows": Q, "forward.logits": Q}, when=lambda config: True)
    assert (cause.bugs[0].rule, cause.bugs[0].explanation) == (None, "every case that the check looked at")


def test_without_findings_there_are_none(make):
    assert find_causes(summarize(make(specs())).bugs) == ()
