"""The distinct failures: each with its smallest case, what is around it, and what a closer look found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_records import ladder, looked_at, outcome, rows_fail, rung, specs, with_looks, wrong

from verifier.analysis.bugs import Neighbour, find_bugs
from verifier.cases.spec import Depth
from verifier.judging.outcome import Verdict
from verifier.record.case_description import config_difference, plainest_config

Q, Z = "blocks.0.attn.hook_q", "blocks.0.attn.hook_z"


def _by(**config):
    """The id of the case with this config."""
    (spec,) = [one for one in specs() if {**one.config, **config} == one.config]
    return spec.id


PLAIN = {"bias": False, "alibi": False, "kv_heads": None}


def _failing(verdict=Verdict.FAIL, when=lambda config: config["bias"]):
    def fails(spec, check):
        return outcome(check, verdict, where=Q) if check == "qkv.rows" and when(spec.config) else None

    return fails


def _the_finding(record, upstream=False):
    (finding,) = find_bugs(record, upstream=upstream)
    return finding


# --- around it -------------------------------------------------------------------------------------------------------


def test_around_a_finding_are_the_cases_that_differ_in_one_flag(make):
    finding = _the_finding(make(specs(), rows_fail))
    bias = {**PLAIN, "bias": True}
    assert finding.smallest.id == _by(**bias)
    assert finding.around == (
        Neighbour(flag="bias", value=False, case=_by(**PLAIN), verdict=Verdict.PASS, same=False),
        Neighbour(flag="alibi", value=True, case=_by(**{**bias, "alibi": True}), verdict=Verdict.FAIL, same=True),
        Neighbour(flag="kv_heads", value=1, case=_by(**{**bias, "kv_heads": 1}), verdict=Verdict.FAIL, same=True),
        Neighbour(flag="kv_heads", value=4, case=_by(**{**bias, "kv_heads": 4}), verdict=Verdict.FAIL, same=True),
    )


def test_another_failure_next_to_it_is_told_from_the_same(make):
    def fails(spec, check):
        if check != "qkv.rows" or not spec.config["bias"]:
            return None
        return outcome(check, Verdict.FAIL, where=Z if spec.config["alibi"] else Q)

    first, other = find_bugs(make(specs(), fails), upstream=False)
    assert {first.entry.outcome.where, other.entry.outcome.where} == {Q, Z}
    found = first if first.entry.outcome.where == Q else other
    assert [(one.verdict, one.same) for one in found.around if one.flag == "alibi"] == [(Verdict.FAIL, False)]


def test_cases_that_were_not_run_and_checks_that_were_not_asked_are_not_around_it(make):
    chosen = [spec for spec in specs(lambda config: config["kv_heads"] == 4) if not spec.config["alibi"]]
    finding = _the_finding(make(chosen, rows_fail))
    assert [(one.flag, one.value) for one in finding.around] == [("bias", False), ("kv_heads", 1)]


# --- a closer look ---------------------------------------------------------------------------------------------------


def test_what_a_closer_look_found_belongs_to_the_smallest_case_alone(make):
    record = make(specs(), rows_fail)
    finding = _the_finding(record)
    smallest, another = finding.smallest.id, next(case for case in finding.cases if case != finding.smallest.id)

    def looked(case, fingerprint):
        return looked_at(case, "qkv.rows", fingerprint)

    right = looked(smallest, finding.fingerprint), ladder(smallest, [rung("a")])
    found = _the_finding(with_looks(record, *right, looked(another, finding.fingerprint), ladder(another)))
    assert (found.evidence, found.ladder) == right
    strange = looked(another, finding.fingerprint), looked(smallest, "another"), ladder(another, [rung("a")])
    found = _the_finding(with_looks(record, *strange))
    assert (found.evidence, found.ladder) == (None, None)


def test_without_a_closer_look_there_is_nothing(make):
    found = _the_finding(make(specs(), rows_fail))
    assert (found.evidence, found.ladder, found.starts) == (None, None, None)


@pytest.mark.parametrize(
    ("forward", "backward", "starts"),
    [
        ([rung("a"), wrong("b"), wrong(Q)], [], "b, the first activation that differs"),
        ([rung("a"), wrong(Q), wrong("c")], [], None),  # as the failure says itself
        (
            [rung("a"), rung("b")],
            [wrong("a"), wrong("b"), rung("c")],
            "b, the first gradient that differs on the way back, where every activation agrees",
        ),
        ([rung("a")], [wrong(Q)], None),
        ([wrong("a")], [wrong("b")], "a, the first activation that differs"),
        ([rung("a", Verdict.REDUCED), wrong("b")], [], "b, the first activation that differs"),
        ([rung("a")], [rung("a")], None),
        ([], [], None),
    ],
)
def test_a_finding_says_where_it_starts_if_its_failure_does_not(make, forward, backward, starts):
    record = make(specs(), rows_fail)
    case = _the_finding(record).smallest.id
    assert _the_finding(with_looks(record, ladder(case, forward, backward))).starts == starts


def test_what_is_upstream_starts_nowhere_in_the_adapter(make):
    record = make(specs(), _failing(Verdict.UPSTREAM))
    case = _the_finding(record, upstream=True).smallest.id
    found = _the_finding(with_looks(record, ladder(case, [wrong("a")])), upstream=True)
    assert found.ladder is not None
    assert found.starts is None


# --- what explains it ------------------------------------------------------------------------------------------------


def test_its_rule_speaks_of_what_its_cases_have_in_common(make):
    found = _the_finding(make(specs(), _failing(when=lambda config: config["alibi"] and config["kv_heads"] == 4)))
    assert found.rule.exact
    assert found.explanation == "alibi and kv_heads == 4 (fails 2 of 2, passes 10 of 10)"


def test_where_none_passes_its_rule_tells_it_from_other_failures_and_says_so(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where=Q if spec.config["bias"] else Z) if check == "qkv.rows" else None

    found = {one.entry.outcome.where: one for one in find_bugs(make(specs(), fails), upstream=False)}
    assert found[Q].explanation == "bias (all 12 cases fail; this way in 6 of 6, another way in 6 of 6)"
    assert found[Z].explanation == "not bias (all 12 cases fail; this way in 6 of 6, another way in 6 of 6)"
    assert {(one.ran, one.passes) for one in found.values()} == {(12, 0)}


def test_exceptions_to_a_rule_are_named(make):
    odd = _by(**PLAIN), _by(**{**PLAIN, "bias": True, "alibi": True, "kv_heads": 4})

    def fails(spec, check):
        wrong = check == "qkv.rows" and spec.config["bias"] != (spec.id in odd)
        return outcome(check, Verdict.FAIL, where=Q) if wrong else None

    found = _the_finding(make(specs(), fails))
    rule = "bias or (not alibi and kv_heads is None)"
    assert found.explanation == f"nearly, with 1 exception: {rule} (fails 6 of 7, passes 5 of 5)"
    assert (found.missed, found.unjust) == ((), odd[1:])


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("long", 263, "long == 263"),
        ("length", 33, "length == 33"),
        ("batch", 2, "batch == 2"),
        ("padding", 3, "padding == 3"),
        ("scale", 2.0, "scale == 2.0"),
        ("attention", "eager", "attention == 'eager'"),
        ("dtypes", ("float32",), "'bfloat16' not in dtypes"),
        ("seed", 7, "seed == 7"),
        ("depth", Depth.PAIRWISE, "depth == 'pairwise'"),
    ],
)
def test_a_rule_names_whatever_of_a_case_tells(make, field, value, rule):
    """No flag and no dim is theirs alone: they differ from the others in how they are run."""
    cases = [replace(spec, **{field: value}) if place % 2 else spec for place, spec in enumerate(specs())]
    odd = {spec.id for spec in cases[1::2]}

    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where=Q) if check == "qkv.rows" and spec.id in odd else None

    found = _the_finding(make(cases, fails))
    assert (found.rule.text, found.rule.exact) == (rule, True)


def test_that_nothing_tells_is_said(make):
    found = replace(_the_finding(make(specs(), rows_fail)), rule=None)
    assert found.explanation == "nothing that is known of the cases tells them from those that pass"


@pytest.mark.parametrize(("count", "said"), [(12, "every case that the check looked at"), (1, None)])
def test_a_failure_of_all_cases_is_said_to_be_one_if_there_are_several(make, count, said):
    found = _the_finding(make(specs()[:count], _failing(when=lambda config: True)))
    assert (found.explanation, found.ran) == (said, count)


def test_what_was_skipped_was_not_looked_at(make):
    def fails(spec, check):
        verdict = Verdict.FAIL if spec.config["bias"] else Verdict.SKIP
        return outcome(check, verdict, where=Q, message="m") if check == "qkv.rows" else None

    found = _the_finding(make(specs(), fails))
    assert (len(found.cases), found.ran, found.explanation) == (6, 6, "every case that the check looked at")


# --- which there are -------------------------------------------------------------------------------------------------


def test_failures_of_one_check_are_in_the_order_of_how_many_cases_they_are_in(make):
    def fails(spec, check):
        few = spec.config["kv_heads"] == 4
        return outcome(check, Verdict.FAIL, where=Z if few else Q) if check == "qkv.rows" else None

    found = find_bugs(make(specs(), fails), upstream=False)
    assert [(one.number, one.entry.outcome.where, len(one.cases)) for one in found] == [("1", Q, 8), ("2", Z, 4)]


def test_the_adapters_and_upstream_ones_are_numbered_apart(make):
    def fails(spec, check):
        verdict = {"reference.acceptance": Verdict.UPSTREAM, "qkv.rows": Verdict.CRASH}.get(check)
        return outcome(check, verdict, where=Q) if verdict else None

    record = make(specs(), fails)
    assert (_the_finding(record).number, _the_finding(record, upstream=True).number) == ("1", "U1")


def test_a_failure_of_a_check_that_the_record_does_not_name_comes_last(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where=Q) if check in ("build.adapter", "qkv.rows") else None

    found = find_bugs(make(specs(), fails, checks=[{"id": "qkv.rows", "doc": "Proof."}]), upstream=False)
    assert [(one.entry.outcome.check, one.proves) for one in found] == [("qkv.rows", "Proof."), ("build.adapter", "")]


def test_the_plainest_config_is_of_first_values(make):
    run = make(specs()).run
    assert plainest_config(run) == {"hidden_size": 16, "layers": 2, **PLAIN}
    assert config_difference({**plainest_config(run), "kv_heads": 1, "extra": 3}, run) == {"kv_heads": 1, "extra": 3}
    assert config_difference({**plainest_config(run), "bias": 0, "layers": 2.0}, run) == {"bias": 0, "layers": 2.0}


def test_the_line_that_reproduces_it_can_be_pasted_whatever_the_folder_is_called(make):
    moved = replace(make(specs(), rows_fail), path=Path("it's here; rm -rf ~/record.jsonl"))
    finding = _the_finding(moved)
    assert finding.reproduce == f"verifier repro {finding.fingerprint} 'it'\"'\"'s here; rm -rf ~'"
