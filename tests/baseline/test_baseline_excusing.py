"""What a known failure excuses: itself, where its rule is true, as long as it still fails so, and nothing else."""

from __future__ import annotations

import pytest
from known_toys import FLAGS, ID, OTHER, RUN, WRONG, bias_fails, failure, held, settled, spec, specs

from verifier import record
from verifier.analysis.summary import summarize
from verifier.analysis.verdict import conclude_status
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.excusing import (
    apply_known_failures,
    checks_looking_at_less,
    count_cases_looked_at,
    covers,
    name_case,
)
from verifier.record.known_failure import EVERY_CASE, EntryState

BIAS, PLAIN, BOTH = spec(bias=True), spec(), spec(bias=True, alibi=True)
SKIPPED = Outcome(check="qkv.rows", verdict=Verdict.SKIP, message="the build failed")


def known_cases(found: record.Record) -> set[str]:
    return {entry.case for entry in found.entries if entry.outcome.verdict is Verdict.KNOWN}


# --- where an entry covers a case ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "one", "covered"),
    [
        ("bias", BOTH, True),
        ("bias", spec(alibi=True), False),
        ("bias and not alibi", BOTH, False),
        (EVERY_CASE, PLAIN, True),
        ("", BOTH, False),
        ("batch > 4", PLAIN, True),
        ("hidden_size == 16", PLAIN, True),
        ("unheard_of", PLAIN, False),
        ("heads is None", CaseSpec(family="toy", config={"bias": True}), True),
    ],
)
def test_an_entry_covers_where_its_rule_is_true(rule, one, covered):
    assert covers(failure(rule=rule), one, RUN) is covered


def test_an_entry_covers_its_own_case_whatever_its_rule_says():
    assert covers(failure(rule="alibi", spec=BIAS, excepted=("bias=true",)), BIAS, RUN)


def test_a_case_by_name_is_covered_beyond_the_rule_and_no_other_is():
    one = failure(rule="", also=("alibi=true heads=4",))
    assert covers(one, spec(heads=4, alibi=True), RUN)
    assert not covers(one, spec(alibi=True), RUN)
    assert not covers(one, spec(heads=4, alibi=True, bias=True), RUN)


def test_an_excepted_case_is_not_covered_although_the_rule_is_true():
    one = failure(excepted=("alibi=true bias=true",))
    assert not covers(one, BOTH, RUN)
    assert covers(one, spec(bias=True, heads=1), RUN)


def test_the_plainest_case_has_a_name():
    assert name_case(PLAIN, RUN) == "the plainest config"
    assert covers(failure(rule="", also=("the plainest config",)), PLAIN, RUN)


def test_a_name_tells_everything_apart_and_hangs_on_no_order():
    long = [["a" * 100, 1], ["a" * 100, 2]]
    one, two = (spec(rope={"kind": some, "b": None}) for some in long)
    assert name_case(one, RUN) != name_case(two, RUN)
    turned = CaseSpec(family="toy", config=dict(reversed(spec(bias=True, heads=4).config.items())))
    assert name_case(turned, RUN) == "bias=true heads=4"
    assert name_case(spec(heads="4"), RUN) == name_case(spec(heads=4), RUN)  # both are typed so
    assert name_case(spec(kind="a\nb", heads=None), RUN) == 'kind="a\\nb"'


# --- what is excused in a record -------------------------------------------------------------------------------------


def test_a_record_without_a_baseline_is_the_same(make):
    found = make()
    assert apply_known_failures(found) is found
    with_none = make(against=held())
    assert apply_known_failures(with_none) is with_none


def test_a_known_failure_is_excused_wherever_its_rule_is_true(make):
    found = apply_known_failures(make(against=held(settled())))
    assert known_cases(found) == {one.id for one in specs() if one.config["bias"]}
    assert not any(entry.outcome.verdict.gates for entry in found.entries)


def test_the_record_itself_is_as_it_was(make):
    found = make(against=held(settled()))
    before = found.path.read_bytes()
    apply_known_failures(found)
    summarize(found)
    assert found.path.read_bytes() == before
    assert {entry.outcome.verdict for entry in record.read(found.path).entries} == {Verdict.PASS, Verdict.FAIL}
    assert found.end.exit == ExitStatus.DIFFERS  # the toy record's last line knows of no baseline
    assert not found.contradicts_itself


def test_what_is_excused_twice_is_excused_once(make):
    once = apply_known_failures(make(against=held(settled())))
    assert apply_known_failures(once) == once


@pytest.mark.parametrize(
    "other", [OTHER, Outcome(check="qkv.rows", verdict=Verdict.FAIL, where="blocks.0.mlp.hook_post")]
)
def test_another_failure_of_the_same_check_is_not_excused(make, other):
    def fails(one, check):
        found = bias_fails(one, check)
        return other if found and one.config["alibi"] else found

    found = apply_known_failures(make(fails, against=held(settled())))
    assert known_cases(found) == {one.id for one in specs() if one.config["bias"] and not one.config["alibi"]}
    gating = [entry for entry in found.entries if entry.outcome.verdict.gates]
    assert {entry.fingerprint for entry in gating} == {other.fingerprint}
    assert conclude_status(found) is ExitStatus.DIFFERS


def test_another_check_with_the_same_place_is_not_excused(make):
    def fails(one, check):
        return Outcome(check=check, verdict=Verdict.FAIL, where=WRONG.where) if check == "forward.logits" else None

    assert known_cases(apply_known_failures(make(fails, against=held(settled())))) == set()


