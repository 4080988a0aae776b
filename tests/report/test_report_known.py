"""Known failures in every report: what they excuse, what is no longer true of them, and texts that are only texts."""

from __future__ import annotations

import io
import re
import shlex
from dataclasses import replace
from datetime import date

import pytest
from made_records import HOSTILE, HOSTILE_MARKDOWN, outcome, rows_fail, specs
from read_markdown import read, tables
from test_report_page import _is_harmless, _links_without_a_target, _Page

from verifier.analysis.baseline_comparison import _percent, compare_with_baseline
from verifier.analysis.summary import summarize
from verifier.analysis.view import view_record
from verifier.judging.outcome import Verdict
from verifier.output.console import QuietConsole
from verifier.record.known_failure import BaselineState, EntryState, KnownFailure, Settled
from verifier.report import html, markdown, terminal

ROWS = outcome("qkv.rows", Verdict.FAIL, where="blocks.0.attn.hook_q").fingerprint
STALE = (EntryState.FIXED, EntryState.CHANGED, EntryState.EXPIRED)


def settled(state=EntryState.KNOWN, said=None, **changed):
    usual = {
        "fingerprint": ROWS,
        "check": "qkv.rows",
        "rule": "bias",
        "spec": specs()[6],
        "reason": "rows in another order",
        "issue": "#7",
    }
    return Settled(failure=KnownFailure(**{**usual, **changed}), state=state, message=said)


def held(*some, **changed):
    return BaselineState(**{"path": "known.toml", "asked": {}, "ran": {}, "settled": some, **changed})


@pytest.fixture
def against(make):
    """A record in which the rows of every case with a bias are wrong, held against a baseline."""
    return lambda *some, fails=rows_fail, **changed: replace(make(specs(), fails), held=held(*some, **changed))


