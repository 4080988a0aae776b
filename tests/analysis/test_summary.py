"""What a record amounts to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_records import CHECKS, outcome, specs

from verifier.analysis.bugs import smallest_case
from verifier.analysis.summary import NOT_DECLARED, NOT_OFFERED, summarize
from verifier.analysis.verdict import exit_status
from verifier.checks import hooks
from verifier.checks.runner import MISSING
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([], ExitStatus.INCONCLUSIVE),
        ([Verdict.SKIP, Verdict.SKIP], ExitStatus.INCONCLUSIVE),
        ([Verdict.PASS, Verdict.SKIP], ExitStatus.CONFORMS),
        ([Verdict.REDUCED], ExitStatus.CONFORMS),
        ([Verdict.UPSTREAM], ExitStatus.CONFORMS),
        ([Verdict.PASS, Verdict.FAIL], ExitStatus.DIFFERS),
        ([Verdict.ERROR], ExitStatus.DIFFERS),
        ([Verdict.CRASH], ExitStatus.DIFFERS),
        ([Verdict.TIMEOUT], ExitStatus.DIFFERS),
    ],
)
def test_the_exit_status_follows_the_verdicts(verdicts, status):
    assert exit_status({"a"}, {("a", f"qkv.{number}"): one for number, one in enumerate(verdicts)}) is status


@pytest.mark.parametrize(
    ("case", "check", "verdict", "status"),
    [
        ("valid", "reference.acceptance", Verdict.PASS, ExitStatus.INCONCLUSIVE),
        ("refused", "build.refusal", Verdict.PASS, ExitStatus.INCONCLUSIVE),
        ("refused", "build.refusal", Verdict.FAIL, ExitStatus.DIFFERS),
        ("valid", "build.adapter", Verdict.PASS, ExitStatus.CONFORMS),
    ],
)
def test_a_green_run_needs_a_check_that_looked_at_the_adapter_on_a_valid_case(case, check, verdict, status):
    assert exit_status({"valid"}, {(case, check): verdict}) is status


def test_each_verdict_is_in_the_table():
    decided = {
        verdict for verdict in Verdict if exit_status({"a"}, {("a", "b.c"): verdict}) is not ExitStatus.INCONCLUSIVE
    }
    assert decided == set(Verdict) - {Verdict.SKIP}


@pytest.mark.parametrize(
    ("stop", "status"),
    [("interrupted", ExitStatus.INTERRUPTED), ("broken", ExitStatus.BROKEN), (None, ExitStatus.INTERRUPTED)],
)
def test_a_run_that_did_not_end_does_not_conform(make, stop, status):
    assert summarize(make(specs(), stop=stop)).status is status


def _rows_fail(spec, check):
    if check == "qkv.rows" and spec.config["bias"]:
        layer = 1 if spec.config["alibi"] else 0
        return outcome(check, Verdict.FAIL, where=f"blocks.{layer}.attn.hook_q", measured=0.5, bound=1e-14)
    return None


def test_failures_with_one_fingerprint_are_one_bug_with_its_smallest_case(make):
    found = summarize(make(specs(), _rows_fail))
    [finding] = found.bugs
    assert (len(finding.cases), finding.ran) == (6, 12)
    assert finding.differs == {"bias": True}
    assert finding.entry.outcome.where == "blocks.0.attn.hook_q"
    assert finding.proves == "What qkv.rows proves."


def test_the_line_that_reproduces_names_the_records_folder(make):
    moved = replace(make(specs(), _rows_fail), path=Path("reports/my falcon/record.jsonl"))
    [finding] = summarize(moved).bugs
    assert finding.reproduce == f"verifier repro {finding.fingerprint} 'reports/my falcon'"


def test_a_run_of_refused_cases_alone_says_that_it_is_hollow(make):
    found = summarize(make(specs(lambda config: True)))
    assert (found.status, found.hollow) == (ExitStatus.INCONCLUSIVE, "no valid case was selected")


def test_a_run_in_which_nothing_looked_at_the_adapter_says_why(make):
    def skips(spec, check):
        return None if check == "reference.acceptance" else outcome(check, Verdict.SKIP, message="no weights offered")

    found = summarize(make(specs(), skips))
    assert found.status is ExitStatus.INCONCLUSIVE
    assert found.hollow == "no check that looks at the adapter ran: no weights offered"


# --- how much was looked at ------------------------------------------------------------------------------------------


def _offers_no(*capabilities, check="qkv.rows"):
    def fails(spec, given):
        message = NOT_OFFERED + " and no ".join(capabilities)
        return outcome(given, Verdict.SKIP, message=message) if given == check else None

    return fails


def test_the_headline_of_an_adapter_that_conforms_says_how_much_was_looked_at(make):
    """What looks at Hugging Face alone, a quarter of these outcomes, is no look at the adapter."""
    found = summarize(make(specs()))
    assert (found.headline, found.status) == ("CONFORMS: 36 of 36 looked at", ExitStatus.CONFORMS)


def test_what_the_adapter_does_not_offer_is_in_the_headline_and_no_failure(make):
    found = summarize(make(specs(), _offers_no("weights", "hooks")))
    assert found.status is ExitStatus.CONFORMS
    assert found.headline == "CONFORMS in what it offers: 24 of 36 looked at; not offered: hooks, weights"
    assert found.verdict == found.headline


def test_kinds_of_points_that_the_adapter_says_it_lacks_are_counted_in_the_headline(make):
    def present(spec, check):
        if check != "qkv.rows":
            return None
        more = ", blocks.{i}.hook_resid_mid" if spec == specs()[0] else ""
        return outcome("hooks.present", Verdict.PASS, message=f"{NOT_DECLARED}hook_embed{more}")

    found = summarize(make(specs(), present))
    assert found.headline == "CONFORMS in what it offers: 36 of 36 looked at; not offered: 2 kinds of hook points"


def test_the_reason_for_which_points_are_lacking_is_no_kind_of_points(make):
    def present(spec, check):
        words = f"{NOT_DECLARED}blocks.{{i}}.attn.hook_result; its switch is refused: A, B; C"
        return outcome("hooks.present", Verdict.PASS, message=words) if check == "qkv.rows" else None

    found = summarize(make(specs(), present))
    assert found.headline == "CONFORMS in what it offers: 36 of 36 looked at; not offered: 1 kind of hook points"


def test_what_does_not_apply_is_counted_and_is_not_said_to_be_lacking(make):
    def fails(spec, check):
        return outcome(check, Verdict.SKIP, message="not applicable: one layer") if check == "qkv.rows" else None

    assert summarize(make(specs(), fails)).headline == "CONFORMS: 24 of 36 looked at"


def test_the_headline_of_an_adapter_that_does_not_conform_is_its_status(make):
    assert summarize(make(specs(), _rows_fail)).headline == "DOES NOT CONFORM"


def test_the_reasons_follow_the_headline(make):
    def fails(spec, check):
        return outcome(check, Verdict.UPSTREAM, where="eager") if check == "reference.acceptance" else None

    assert summarize(make(specs(), fails)).verdict == "CONFORMS: 36 of 36 looked at (1 upstream finding)"


def test_a_capability_that_is_not_offered_is_known_by_the_runners_own_words():
    assert f"{MISSING} " == NOT_OFFERED
    assert hooks.NOT_DECLARED == NOT_DECLARED


def test_upstream_findings_stand_apart(make):
    def fails(spec, check):
        return outcome(check, Verdict.UPSTREAM, where="eager") if check == "reference.acceptance" else None

    found = summarize(make(specs(), fails))
    assert found.status is ExitStatus.CONFORMS
    assert found.bugs == ()
    assert [(one.number, len(one.cases)) for one in found.upstream] == [("U1", 12)]


def test_bugs_are_numbered_in_the_order_of_the_checks(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where="x") if check in ("forward.logits", "build.adapter") else None

    found = summarize(make(specs(), fails))
    assert [(one.number, one.entry.outcome.check) for one in found.bugs] == [
        ("1", "build.adapter"),
        ("2", "forward.logits"),
    ]


def test_combinations_that_fared_alike_share_a_row(make):
    rows = summarize(make(specs(), _rows_fail)).rows
    assert [(row.flags["bias"], row.flags["alibi"], row.flags["kv_heads"], len(row.cases)) for row in rows] == [
        ((False,), None, None, 6),
        ((True,), None, None, 6),
    ]
    assert [(row.cells["qkv"].verdict, row.cells["qkv"].numbers) for row in rows] == [
        (Verdict.PASS, ()),
        (Verdict.FAIL, ("1",)),
    ]


def test_a_narrowed_run_does_not_claim_what_it_did_not_run(make):
    rows = summarize(make([spec for spec in specs() if spec.config["alibi"]])).rows
    assert [(row.flags["alibi"], row.flags["bias"]) for row in rows] == [((True,), None)]


def test_refused_cases_are_counted_by_reason(make):
    found = summarize(make(specs(lambda config: config["kv_heads"] == 4)))
    assert (found.valid, found.refused) == (8, 4)
    assert [(tally.text, tally.count) for tally in found.refusals] == [("HF says no", 4)]
    assert [row.flags["kv_heads"] for row in found.rows] == [None]


def test_a_refused_case_with_a_failure_has_a_row(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where="wrap") if check == "build.refusal" and spec.config["bias"] else None

    found = summarize(make(specs(lambda config: config["kv_heads"] == 4), fails))
    assert [(row.valid, len(row.cases)) for row in found.rows] == [(True, 8), (False, 2)]
    assert [tally.count for tally in found.refusals] == [4]


def test_named_cases_share_rows_apart_from_the_matrix(make):
    corners = [replace(spec, label=f"corner-{number}", length=9) for number, spec in enumerate(specs()[:3])]
    [matrix, named] = summarize(make(specs() + corners)).rows
    assert (matrix.labels, len(matrix.cases)) == ((), 12)
    assert (named.labels, named.flags) == (("corner-0", "corner-1", "corner-2"), {})


@pytest.mark.parametrize(
    ("verdicts", "shown"),
    [
        ((Verdict.PASS, Verdict.SKIP), Verdict.PASS),
        ((Verdict.SKIP, Verdict.SKIP), Verdict.SKIP),
        ((Verdict.PASS, Verdict.REDUCED), Verdict.REDUCED),
        ((Verdict.UPSTREAM, Verdict.REDUCED), Verdict.UPSTREAM),
        ((Verdict.FAIL, Verdict.UPSTREAM), Verdict.FAIL),
        ((Verdict.FAIL, Verdict.CRASH), Verdict.CRASH),
    ],
)
def test_a_cell_shows_the_worst(make, verdicts, shown):
    by_check = dict(zip(("qkv.rows", "qkv.other"), verdicts, strict=True))
    spec = specs()[0]
    found = make([spec], lambda spec, check: outcome(check, by_check.get(check, Verdict.PASS)))
    more = replace(found.entries[0], outcome=outcome("qkv.other", verdicts[1]))
    [row] = summarize(replace(found, entries=(*found.entries, more))).rows
    assert row.cells["qkv"].verdict is shown


def test_skips_are_counted_by_reason(make):
    def fails(spec, check):
        return outcome(check, Verdict.SKIP, message="no weights") if check.startswith(("qkv", "forward")) else None

    [skip] = summarize(make(specs(), fails)).skips
    assert (skip.text, skip.count, skip.checks) == ("no weights", 24, ("forward.logits", "qkv.rows"))


def test_cases_that_never_came_to_run_are_counted(make):
    assert summarize(make(specs()[:5], stop="interrupted", planned=12)).not_started == 7


def test_the_smallest_case_is_of_the_matrix_then_has_the_fewest_flags_then_the_smallest_dims(make):
    run = make(specs()).run
    by_config = {tuple(spec.config.items()): spec for spec in specs()}
    plain, other = by_config[tuple({**run.dims, "bias": False, "alibi": False, "kv_heads": None}.items())], specs()[-1]
    small = replace(plain, config={**plain.config, "hidden_size": 8})
    assert smallest_case([other, plain], run) == plain
    assert smallest_case([replace(plain, label="corner"), other], run) == other
    assert smallest_case([plain, small, other], run) == small


def test_the_order_of_lines_changes_nothing(make):
    found = make(specs(), _rows_fail)
    turned = replace(found, entries=found.entries[::-1], cases=dict(reversed(list(found.cases.items()))))
    assert summarize(turned) == summarize(found)
    assert len(summarize(found).areas) == len({check.partition(".")[0] for check in CHECKS})


def test_how_closely_a_case_was_looked_at_parts_no_rows(make):
    """Where a check looks at some of the cases only, what it finds is shown in the row of all that are alike."""
    looked_at = {spec.id for spec in specs()[::3]}

    def fails(spec, check):
        if check != "forward.logits":
            return None
        return outcome(check, Verdict.FAIL if spec.id in looked_at else Verdict.SKIP, where="logits", message="m")

    def rows_where(applies):
        named = [{"id": check, "doc": "", "applies": "valid"} for check in CHECKS]
        named[-1]["applies"] = applies
        return summarize(make(specs(), fails, checks=named)).rows

    (row,) = rows_where("pairwise")
    assert set(row.cases) == {spec.id for spec in specs()}
    assert row.cells["forward"].verdict is Verdict.FAIL
    assert row.cells["forward"].numbers == ("1",)
    assert row.cells["qkv"].verdict is Verdict.PASS
    assert len(rows_where("valid")) > 1


def test_each_finding_has_its_rule(make):
    def fails(spec, check):
        wrong = check == "qkv.rows" and spec.config["alibi"] and not spec.config["bias"]
        return outcome(check, Verdict.FAIL, where="blocks.0.attn.hook_q", message="m") if wrong else None

    (finding,) = summarize(make(specs(), fails)).bugs
    assert finding.explanation == "alibi and not bias (fails 3 of 3, passes 9 of 9)"


def test_a_failure_of_all_cases_is_said_to_be_one(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where="blocks.0.attn.hook_q", message="m") if check == "qkv.rows" else None

    (finding,) = summarize(make(specs(), fails)).bugs
    assert (finding.rule, finding.explanation) == (None, "every case that the check looked at")


def test_that_a_check_looks_at_some_cases_only_is_said_with_the_counts(make):
    named = [{"id": check, "doc": "", "applies": "valid"} for check in CHECKS]
    named[-1]["applies"], named[-2]["applies"] = "pairwise", "sampled"
    some = summarize(make(specs(), checks=named))
    assert ", 5 checks (2 on a covering of the flags): " in some.scope
    everywhere = summarize(make(specs(), checks=named, asked={"everywhere": True}))
    assert ", 5 checks: " in everywhere.scope
    quick = summarize(make(specs(), checks=named, asked={"quick": True}))
    assert quick.scope == f"quick: {some.scope}"
    assert ", 5 checks: " in summarize(make(specs())).scope
