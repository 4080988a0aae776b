"""A baseline made of a record accepts its failures and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known_toys import ID, OTHER, WRONG, bias_fails, held, settled, spec, specs

from verifier.analysis.verdict import conclude_status
from verifier.baseline.making import make_baseline
from verifier.errors import ExitStatus, UsageError
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.known_failure import EVERY_CASE, BaselineState, EntryState, Settled


def against(made):
    """A run held against the baseline, of which every entry still fails so."""
    entries = tuple(Settled(failure=one, state=EntryState.KNOWN) for one in made.failures)
    return BaselineState(path=made.path, asked=made.asked, ran=made.ran, settled=entries)


def test_each_failure_is_an_entry_with_its_rule_and_smallest_case_and_room_for_a_reason(make):
    made = make_baseline(make(), "k.toml")
    assert (made.family, made.adapter, made.path) == ("toy", "mine:Adapter", "k.toml")
    assert made.ran == {"build.adapter": 12, "forward.logits": 12, "qkv.rows": 12}
    [one] = made.failures
    assert (one.fingerprint, one.check, one.rule) == (ID, "qkv.rows", "bias")
    assert (one.also, one.excepted) == ((), ())
    assert one.spec == spec(bias=True)
    assert (one.reason, one.issue, one.expires) == ("", "", None)


def test_a_check_that_passes_nowhere_fails_in_every_case(make):
    made = make_baseline(make(lambda one, check: WRONG if check == "qkv.rows" else None), "k.toml")
    assert [one.rule for one in made.failures] == [EVERY_CASE]


def test_cases_that_a_rule_misses_or_takes_wrongly_are_named(make):
    failing = {one.id for one in specs()} & {
        one.id for one in specs() if one.config["bias"] and one != spec(bias=True, alibi=True, heads=4)
    } | {spec(heads=1).id}
    found = make(lambda one, check: WRONG if check == "qkv.rows" and one.id in failing else None)
    made = make_baseline(found, "k.toml")
    assert conclude_status(make(lambda one, check: WRONG if check == "qkv.rows" and one.id in failing else None,
                          against=against(made))) is ExitStatus.CONFORMS  # fmt: skip
    for one in specs():
        spread = make(
            lambda other, check, one=one: WRONG if check == "qkv.rows" and (other.id in {*failing, one.id}) else None,
            against=against(made),
        )
        assert (conclude_status(spread) is ExitStatus.CONFORMS) is (one.id in failing), one.config


@pytest.mark.parametrize(
    "asked", [{"where": ["bias=true"]}, {"cases": "c.jsonl"}, {"preset": "x"}, {"items": "1 of 9"}]
)
def test_of_chosen_cases_no_rule_is_believed_and_each_is_named(make, asked):
    made = make_baseline(make(asked=asked), "k.toml")
    [one] = made.failures
    assert one.rule == ""
    assert one.also == (
        "alibi=true bias=true", "alibi=true bias=true heads=1", "alibi=true bias=true heads=4",
        "bias=true", "bias=true heads=1", "bias=true heads=4",
    )  # fmt: skip
    assert made.asked == asked


def test_what_narrowed_the_run_is_kept_and_the_rest_is_not(make):
    made = make_baseline(make(asked={"only": ["qkv"], "device": "cpu", "baseline": "x", "gate": ["skip"]}), "k.toml")
    assert made.asked == {"only": ["qkv"]}
    assert made.failures[0].rule == "bias"


def test_several_failures_of_one_check_are_several_entries(make):
    def fails(one, check):
        found = bias_fails(one, check)
        return OTHER if found and one.config["alibi"] else found

    made = make_baseline(make(fails), "k.toml")
    assert {one.fingerprint: one.rule for one in made.failures} == {
        ID: "not alibi and bias",
        OTHER.fingerprint: "alibi and bias",
    }
    assert conclude_status(make(fails, against=against(made))) is ExitStatus.CONFORMS


def test_what_is_upstream_is_no_entry(make):
    upstream = Outcome(check="qkv.rows", verdict=Verdict.UPSTREAM, where="eager")
    assert make_baseline(make(lambda one, check: upstream if check == "qkv.rows" else None), "k.toml").failures == ()


def test_what_a_baseline_excused_is_an_entry_of_the_next_one(make):
    assert make_baseline(make(against=held(settled())), "k.toml") == make_baseline(make(), "k.toml")


@pytest.mark.parametrize("stop", ["interrupted", "broken", None])
def test_a_run_that_did_not_come_to_its_end_makes_none(make, stop):
    with pytest.raises(UsageError, match="not of a run that came to its end: `verifier run --resume` ends it"):
        make_baseline(make(stop=stop), "k.toml")


def test_a_record_that_lacks_lines_makes_none(make):
    with pytest.raises(UsageError, match="holds other outcomes than its last line counts"):
        make_baseline(replace(make(), contradicts_itself=True), "k.toml")


def test_one_shard_makes_none(make):
    with pytest.raises(UsageError, match="is shard 2/3 alone: name the records of all of them"):
        make_baseline(make(asked={"shard": "2/3"}), "k.toml")