def shown(record, width=140):
    console = QuietConsole(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    found = summarize(record)
    terminal.show(found, console)
    terminal.show_verdict(found, console)
    return console.file.getvalue()


def rendered(*records):
    return markdown.render([view_record(one) for one in records])


def page(*records):
    return html.render([view_record(one) for one in records])


def in_all(record):
    """The words of every report."""
    return shown(record), read(rendered(record)).words, _Page(page(record)).text


# --- what it says ----------------------------------------------------------------------------------------------------


def test_the_share_that_is_excused_is_said_everywhere(against):
    for words in in_all(against(settled())):
        assert "6 of 48 outcomes (12%), on 6 of 12 valid cases (50%)" in " ".join(words.split())


def test_a_run_of_known_failures_is_green_and_says_so(against):
    lines = shown(against(settled())).splitlines()
    assert lines[-1] == "toy × mine:Adapter (mine 1): CONFORMS: 36 of 36 looked at (1 known failure)"
    assert any("6 known" in line for line in lines)
    assert not any("6 fail" in line for line in lines)


def test_a_known_failure_is_told_with_its_reason_and_where_it_is_followed_up(against):
    record = against(settled(expires=date(2027, 1, 31)))
    for words in in_all(record):
        assert "rows in another order" in words
    _, marked, on_page = in_all(record)
    assert "until 2027-01-31" in marked
    assert "#7, until 2027-01-31" in on_page


@pytest.mark.parametrize("state", STALE)
def test_what_is_not_true_any_more_is_told_everywhere(against, state):
    word = state.upper()
    record = against(settled(state, "said so"), fails=lambda spec, check: None)
    for words in in_all(record):
        assert word in words
        assert "said so" in words
        assert f"1 known failure {word.lower()}" in words
    assert "DOES NOT CONFORM (1 known failure" in shown(record)


def test_the_command_that_removes_what_is_fixed_stands_in_every_report_and_is_whole(against):
    many = [settled(EntryState.FIXED, fingerprint=f"entry{number:03d}") for number in range(200)]
    record = against(*many, path="some where/known.toml", fails=lambda spec, check: None)
    command = summarize(record).baselined.removal
    words = shlex.split(command)
    assert words[:2] == ["verifier", "baseline"]
    assert words[-2:] == ["--out", "some where/known.toml"]
    assert [word for word in words if word.startswith("entry")] == [one.failure.fingerprint for one in many]
    assert command in shown(record)
    assert command in read(rendered(record)).of("fence")
    assert command in _Page(page(record)).text


def test_what_is_not_fixed_needs_no_command(against):
    assert summarize(against(settled(), settled(EntryState.CHANGED, fingerprint="other222"))).baselined.removal is None


def test_checks_that_were_not_selected_are_counted(against):
    record = against(settled(), settled(EntryState.NOT_RUN, fingerprint="other222", check="a.b"))
    assert "1 entry of checks that were not selected" in shown(record)
    assert "not looked at" in read(rendered(record)).words


def test_what_looked_at_fewer_cases_is_named_and_the_run_is_inconclusive(against):
    record = against(settled(), ran={"qkv.rows": 13, "forward.logits": 12, "gone.check": 2})
    said = "fewer cases looked at than the baseline's run: qkv.rows at 12 of 13, gone.check at 0 of 2"
    for words in in_all(record):
        assert f"INCONCLUSIVE ({said}, 1 known failure)" in " ".join(words.split()) or said in " ".join(words.split())
    assert summarize(record).status == 4


def test_of_many_checks_that_looked_at_fewer_the_first_are_named(against):
    record = against(settled(), ran={f"a.c{number}": 9 for number in range(5)})
    [said] = summarize(record).baselined.reasons
    assert said.endswith("a.c0 at 0 of 9, a.c1 at 0 of 9, a.c2 at 0 of 9 and 2 more")


def test_without_a_baseline_nothing_is_said_of_one(make):
    record = make(specs(), rows_fail)
    assert compare_with_baseline(record) is None
    for words in in_all(record):
        assert "nown failure" not in words


def test_an_empty_baseline_excuses_nothing(against):
    for words in in_all(against()):
        assert "0 of 48 outcomes (0%), on 0 of 12 valid cases (0%)" in " ".join(words.split())


@pytest.mark.parametrize(
    ("part", "whole_", "said"),
    [(0, 9, "0%"), (9, 9, "100%"), (1, 1000, "1%"), (999, 1000, "99%"), (1, 8, "12%"), (0, 0, "0%")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(part, whole_, said):
    assert _percent(part, whole_) == said


def test_a_failure_beyond_the_rule_stands_beside_the_entry(against):
    record = against(settled(rule="bias and alibi"))
    found = summarize(record)
    assert [len(one.cases) for one in found.bugs] == [2]
    assert [one.cases for one in found.baselined.entries] == [4]  # its own case among them
    assert shown(record).splitlines()[-1].endswith("DOES NOT CONFORM (1 known failure, 1 bug in 2 cases)")


# --- the matrix ------------------------------------------------------------------------------------------------------


def test_cells_name_the_entry_and_lead_to_it(against):
    text = page(against(settled()))
    parsed = _Page(text)
    assert f'href="#known-{ROWS}"' in text
    assert re.search(rf'<tr id="known-{ROWS}"><th scope="row">K1 ', text)
    assert _links_without_a_target(parsed) == set()
    assert "K1" in shown(against(settled()))
    assert "K1" in read(rendered(against(settled()))).words


def test_ids_are_unique_where_one_fingerprint_is_a_failure_and_an_entry(against):
    record = against(settled(rule="bias and alibi"), settled(EntryState.FIXED, fingerprint="other222"))
    parsed = _Page(page(record, record))
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {ROWS, f"known-{ROWS}", f"r2-known-{ROWS}", "r1-known", "r2-known", "known-other222"} <= set(parsed.ids)
    assert _links_without_a_target(parsed) == set()


def test_rows_of_the_table_are_equally_wide(against):
    parsed = _Page(
        page(against(settled(), settled(EntryState.FIXED, fingerprint="other222", rule="", also=("a", "b"))))
    )
    assert [table for table in parsed.tables if len(set(table)) > 1] == []
    made = rendered(against(settled(), settled(EntryState.CHANGED, "so", fingerprint="other222")))
    assert all(len(set(widths)) == 1 for widths in tables(made))


def test_a_cell_with_a_failure_beside_known_ones_is_a_failure(against):
    def fails(spec, check):
        if check == "qkv.rows" and spec.config["kv_heads"] == 4 and spec.config["alibi"]:
            return outcome(check, Verdict.ERROR, exception="KeyError", message="x")
        return rows_fail(spec, check)

    found = summarize(against(settled(), fails=fails))
    cells = [row.cells["qkv"] for row in found.rows if "qkv" in row.cells]
    both = [cell for cell in cells if set(cell.numbers) == {"1", "K1"}]
    assert all(cell.verdict is Verdict.ERROR and cell.numbers == ("1", "K1") for cell in both)
    assert {cell.verdict for cell in cells} == {Verdict.PASS, Verdict.KNOWN, Verdict.ERROR}


# --- texts from outside ----------------------------------------------------------------------------------------------


def hostile(text):
    places = dict.fromkeys(("fingerprint", "check", "reason", "issue"), text)
    return [settled(state, text, **{**places, "fingerprint": f"{state}{text}"}) for state in EntryState]


@pytest.mark.parametrize("many", [False, True])
def test_hostile_texts_are_text_in_the_terminal(against, many):
    words = shown(against(*hostile(HOSTILE * (50 if many else 1)), path=HOSTILE, ran={HOSTILE: 99}))
    assert "<script>alert(1)</script> \\x1b]0;title" in words
    assert not set(words) & set("\x1b\x07\u202e\ud800")
    assert len(words) < 30_000


def test_hostile_texts_are_text_on_the_page(against):
    record = against(*hostile(HOSTILE), path=HOSTILE, ran={HOSTILE: 99})
    text = page(record, record)
    assert _is_harmless(text)
    parsed = _Page(text)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert _links_without_a_target(parsed) == set()


def test_hostile_texts_are_text_in_markdown(against):
    made = rendered(against(*hostile(HOSTILE_MARKDOWN), path=HOSTILE_MARKDOWN, ran={HOSTILE_MARKDOWN: 99}))
    found = read(made)
    assert found.links == []
    assert found.mentions == []
    assert ("h1", "heading") not in found.headings
    assert not {markup for markup in found.html if "bold" in markup or "someone" in markup}
    assert all(len(set(widths)) == 1 for widths in tables(made))
    assert not set(made) & set("\x1b\x00\r\u202e\ud800")


def test_a_hostile_rule_is_text(against):
    rule = "kind == '<script>alert(1)</script> {{ 7*7 }} | `x` @someone'"
    record = against(settled(EntryState.CHANGED, rule=rule))
    assert "<script>alert" not in page(record)
    found = read(rendered(record))
    assert found.html <= read(rendered(against(settled(EntryState.CHANGED)))).html
    assert found.mentions == []