def test_a_failure_beyond_the_rule_is_not_excused(make):
    def fails(one, check):
        return WRONG if check == "qkv.rows" and (one.config["bias"] or one.config["heads"] == 4) else None

    found = make(fails, against=held(settled()))
    summary = summarize(found)
    assert summary.status is ExitStatus.DIFFERS
    [finding] = summary.bugs
    assert finding.fingerprint == ID
    assert set(finding.cases) == {one.id for one in specs() if one.config["heads"] == 4 and not one.config["bias"]}
    assert finding.rule.text == "heads == 4"


@pytest.mark.parametrize("state", [EntryState.FIXED, EntryState.CHANGED, EntryState.EXPIRED, EntryState.NOT_RUN])
def test_an_entry_that_no_longer_holds_excuses_nothing(make, state):
    found = make(against=held(settled(state)))
    assert known_cases(apply_known_failures(found)) == set()
    assert conclude_status(found) is ExitStatus.DIFFERS


def test_what_is_upstream_stays_upstream(make):
    def fails(one, check):
        return Outcome(check=check, verdict=Verdict.UPSTREAM, where=WRONG.where) if check == "qkv.rows" else None

    upstream = Outcome(check="qkv.rows", verdict=Verdict.UPSTREAM, where=WRONG.where).fingerprint
    found = apply_known_failures(make(fails, against=held(settled(fingerprint=upstream, rule=EVERY_CASE))))
    assert {entry.outcome.verdict for entry in found.entries} == {Verdict.PASS, Verdict.UPSTREAM}


# --- what is no longer looked at -------------------------------------------------------------------------------------


def test_what_looks_is_anything_but_a_skip(make):
    found = make(lambda one, check: SKIPPED if check == "qkv.rows" and one.config["alibi"] else bias_fails(one, check))
    assert count_cases_looked_at(found) == {"build.adapter": 12, "forward.logits": 12, "qkv.rows": 6}


def test_a_check_that_looks_at_fewer_cases_is_named(make):
    def skips(one, check):
        return SKIPPED if check == "qkv.rows" and one.config["alibi"] else None

    found = make(skips, against=held(ran={"qkv.rows": 12, "build.adapter": 12, "forward.logits": 11}))
    assert checks_looking_at_less(found) == {"qkv.rows": (12, 6)}


def test_a_check_that_is_gone_is_named(make):
    found = make(against=held(ran={"qkv.rows": 12, "gone.check": 3}))
    assert checks_looking_at_less(found) == {"gone.check": (3, 0)}


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({}, {"only": ["qkv"]}),
        ({"only": ["qkv"]}, {}),
        ({"where": ["a=1"]}, {"where": ["a=2"]}),
        ({}, {"shard": "1/2"}),
    ],
)
def test_runs_that_were_not_asked_alike_are_not_held_against_each_other(make, then, now):
    assert checks_looking_at_less(make(asked=now, against=held(asked=then, ran={"qkv.rows": 99}))) == {}


@pytest.mark.parametrize("more", [{"device": "cpu"}, {"baseline": "x"}, {"gate": ["reduced"]}])
def test_what_does_not_narrow_a_run_does_not_matter(make, more):
    found = make(asked={"only": ["qkv"], **more}, against=held(asked={"only": ["qkv"]}, ran={"qkv.rows": 99}))
    assert checks_looking_at_less(found) == {"qkv.rows": (99, 12)}


@pytest.mark.parametrize(("stop", "told"), [("complete", {"qkv.rows": (99, 12)}), ("interrupted", {}), (None, {})])
def test_of_a_run_that_was_broken_off_it_goes_without_saying(make, stop, told):
    found = make(against=held(ran={"qkv.rows": 99}), stop=stop)
    baselined = summarize(found).baselined
    assert baselined is not None
    assert baselined.looking_at_less == told


def test_without_a_baseline_nothing_is_dropped(make):
    assert checks_looking_at_less(make()) == {}


# --- what the run amounts to -----------------------------------------------------------------------------------------


def test_where_everything_is_known_the_adapter_conforms(make):
    found = make(against=held(settled(), ran={"qkv.rows": 12}))
    assert conclude_status(found) is ExitStatus.CONFORMS
    assert summarize(found).status is ExitStatus.CONFORMS


@pytest.mark.parametrize("state", [EntryState.FIXED, EntryState.CHANGED, EntryState.EXPIRED])
def test_an_entry_that_is_not_true_any_more_gates_even_where_nothing_fails(make, state):
    found = make(lambda one, check: None, against=held(settled(state)))
    assert conclude_status(found) is ExitStatus.DIFFERS


def test_an_entry_whose_check_was_not_selected_does_not_gate(make):
    found = make(lambda one, check: None, against=held(settled(EntryState.NOT_RUN)))
    assert conclude_status(found) is ExitStatus.CONFORMS


def test_fewer_cases_than_then_are_not_green(make):
    found = make(against=held(settled(), ran={"qkv.rows": 13}))
    assert conclude_status(found) is ExitStatus.INCONCLUSIVE
    assert summarize(found).hollow is None  # it is said in other words


def test_a_failure_beats_what_is_no_longer_looked_at(make):
    assert conclude_status(make(against=held(ran={"qkv.rows": 13}))) is ExitStatus.DIFFERS
    assert conclude_status(make(against=held(settled(EntryState.FIXED), ran={"qkv.rows": 13}))) is ExitStatus.DIFFERS


def test_what_gates_because_that_was_asked_for_still_does(make):
    def fails(one, check):
        found = bias_fails(one, check)
        return found or (Outcome(check=check, verdict=Verdict.REDUCED) if check == "forward.logits" else None)

    found = make(fails, against=held(settled()), asked={"gate": ["reduced"]})
    assert conclude_status(found) is ExitStatus.DIFFERS


def test_every_flag_value_is_met():
    assert len(specs()) == 2 * 2 * len(FLAGS["heads"])
