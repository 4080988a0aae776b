"""What a close reading of the report found wrong, and stays mended."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import (
    FLAGS,
    HOSTILE,
    HOSTILE_MARKDOWN,
    looked_at,
    outcome,
    rows_fail,
    rung,
    specs,
    with_looks,
    wrong,
)
from read_markdown import read, tables

from verifier import record as records
from verifier.analysis.bugs import find_bugs
from verifier.analysis.combinations import list_combinations
from verifier.analysis.side_by_side import compare_views
from verifier.analysis.view import view_record
from verifier.cases.spec import CaseSpec
from verifier.judging.evidence import Heat
from verifier.judging.outcome import Verdict
from verifier.report import drawing, html, markdown
from verifier.report.markdown import bug_report
from verifier.report.templating import escaped


def _fails_on(*checks, when=lambda config: True, **more):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where="x", **more) if check in checks and when(spec.config) else None

    return fails


# --- templating.escaped: `__init__` becomes emphasis ---


@pytest.mark.parametrize("one", ["no attribute '__init__'", "a __b__ c", "__a_b__", "___a___"])
def test_dunder_names_stay_as_they_are(one):
    found = read(f"x {escaped(one)} x")
    assert found.words == f"x {one} x"
    assert found.count("em_open") == found.count("strong_open") == 0


# --- templating.escaped: `\#123` is still a reference on GitHub ---


@pytest.mark.parametrize("one", ["see #123", "owner/repo#1", "GH-123"])
def test_a_number_refers_to_no_issue(one):
    assert not re.search(r"#\d|GH-\d", read(f"x {escaped(one)} x").words)


# --- bugreport: family and adapter are put between backticks unescaped ---


@pytest.mark.parametrize("name", ["family", "adapter"])
def test_a_hostile_name_of_adapter_or_family_is_text(make, name):
    summary = view_record(make(specs(), rows_fail, **{name: "a` @someone <b>b</b> `c"})).summary
    found = read(bug_report(summary.bugs[0], summary.run))
    assert found.mentions == []
    assert "<b>" not in found.html


# --- findings.around: a named case with other inputs stands in for the combination ---


def test_what_is_around_a_finding_differs_from_it_in_that_flag_alone(make):
    corners = [replace(spec, label="corner", length=9) for spec in specs()]
    record = make([*specs(), *corners], rows_fail)
    (finding,) = find_bugs(record, upstream=False)
    for near in finding.around:
        spec = record.cases[near.case]
        assert spec.config != finding.smallest.config, "a flag's own value is no neighbour"
        assert replace(spec, config=finding.smallest.config) == finding.smallest


# --- combinations.columns: a failure of a refused case in the last area is not shown ---


def test_a_failure_of_a_refused_case_in_the_last_area_is_shown(make):
    record = make(specs(lambda config: config["bias"]), _fails_on("build.refusal"))
    only = replace(record, entries=tuple(one for one in record.entries if one.outcome.check.startswith("build.")))
    page = html.render([view_record(only)])  # as `run --only build` leaves it
    refused = next(case for case, spec in only.cases.items() if not spec.valid)
    (row,) = re.findall(rf'<tr id="{refused}".*?</tr>', page, re.DOTALL)
    assert "FAIL" in row


# --- drawing.shorten: reduced places use up what may be shown, and hide where it starts ---


def test_where_it_starts_is_shown_however_many_places_are_reduced_before_it():
    rungs = [rung(f"p{place}", Verdict.REDUCED) for place in range(14)] + [wrong("here"), wrong("there")]
    shown = [one.rungs[0].where for one in drawing.shorten(rungs) if one.shown]
    assert "here" in shown


# --- together ---


def _rows(*views):
    return [(row.flags, row.cases, tuple(cell.verdict for cell in row.cells)) for row in compare_views(views).rows]


def test_a_narrowed_run_does_not_claim_what_it_did_not_run(make):
    one = view_record(make([spec for spec in specs() if spec.config["alibi"]]))
    assert [row.flags["alibi"] for row in compare_views([one, one]).rows] == [(True,)]  # as the matrix of each says


def test_the_order_of_flags_does_not_matter(make):
    record = make(specs(), rows_fail)
    turned = replace(
        record, run=replace(record.run, flags={name: FLAGS[name] for name in ("alibi", "bias", "kv_heads")})
    )
    assert {cells for _, _, cells in _rows(view_record(record), view_record(turned))} <= {
        (Verdict.PASS, Verdict.PASS),
        (Verdict.FAIL, Verdict.FAIL),
    }


def test_a_valid_case_on_which_all_was_skipped_is_not_called_refused(make):
    one = view_record(make(specs(), lambda spec, check: outcome(check, Verdict.SKIP, message="offers none")))
    table = html.render([one, one]).partition('aria-label="Combinations side by side"')[2].partition("</table>")[0]
    assert "refused" not in table


def test_a_combination_that_a_page_leaves_out_was_run_all_the_same(make):
    views = []
    for record in (make(specs(), rows_fail), make(specs())):
        one = view_record(record)
        views.append(replace(one, combinations=list_combinations(record, one.summary, most=6)))
    assert not any(None in cells for _, _, cells in _rows(*views))


# --- texts that are not made harmless ---


def _hostile_area(make):
    record = make(specs(), rows_fail)
    change = {"qkv.rows": f"{HOSTILE}.rows"}
    entries = [
        replace(one, outcome=replace(one.outcome, check=change.get(one.outcome.check, one.outcome.check)))
        for one in record.entries
    ]
    return replace(record, entries=tuple(entries))


def test_a_hostile_area_is_text_on_the_page(make):
    page = html.render([view_record(_hostile_area(make))])
    assert not set(page) & set("\x1b\x07\u202e\ud800")


def test_a_hostile_area_is_text_in_markdown(make):
    record = _hostile_area(make)
    entries = [
        replace(
            one,
            outcome=replace(one.outcome, check=one.outcome.check.replace(HOSTILE, HOSTILE_MARKDOWN.replace(".", ""))),
        )
        for one in record.entries
    ]
    made = markdown.render([view_record(replace(record, entries=tuple(entries)))] * 2)
    assert not set(made) & set("\x1b\x00\u202e\ud800")
    assert [one for one in tables(made) if len(set(one)) > 1] == []


def test_a_hostile_fingerprint_is_text_on_the_page(make):
    record = make(specs(), rows_fail)
    entries = [replace(one, fingerprint=one.fingerprint and HOSTILE) for one in record.entries]
    page = html.render([view_record(replace(record, entries=tuple(entries)))])
    assert not set(page) & set("\x1b\x07\u202e\ud800")


def test_a_hostile_fingerprint_does_nothing_in_a_shell(make):
    record = make(specs(), rows_fail)
    entries = [replace(one, fingerprint=one.fingerprint and "x; rm -rf ~ #") for one in record.entries]
    (finding,) = find_bugs(replace(record, entries=tuple(entries)), upstream=False)
    assert "; rm" not in finding.reproduce.replace("'x; rm -rf ~ #'", "")


def test_hostile_axes_of_a_closer_look_are_text(make):
    record = make(specs(), rows_fail)
    (finding,) = find_bugs(record, upstream=False)
    look = looked_at(finding.smallest.id, "qkv.rows", finding.fingerprint)
    heat = replace(look.difference.heat, axes=(HOSTILE, "pos"))
    look = replace(look, difference=replace(look.difference, axes=(HOSTILE, "pos"), heat=heat))
    page = html.render([view_record(with_looks(record, look))])
    assert not set(page) & set("\x1b\x07\u202e\ud800")


# --- records that a reader takes, and a report breaks on ---


@pytest.mark.parametrize("values", [(), ((0.0, 0.0), ())])
def test_a_heat_map_that_is_none_cannot_be_made(values):
    with pytest.raises(ValueError, match="rows of a heat map must have one length"):
        Heat(axes=("head", "pos"), lengths=(len(values), 2), values=values)


def test_a_case_whose_id_is_another_is_told_by_the_reader_or_shown(make):
    path = make(specs(), rows_fail).path
    path.write_text(path.read_text().replace(specs()[0].id, "zzzzzzzz"))
    from verifier.errors import UsageError

    try:
        read_ = records.read(path)
    except UsageError:
        return
    view_record(read_)


def test_the_largest_number_that_a_config_may_have_breaks_nothing(make):
    cases = [replace(spec, config={**spec.config, "big": 2**31 - 1}) for spec in specs()]
    view_record(make(cases, rows_fail))


# --- smaller ones ---


def test_markdown_says_of_named_cases_too_that_hf_refuses_them(make):
    cases = [replace(spec, label="corner", length=9) for spec in specs(lambda config: True)]
    made = markdown.render([view_record(make(cases, _fails_on("build.refusal")))])
    matrix = made.partition("### Matrix")[2].partition("### Failures")[0]
    assert "refused by HF" in matrix


def test_rows_are_equally_wide_where_a_family_has_no_flags(make):
    cases = [CaseSpec(family="toy", config={"hidden_size": size, "bias": False}) for size in (8, 16)]
    page = html.render([view_record(make(cases, rows_fail, flags={}))])
    (table,) = re.findall(r'aria-label="Every combination">.*?</table>', page, re.DOTALL)
    widths = [
        sum(int(span or 1) for span in re.findall(r'<t[dh](?: [^>]*?colspan="(\d+)")?[^>]*>', row))
        for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    ]
    assert len(set(widths)) == 1, widths


def test_what_says_that_a_text_was_cut_is_not_folded_away(make, monkeypatch):
    record = make(specs(), _fails_on("qkv.rows", when=lambda config: config["bias"], measured=0.5, bound=1e-14))
    made = markdown.render([view_record(record)])
    place = len(made[: made.index("Time: the dearest checks")].encode())
    monkeypatch.setattr(markdown, "MOST_BYTES", place + 280)
    cut = markdown.render([view_record(record)])
    assert "cut here" in cut
    assert cut.count("<details>") == cut.count("</details>")


def test_pictures_of_parity_say_which_order_of_magnitude(make):
    record = make(specs(), lambda spec, check: outcome(check, measured=1e-15, bound=1e-14))
    (label, *_) = re.findall(r'<svg[^>]*role="img" aria-label="([^"]*)"', html.render([view_record(record)]))
    assert label != "12 of 12"


def test_the_script_reproduces_in_the_folder_as_the_page_does(make):
    """page.js: `verifier repro ${id} ${this.root.dataset.folder}`, which no shell takes as one word."""
    moved = replace(make(specs(), rows_fail), path=Path("reports/my falcon/record.jsonl"))
    page = html.render([view_record(moved)])
    (folder,) = re.findall(r'data-folder="([^"]*)"', page)
    assert folder == "&#39;reports/my falcon&#39;"


def test_a_finding_far_down_a_ladder_keeps_its_words_for_reduced_places():
    rungs = [rung(f"p{place}", Verdict.REDUCED) for place in range(14)]
    assert all(one.words == "agree to float32 rounding only" for one in drawing.shorten(rungs)), (
        "they are said to `differ too`"
    )
