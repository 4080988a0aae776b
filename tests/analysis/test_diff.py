"""Two records compared: what became of each outcome, how it is explained, and what all of it comes to."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import CHECKS, DIMS, FLAGS, outcome, rows_fail, specs

from verifier.analysis.bugs import find_bugs
from verifier.analysis.changes import ChangeKind
from verifier.analysis.diff import compare_records
from verifier.errors import ExitStatus, UsageError
from verifier.judging.outcome import Verdict
from verifier.record.fuzz_finding import ShrunkFailure
from verifier.report import diff

Q, Z = "blocks.0.attn.hook_q", "blocks.0.attn.hook_z"
PLAIN = {"bias": False, "alibi": False, "kv_heads": None}


def _by(**config):
    """The id of the case with this config."""
    (spec,) = [one for one in specs() if {**one.config, **PLAIN, **config} == one.config]
    return spec.id


def _failing(when=lambda config: config["bias"], *, verdict=Verdict.FAIL, where=Q, check="qkv.rows", **evidence):
    """Outcomes of one check, in the cases of which this is true."""
    return lambda spec, one: (
        outcome(one, verdict, where=where, **evidence) if one == check and when(spec.config) else None
    )


def _without(record, *, check=None, case=None):
    """The record without these outcomes."""
    kept = [one for one in record.entries if check not in (None, one.outcome.check) or case not in (None, one.case)]
    assert len(kept) < len(record.entries)
    return replace(record, entries=tuple(kept))


@pytest.fixture
def compared(make):
    """What became of one run in another, of the same cases unless said otherwise."""

    def both(before, after, *, old=None, new=None, **run):
        first = make(specs() if old is None else old, before)
        return compare_records(first, make(specs() if new is None else new, after, **run))

    return both


def passes(spec, check):
    return None


# --- what became of an outcome ---------------------------------------------------------------------------------------

PASS, REDUCED, FAIL, SKIP, UPSTREAM = Verdict.PASS, Verdict.REDUCED, Verdict.FAIL, Verdict.SKIP, Verdict.UPSTREAM
NOTHING = None


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (PASS, FAIL, ChangeKind.BROKEN),
        (REDUCED, Verdict.TIMEOUT, ChangeKind.BROKEN),
        (UPSTREAM, Verdict.ERROR, ChangeKind.BROKEN),
        (SKIP, FAIL, ChangeKind.BROKEN),
        (NOTHING, Verdict.CRASH, ChangeKind.BROKEN),
        (FAIL, FAIL, ChangeKind.UNCHANGED),
        (FAIL, Verdict.ERROR, ChangeKind.CHANGED),
        (Verdict.CRASH, Verdict.TIMEOUT, ChangeKind.CHANGED),
        (FAIL, PASS, ChangeKind.MENDED),
        (Verdict.ERROR, REDUCED, ChangeKind.MENDED),
        (PASS, SKIP, ChangeKind.LOST),
        (FAIL, SKIP, ChangeKind.LOST),
        (FAIL, NOTHING, ChangeKind.LOST),
        (UPSTREAM, NOTHING, ChangeKind.LOST),
        (PASS, UPSTREAM, ChangeKind.NEWLY_UPSTREAM),
        (FAIL, UPSTREAM, ChangeKind.NEWLY_UPSTREAM),
        (SKIP, UPSTREAM, ChangeKind.NEWLY_UPSTREAM),
        (UPSTREAM, UPSTREAM, ChangeKind.STILL_UPSTREAM),
        (UPSTREAM, PASS, ChangeKind.NO_LONGER_UPSTREAM),
        (PASS, PASS, ChangeKind.AGREES),
        (PASS, REDUCED, ChangeKind.AGREES),
        (SKIP, PASS, ChangeKind.GAINED),
        (NOTHING, REDUCED, ChangeKind.GAINED),
        (SKIP, SKIP, ChangeKind.UNSEEN),
        (NOTHING, SKIP, ChangeKind.UNSEEN),
        (SKIP, NOTHING, ChangeKind.UNSEEN),
    ],
)
def test_each_pair_of_outcomes_has_one_kind(make, before, after, kind):
    def record(verdict):
        made = make(specs()[:1], _failing(lambda config: True, verdict=verdict or PASS))
        return made if verdict else _without(made, check="qkv.rows")

    counts = compare_records(record(before), record(after)).counts
    others = 3  # checks that look at a valid case, which pass in both
    assert {one: count for one, count in counts.items() if count} == (
        {kind: 1, ChangeKind.AGREES: others} if kind is not ChangeKind.AGREES else {ChangeKind.AGREES: others + 1}
    )


def test_every_kind_of_pair_is_in_the_table_above():
    (mark,) = test_each_pair_of_outcomes_has_one_kind.pytestmark
    assert {kind for _, _, kind in mark.args[1]} == set(ChangeKind) - {ChangeKind.SUPERSEDED}


def test_a_failure_at_another_place_is_another_one(compared):
    found = compared(_failing(where=Q), _failing(where=Z))
    (change,) = found.of(ChangeKind.CHANGED)
    assert (change.entry.outcome.where, change.before.outcome.where) == (Z, Q)
    assert change.were == (change.before.fingerprint,)
    assert (found.status, found.of(ChangeKind.BROKEN)) == (ExitStatus.CONFORMS, ())


def test_a_failure_that_was_written_without_its_fingerprint_is_the_same(make):
    record = make(specs(), rows_fail)
    bare = replace(record, entries=tuple(replace(one, fingerprint=None) for one in record.entries))
    for old, new in ((record, bare), (bare, record), (bare, bare)):
        found = compare_records(old, new)
        assert [len(one.cases) for one in found.of(ChangeKind.UNCHANGED)] == [6]
        assert found.of(ChangeKind.CHANGED) == ()
    (broken,) = compare_records(make(specs()), bare).of(ChangeKind.BROKEN)
    assert broken.reproduce.split()[2] == broken.smallest.id  # `repro` would not know the fingerprint


def test_what_agrees_to_rounding_only_and_agreed_better_is_told(compared):
    found = compared(passes, _failing(verdict=REDUCED))
    assert {check: len(cases) for check, cases in found.newly_reduced.items()} == {"qkv.rows": 6}
    assert found.status is ExitStatus.CONFORMS
    assert compared(_failing(verdict=REDUCED), passes).newly_reduced == {}


# --- cases that only one has -----------------------------------------------------------------------------------------


def test_cases_that_only_one_has_are_named_and_their_failures_counted(compared):
    some, others = specs()[:8], specs()[4:]
    found = compared(_failing(lambda config: True), _failing(lambda config: True), old=some, new=others)
    assert found.counted.startswith("4 cases in both, ")
    assert found.cases_apart == {
        "OLD": tuple(sorted(one.id for one in specs()[:4])),
        "NEW": tuple(sorted(one.id for one in specs()[8:])),
    }
    assert found.unseen_failures == 4
    assert found.counts[ChangeKind.LOST] == 0  # where NEW has no case it was not asked to look


def test_a_failure_where_old_had_no_case_is_broken_and_says_so(compared):
    found = compared(passes, rows_fail, old=[one for one in specs() if not one.config["alibi"]])
    (broken,) = found.of(ChangeKind.BROKEN)
    assert len(broken.cases) == 6
    assert broken.unseen == tuple(sorted(one.id for one in specs() if one.config["bias"] and one.config["alibi"]))


# --- a failure: its smallest case, its rule, its line ----------------------------------------------------------------


def test_what_is_broken_is_shown_at_its_smallest_case_with_its_rule(compared):
    (broken,) = compared(passes, rows_fail).of(ChangeKind.BROKEN)
    assert broken.smallest.id == _by(bias=True)
    assert broken.differs == {"bias": True}
    assert broken.cases == tuple(sorted(one.id for one in specs() if one.config["bias"]))
    assert broken.explanation == "bias (broken 6 of 6, passes 6 of 6)"
    assert broken.before.outcome.verdict is PASS


def test_the_rule_of_what_is_broken_leaves_out_what_failed_before(compared):
    found = compared(_failing(lambda config: config["bias"] and config["alibi"]), rows_fail)
    (broken,), (unchanged,) = found.of(ChangeKind.BROKEN), found.of(ChangeKind.UNCHANGED)
    assert broken.explanation == "bias (broken 3 of 3, passes 6 of 6)"
    assert (broken.stays, unchanged.stays) == (3, 0)
    assert broken.fingerprint == unchanged.fingerprint


def test_the_rule_of_what_is_mended_tells_it_from_what_still_fails(compared):
    found = compared(rows_fail, _failing(lambda config: config["bias"] and config["kv_heads"] == 4))
    (mended,) = found.of(ChangeKind.MENDED)
    assert mended.explanation == "kv_heads != 4 (mended 4 of 4, still fails 2 of 2)"
    assert (len(mended.cases), mended.stays) == (4, 2)
    assert mended.smallest.id == _by(bias=True)
    (mended,) = compared(rows_fail, passes).of(ChangeKind.MENDED)
    assert mended.explanation == "the check fails in no case any more"


def test_the_rule_of_what_fails_in_another_way_is_held_against_what_passes(compared):
    found = compared(_failing(), _failing(where=Z))
    assert [one.explanation for one in found.of(ChangeKind.CHANGED)] == ["bias (changed 6 of 6, passes 6 of 6)"]


def test_what_agrees_to_rounding_passes_where_a_rule_is_made(compared):
    def fails(spec, check):
        verdict = FAIL if spec.config["bias"] else REDUCED
        return outcome(check, verdict, where=Q) if check == "qkv.rows" else None

    (broken,) = compared(passes, fails).of(ChangeKind.BROKEN)
    assert broken.explanation == "bias (broken 6 of 6, passes 6 of 6)"


def test_where_the_check_passes_nowhere_it_is_told_from_its_other_failures(compared):
    def all_fail(spec, check):
        return outcome(check, FAIL, where=Q if spec.config["bias"] else Z) if check == "qkv.rows" else None

    found = compared(_failing(lambda config: not config["bias"], where=Z), all_fail)
    (broken,) = found.of(ChangeKind.BROKEN)
    assert broken.explanation == "bias (broken 6 of 6, fails otherwise 6 of 6)"
    (broken,) = compared(passes, _failing(lambda config: True)).of(ChangeKind.BROKEN)
    assert broken.explanation == "the check passes in no case"


def test_a_rule_that_is_not_true_of_the_case_that_is_shown_is_none(compared):
    def strange(config):
        return (config["bias"] and config["alibi"]) or config == {**DIMS, **PLAIN}

    (broken,) = compared(passes, _failing(strange)).of(ChangeKind.BROKEN)
    assert (broken.smallest.id, len(broken.cases), broken.others) == (_by(), 4, 8)
    assert (broken.rule, broken.explanation) == (None, None)


def test_the_line_that_reproduces_it_names_the_record_that_has_it(make):
    right = replace(make(specs()), path=Path("right run/record.jsonl"))
    wrong = replace(make(specs(), rows_fail), path=Path("wrong run/record.jsonl"))
    (broken,) = compare_records(right, wrong).of(ChangeKind.BROKEN)
    (mended,) = compare_records(wrong, right).of(ChangeKind.MENDED)
    assert broken.reproduce == mended.reproduce == f"verifier repro {broken.fingerprint} 'wrong run'"
    (broken,) = compare_records(right, replace(wrong, path=Path("kept/after.jsonl"))).of(ChangeKind.BROKEN)
    assert broken.reproduce == f"verifier repro {broken.fingerprint} kept/after.jsonl"


def test_where_repro_would_take_the_fingerprint_for_an_older_failure_the_line_names_the_case(compared):
    found = compared(_failing(lambda config: config["bias"] and not config["alibi"]), rows_fail)
    (broken,) = found.of(ChangeKind.BROKEN)
    assert broken.smallest.id == _by(bias=True, alibi=True)
    assert broken.reproduce.split()[:3] == ["verifier", "repro", broken.smallest.id]


def test_what_a_campaign_shrank_is_shown_at_its_minimal_case(make):
    record = make(specs(), rows_fail)
    fingerprint = next(one.fingerprint for one in record.entries if one.fingerprint)
    minimal = ShrunkFailure(
        fingerprint=fingerprint,
        check="qkv.rows",
        case=_by(bias=True, kv_heads=4),
        differs={"kv_heads": 4, "length": 7},
        first=3,
        calls=9,
        again=(2, 2),
        neighbours=(),
    )
    (broken,) = compare_records(make(specs()), replace(record, found={fingerprint: minimal})).of(ChangeKind.BROKEN)
    assert (broken.smallest.id, broken.differs) == (minimal.case, minimal.differs)
    for cut, said in ((False, ""), (True, ", which the campaign's time cut off: there may be a smaller one")):
        (shown,) = find_bugs(replace(record, found={fingerprint: replace(minimal, cut=cut)}), upstream=False)
        words = f"after 3 cases, shrunk in 9{said}; it came again 2 of 2 times in fresh processes"
        assert shown.shrinking == words


def test_failures_are_in_the_order_of_the_checks_and_the_most_frequent_first(compared):
    def fails(spec, check):
        if check == "forward.logits":
            return outcome(check, FAIL, where=Q)
        few = spec.config["kv_heads"] == 4
        return outcome(check, FAIL, where=Z if few else Q) if check == "qkv.rows" else None

    found = [(one.entry.outcome.check, len(one.cases)) for one in compared(passes, fails).of(ChangeKind.BROKEN)]
    assert found == [("qkv.rows", 8), ("qkv.rows", 4), ("forward.logits", 12)]


# --- lost ------------------------------------------------------------------------------------------------------------


def test_what_is_skipped_now_is_lost_with_the_reason(compared):
    skips = _failing(verdict=SKIP, where=None, message="no weights offered")
    found = compared(_failing(lambda config: config["alibi"]), skips)
    (lost,) = found.lost
    assert (lost.check, lost.reason, len(lost.cases), lost.failed) == ("qkv.rows", "no weights offered", 6, 3)
    assert found.of(ChangeKind.MENDED) != ()  # those without a bias
    assert {case for one in found.of(ChangeKind.MENDED) for case in one.cases}.isdisjoint(lost.cases)


def test_a_check_that_new_did_not_run_is_lost(make):
    run = {"checks": [{"id": check, "doc": ""} for check in CHECKS if check != "qkv.rows"]}
    new = _without(make(specs(), **run), check="qkv.rows")
    found = compare_records(make(specs(), rows_fail), new)
    assert [(one.check, one.reason, one.failed) for one in found.lost] == [("qkv.rows", "NEW did not run the check", 6)]
    assert found.checks_apart == {"OLD": ("qkv.rows",), "NEW": ()}
    assert found.status is ExitStatus.INCONCLUSIVE


def test_a_case_that_hugging_face_refuses_now_is_no_longer_looked_at_as_one_that_it_accepts(compared):
    found = compared(passes, passes, new=specs(lambda config: config["bias"]))
    assert {(one.check, one.reason, len(one.cases)) for one in found.lost} == {
        (check, "in NEW, HF refuses the case: HF says no", 6)
        for check in CHECKS
        if check not in ("reference.acceptance", "build.refusal")
    }
    assert found.counts[ChangeKind.GAINED] == 6  # that each is refused by the adapter too


def test_what_a_run_that_was_cut_off_did_not_come_to_is_lost(make):
    new = _without(make(specs(), stop=None), case=specs()[-1].id)
    found = compare_records(make(specs()), new)
    assert {one.reason for one in found.lost} == {"NEW did not finish the case"}


# --- upstream --------------------------------------------------------------------------------------------------------


def test_what_is_upstream_is_told_apart_and_never_gates(compared):
    upstream = _failing(verdict=UPSTREAM, where="eager", check="reference.acceptance")
    after, before = compared(passes, upstream), compared(upstream, passes)
    for found, kind in ((after, ChangeKind.NEWLY_UPSTREAM), (before, ChangeKind.NO_LONGER_UPSTREAM)):
        assert [(len(one.cases), one.entry.outcome.where) for one in found.of(kind)] == [(6, "eager")]
        assert found.status is ExitStatus.CONFORMS
        assert set(found.failures) == {kind}


# --- what it comes to ------------------------------------------------------------------------------------------------


def _status(found):
    return found.status, "; ".join(found.doubts)


def test_nothing_broken_conforms_whatever_failed_before(compared):
    for before, after in (
        (passes, passes),
        (rows_fail, rows_fail),
        (rows_fail, passes),
        (rows_fail, _failing(where=Z)),
    ):
        assert _status(compared(before, after)) == (ExitStatus.CONFORMS, "")


def test_what_is_lost_is_inconclusive_unless_something_is_broken_too(compared):
    skips = _failing(verdict=SKIP, where=None, message="m")
    assert _status(compared(passes, skips)) == (ExitStatus.INCONCLUSIVE, "6 outcomes of OLD lost")

    def skips_and_fails(spec, check):
        return skips(spec, check) or _failing(check="forward.logits")(spec, check)

    assert compared(passes, skips_and_fails).status is ExitStatus.DIFFERS


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (None, "NEW was cut off"),
        ("interrupted", "NEW ended before its time (interrupted)"),
        ("broken", "NEW ended before its time (broken)"),
    ],
)
def test_a_new_run_that_did_not_come_to_its_end_is_inconclusive(make, stop, said):
    whole, part = make(specs()), make(specs(), stop=stop)
    assert _status(compare_records(whole, part)) == (ExitStatus.INCONCLUSIVE, said)
    assert _status(compare_records(part, whole)) == (ExitStatus.CONFORMS, "")
    assert compare_records(whole, make(specs(), rows_fail, stop=stop)).status is ExitStatus.DIFFERS


def test_a_new_record_that_contradicts_itself_is_inconclusive(make):
    record = make(specs())
    wrong = replace(record, contradicts_itself=True)
    said = "NEW's last line counts other outcomes than it holds"
    assert _status(compare_records(record, wrong)) == (ExitStatus.INCONCLUSIVE, said)
    assert _status(compare_records(wrong, record)) == (ExitStatus.CONFORMS, "")


def test_where_no_check_looked_at_a_case_in_both_nothing_can_be_said(compared):
    def skips(spec, check):
        return outcome(check, SKIP, message="m")

    said = "no check looked at the same case in both"
    assert _status(compared(skips, skips)) == (ExitStatus.INCONCLUSIVE, said)
    assert _status(compared(skips, passes)) == (ExitStatus.INCONCLUSIVE, said)


def test_the_order_of_lines_in_the_records_changes_nothing(make):
    def fails(spec, check):
        number = int(spec.id, 36) + CHECKS.index(check)
        verdict = tuple(Verdict)[number % (len(Verdict) - 1)]
        return outcome(check, verdict, where=(Q, Z)[number % 2], message="m")

    def shuffled(record, seed):
        entries, cases = list(record.entries), list(record.cases.items())
        for some in (entries, cases):
            random.Random(seed).shuffle(some)
        return replace(record, entries=tuple(entries), cases=dict(cases))

    old, new = make(specs(), rows_fail), make(specs(), fails)
    texts = {diff.as_json(compare_records(shuffled(old, seed), shuffled(new, seed + 1))) for seed in range(5)}
    assert texts == {diff.as_json(compare_records(old, new))}


# --- what cannot be compared -----------------------------------------------------------------------------------------


def _refusal(old, new):
    with pytest.raises(UsageError) as caught:
        compare_records(old, new)
    return str(caught.value)


def test_records_of_two_families_cannot_be_compared(make):
    old, new = make(specs()), make(specs(), family="bird")
    assert "is of the family 'toy' and" in _refusal(old, new)
    assert "only records of one family can be compared" in _refusal(old, new)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "have no case in common: seed is 0 in OLD and 1 in NEW"),
        ({"device": "cuda", "batch": 3}, "batch is 5 in OLD and 3 in NEW; device is cpu in OLD and cuda in NEW"),
        ({"dtypes": ("float16",)}, "dtypes is float32,bfloat16,float16 in OLD and float16 in NEW"),
        ({"config": {**specs()[0].config, "layers": 3}}, "layers is 2 in OLD and 3 in NEW"),
        ({"config": {**specs()[0].config, "width": 3}}, "width is absent in OLD and 3 in NEW"),
    ],
)
def test_records_without_a_case_in_common_say_what_their_cases_differ_in(make, changed, said):
    assert said in _refusal(make(specs()), make([replace(spec, **changed) for spec in specs()]))


def test_records_of_other_configs_and_of_none_have_no_case_in_common(make):
    every = specs()
    mixed = [every[0], every[11]], [every[1], every[2], every[9]]  # some values are in both, joined otherwise
    assert _refusal(*(make(some) for some in mixed)).endswith("have no case in common: they ran other configs")
    assert _refusal(make(specs()), make([])).endswith("NEW has no case at all")
    assert _refusal(make([]), make(specs())).endswith("OLD has no case at all")


# --- what the runs differ in -----------------------------------------------------------------------------------------


def test_what_the_runs_differ_in_is_named(make):
    new = make(
        specs(),
        adapter_version="2",
        seed=3,
        versions={"python": "3.11", "torch": "2.10", "numpy": "2.4"},
        asked={"only": ["qkv.*"]},
        dims={**DIMS, "layers": 3},
        flags={**FLAGS, "alibi": [False]},
        limits={"timeout": 60, "memory": 2**30},
        checks=[{"id": check, "doc": ""} for check in ("forward.losses", *CHECKS[1:])],
    )
    found = compare_records(make(specs()), new)
    assert list(found.differences.items()) == [
        ("adapter's version", ("mine 1", "mine 2")),
        ("torch", ("2.9", "2.10")),
        ("transformers", ("5.20", None)),
        ("seed", ("0", "3")),
        (
            "a case may take",
            (
                "any time, and any memory on top of what the process had",
                "1 min 0 s, and 1 GiB memory on top of what the process had",
            ),
        ),
        ("flag alibi", ("false,true", "false")),
        ("dim layers", ("2", "3")),
        ("numpy", (None, "2.4")),
        ("asked: only", (None, "qkv.*")),
    ]
    assert found.checks_apart == {"OLD": ("reference.acceptance",), "NEW": ("forward.losses",)}


def test_two_runs_of_the_same_differ_in_nothing(make):
    record = make(specs(), rows_fail)
    later = replace(record, run=replace(record.run, started="later", workers=9))
    assert compare_records(record, later).differences == {}
