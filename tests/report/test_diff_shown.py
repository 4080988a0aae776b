"""What a change broke and mended, as the terminal, Markdown and JSON show it."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from made_records import CHECKS, FLAGS, HOSTILE, HOSTILE_MARKDOWN, outcome, rows_fail, specs
from read_markdown import read

from verifier.analysis.changes import ChangeKind
from verifier.analysis.diff import compare_records
from verifier.judging.outcome import Verdict
from verifier.output.console import QuietConsole
from verifier.report import diff

Q, Z = "blocks.0.attn.hook_q", "blocks.0.attn.hook_z"


def _terminal(changes, width=140):
    console = QuietConsole(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    diff.show(changes, console)
    return console.file.getvalue()


def _old(spec, check):
    if check == "qkv.rows" and spec.config["alibi"]:
        return outcome(check, Verdict.FAIL, where=Z)
    if check == "reference.acceptance" and spec.config["bias"]:
        return outcome(check, Verdict.UPSTREAM, where="eager")
    return None


def _new(spec, check):
    if check == "qkv.rows" and spec.config["bias"]:
        return outcome(check, Verdict.FAIL, where=Q, measured=0.5, bound=1e-14, message="off by much")
    if check == "forward.logits" and spec.config["kv_heads"] == 4:
        return outcome(check, Verdict.SKIP, message="no logits offered")
    if check == "build.adapter" and spec.config["alibi"]:
        return outcome(check, Verdict.UPSTREAM, where="sdpa")
    return None


@pytest.fixture
def everything(make):
    """Of every kind that is told something."""
    made = compare_records(make(specs(), _old), make(specs(), _new, adapter_version="2"))
    kinds = (
        ChangeKind.BROKEN,
        ChangeKind.CHANGED,
        ChangeKind.MENDED,
        ChangeKind.NEWLY_UPSTREAM,
        ChangeKind.NO_LONGER_UPSTREAM,
    )
    assert all(made.of(kind) for kind in kinds)
    assert made.lost
    return made


# --- the terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_says_what_became_of_what_and_how_to_see_it(everything, width):
    shown = _terminal(everything, width)
    (broken,) = everything.of(ChangeKind.BROKEN)
    for needed in (
        "adapter's version  mine 1 → mine 2",
        "qkv.rows  FAIL  3 cases",
        "0.5 against a bound of 1e-14",
        "off by much",
        "bias (broken 3 of 3, passes 6 of 6)",
        f"verifier repro {broken.fingerprint}",
        f"FAIL: {Z}",
        "no logits offered (forward.logits)",
        "build.adapter  upstream  6 cases",
        "reference.acceptance  upstream  6 cases",
    ):
        assert needed in shown
    titles = ["Broken", "Fails in another way", "Mended", "Lost, because", "Newly upstream", "No longer upstream"]
    starts = [line for line in shown.splitlines() for title in titles if line.startswith(title)]
    assert [line.startswith(title) for line, title in zip(starts, titles, strict=True)] == [True] * len(titles)
    last = "OLD → NEW: BROKEN (1 bug in 3 cases; 4 outcomes of OLD lost)"
    assert shown.splitlines()[-1] == last
    assert max(map(len, shown.splitlines()[:-1])) <= width


def test_where_nothing_changed_the_terminal_says_so_in_few_lines(make):
    record = make(specs())
    shown = _terminal(compare_records(record, record)).splitlines()
    assert shown[-2:] == ["12 cases in both: 48 outcomes pass in both", "OLD → NEW: NOTHING BROKEN"]
    assert [line.split()[0] for line in shown[:2]] == ["OLD", "NEW"]
    assert len(shown) == 5


def test_what_is_cut_short_is_counted(make):
    def many(spec, check):
        return outcome(check, Verdict.FAIL, where=f"{spec.id} {check}")

    found = compare_records(make(specs()), make(specs(), many))
    left = len(found.of(ChangeKind.BROKEN)) - diff.MOST_IN_TERMINAL
    assert left > 0
    assert f"… and {left} more, which --json has" in _terminal(found)
    assert f"… and {len(found.of(ChangeKind.BROKEN)) - diff.MOST_FAILURES} more" in diff.markdown(found)


def test_what_is_known_of_a_run_that_is_not_whole_is_noted(make):
    shown = _terminal(compare_records(make(specs(), stop=None), make(specs()[:3])))
    assert "Note: OLD: the run was cut off: the record has no last line" in shown
    assert "Note: OLD was cut off: what it did not come to counts as not looked at" in shown
    assert "3 cases in both, 9 in OLD only: " in shown


def _by_bias(verdict, when=lambda config: True, **evidence):
    def fails(spec, check):
        wrong = check == "qkv.rows" and spec.config["bias"] and when(spec.config)
        return outcome(check, verdict, **evidence) if wrong else None

    return fails


def _alibi(config):
    return config["alibi"]


FAILS = _by_bias(Verdict.FAIL, where=Q)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (_by_bias(Verdict.FAIL, _alibi, where=Q), FAILS, "FAIL  3 cases (failed before in 3 more)"),
        (FAILS, _by_bias(Verdict.FAIL, _alibi, where=Q), "FAIL  3 cases (still fails in 3 more)"),
        (_by_bias(Verdict.SKIP, _alibi, message="m"), FAILS, "FAIL  6 cases (OLD did not look at 3 of them)"),
        (_by_bias(Verdict.SKIP, message="m"), FAILS, "FAIL  6 cases (OLD looked at none of them)"),
        (_by_bias(Verdict.SKIP, message="no weights"), FAILS, "before     n/a: no weights"),
        (_by_bias(Verdict.UPSTREAM, where="eager"), FAILS, "before     upstream: eager"),
        (FAILS, _by_bias(Verdict.SKIP, message="m"), "m; 6 failed in OLD (qkv.rows)"),
        (FAILS, _by_bias(Verdict.REDUCED), "6 mended"),
        (
            lambda spec, check: FAILS(spec, check) and outcome(check, Verdict.FAIL, where=f"place {spec.id}"),
            FAILS,
            " (elsewhere 5 other failures)",
        ),
        (lambda spec, check: None, _by_bias(Verdict.REDUCED), "6 outcomes that agreed now agree to float32 rounding"),
    ],
)
def test_what_was_before_is_told(make, before, after, said):
    assert said in _terminal(compare_records(make(specs(), before), make(specs(), after)))


def test_an_old_record_that_contradicts_itself_is_noted(make):
    record = make(specs())
    shown = _terminal(compare_records(replace(record, contradicts_itself=True), record))
    assert "Note: OLD's last line counts other outcomes than it holds: lines are missing, or were changed" in shown


def test_failures_in_cases_that_old_alone_has_are_counted(make):
    shown = _terminal(compare_records(make(specs(), FAILS), make(specs()[:7])))
    assert "7 cases in both, 5 in OLD only (5 failures): " in shown


# --- hostile texts ---------------------------------------------------------------------------------------------------


def _hostile(make, hostile):
    """Hostile texts in everything that is shown of two records."""

    def fails(spec, check):
        if check == "qkv.rows":
            texts = dict.fromkeys(("where", "exception", "site", "message", "detail"), hostile)
            return outcome(check, Verdict.ERROR, **texts)
        if check == "forward.logits":
            return outcome(check, Verdict.SKIP, message=hostile)
        return outcome(check, Verdict.UPSTREAM, where=hostile)

    def before(spec, check):
        return outcome(check, Verdict.FAIL, where=hostile) if spec.config["bias"] else None

    cases = [replace(spec, config={**spec.config, hostile: hostile}, label=hostile) for spec in specs()]
    checks = [{"id": check, "doc": hostile} for check in (*CHECKS, hostile)]
    names = dict.fromkeys(("adapter", "adapter_name", "adapter_version"), hostile)
    named = {"versions": {hostile: hostile}, "asked": {hostile: [hostile]}, "flags": {**FLAGS, hostile: [1, hostile]}}
    old = make(cases, before, family=hostile)
    new = make(cases, fails, family=hostile, checks=checks, **names, **named)
    return compare_records(old, replace(new, notes=(hostile,)))


@pytest.mark.parametrize("hostile", [HOSTILE, HOSTILE_MARKDOWN])
def test_hostile_text_is_text_in_the_terminal(make, hostile):
    shown = _terminal(_hostile(make, hostile))
    assert not set(shown) & set("\x1b\x07\x00\r\u202e\ud800")
    assert len(shown) < 30_000


@pytest.mark.parametrize("hostile", [HOSTILE, HOSTILE_MARKDOWN])
def test_hostile_text_is_text_in_markdown(make, hostile):
    made = diff.markdown(_hostile(make, hostile))
    assert not set(made) & set("\x1b\x07\x00\r\u202e\ud800")
    found = read(made)
    assert found.html == set()
    assert found.links == found.mentions == []
    assert {level for level, _ in found.headings} == {"h2", "h3"}
    for kind in ("em_open", "s_open", "hr", "fence", "code_block", "blockquote_open", "ordered_list_open"):
        assert found.count(kind) == 0


def test_hostile_text_is_ascii_in_json(make):
    made = diff.as_json(_hostile(make, HOSTILE))
    assert made.isascii()
    assert json.loads(made)["family"] == HOSTILE


# --- Markdown --------------------------------------------------------------------------------------------------------


def test_markdown_begins_with_the_verdict_and_has_a_section_of_each_kind(everything):
    made = diff.markdown(everything)
    found = read(made)
    assert [title for _, title in found.headings] == [
        "toy: BROKEN (1 bug in 3 cases; 4 outcomes of OLD lost)",
        "Broken",
        "Fails in another way",
        "Mended",
        "Lost, because nothing looks there any more",
        "Newly upstream: Hugging Face disagrees with itself; the adapter is not to blame",
        "No longer upstream",
    ]
    codes = found.of("code_inline")
    for needed in ("mine 1 → mine 2", "bias", Q, "bias=true", everything.of(ChangeKind.BROKEN)[0].reproduce):
        assert needed in codes


@pytest.mark.slow
def test_markdown_is_never_longer_than_a_comment_may_be(make):
    def many(spec, check):
        texts = dict.fromkeys(("message", "where", "site"), f"{spec.id} {check} " + HOSTILE_MARKDOWN * 50)
        return outcome(check, Verdict.FAIL, **texts)

    cases = [
        replace(spec, config={**spec.config, **{f"field_{number}" * 9: "*" * 80 for number in range(200)}})
        for spec in specs()
    ]
    old = make(cases, many, versions={f"{number}" * 90: "*" * 500 for number in range(200)})
    new = make(cases, lambda spec, check: many(spec, check + "!"))
    made = diff.markdown(compare_records(old, new))
    assert 10_000 < len(made) <= diff.MOST_CHARACTERS


def test_markdown_that_would_be_too_long_is_cut_between_sections_and_says_so(everything, monkeypatch):
    whole = diff.markdown(everything)
    monkeypatch.setattr(diff, "MOST_CHARACTERS", len(whole) - 1)
    made = diff.markdown(everything)
    assert len(made) < len(whole)
    kept, _, cut = made.rstrip("\n").rpartition("\n\n")
    assert whole.startswith(kept + "\n\n")
    assert cut.startswith("… cut here")


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_json_has_the_counts_the_failures_and_every_case(everything):
    made = json.loads(diff.as_json(everything))
    assert (made["schema"], made["exit"], made["status"]) == (diff.SCHEMA, 1, "broken")
    assert made["doubts"] == ["4 outcomes of OLD lost"]
    assert made["differences"] == [{"what": "adapter's version", "old": "mine 1", "new": "mine 2"}]
    assert {name: count for name, count in made["counts"].items() if count} == {
        "broken": 3,
        "changed": 3,
        "mended": 3,
        "lost": 4,
        "newly_upstream": 6,
        "no_longer_upstream": 6,
        "agrees": 48 - 25,
    }
    for kind in _told(made):
        assert sum(len(one["cases"]) for one in made[kind]) == made["counts"][kind]
    (broken,), (changed,) = made["broken"], made["changed"]
    assert broken["cases"] == sorted(spec.id for spec in specs() if spec.config["bias"] and not spec.config["alibi"])
    assert broken["rule"] == {
        "text": "bias",
        "exact": True,
        "support": "broken 3 of 3, passes 6 of 6",
    }
    assert (broken["before"]["verdict"], broken["failure"]["measured"]) == ("pass", 0.5)
    assert broken["smallest"]["differs"] == {"bias": True}
    assert changed["fingerprints_before"] == [made["mended"][0]["fingerprint"]]


def _told(made):
    """The kinds that are told failure by failure, or check by check."""
    return [kind for kind in made["counts"] if isinstance(made.get(kind), list)]


def test_json_names_every_kind_that_is_told(everything):
    assert len(_told(json.loads(diff.as_json(everything)))) == len(ChangeKind) - 3  # agrees, gained, unseen


def test_what_json_cannot_spell_stands_as_a_text(make):
    def infinite(spec, check):
        return outcome(check, Verdict.FAIL, measured=float("inf"), bound=1e-14) if check == "qkv.rows" else None

    made = diff.as_json(compare_records(make(specs()), make(specs(), infinite)))
    (broken,) = json.loads(made, parse_constant=lambda name: pytest.fail(name))["broken"]
    assert broken["failure"]["measured"] == "inf"


@pytest.mark.parametrize("show", [_terminal, diff.markdown, diff.as_json])
def test_the_same_records_give_the_same_text(make, show):
    def shown():
        return show(compare_records(make(specs(), rows_fail), make(specs(), _new)))

    assert shown() == shown()
