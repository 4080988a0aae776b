"""The report as Markdown: the page's content, in tables that no text breaks, and never longer than a summary may be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_records import (
    CHECKS,
    FLAGS,
    HOSTILE_MARKDOWN,
    ladder,
    of_every_verdict,
    outcome,
    rows_fail,
    rung,
    specs,
    with_looks,
    wrong,
)
from msgspec import convert
from read_markdown import read, tables

from verifier.analysis.selftest import SelfTest
from verifier.analysis.view import view_record
from verifier.judging.outcome import RECORDED, Verdict
from verifier.report import html, markdown

Q = "blocks.0.attn.hook_q"
FOLDED = {
    "<details><summary>Parity: error over bound</summary>",
    "<details><summary>Time: the dearest checks</summary>",
    "</details>",
}


def _everything(make):
    """A record with something in every section."""

    def fails(spec, check):
        if check == "qkv.rows":
            return rows_fail(spec, check)
        if check == "forward.logits":
            verdict = Verdict.SKIP if spec.config["alibi"] else Verdict.REDUCED
            return outcome(check, verdict, message="no weights offered", measured=1e-15, bound=1e-14)
        if check == "reference.acceptance" and spec.config["alibi"]:
            return outcome(check, Verdict.UPSTREAM, where="eager", message="HF against HF")
        return None

    return make(specs(lambda config: config["kv_heads"] == 4), fails)


def _rendered(*records, **more):
    return markdown.render([view_record(one, **more) for one in records])


def _rows(made, title):
    """The cells of the table in this section."""
    section = made.partition(f"### {title}\n\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in section.splitlines()]


KILL = {"fault": "f", "what": "w", "check": "qkv.rows", "verdict": "caught", "evidence": "e"}
KILLS = [KILL, {**KILL, "verdict": "survived"}]
SELFTEST = convert({"family": "toy", "adapter": "mine:Adapter", "kills": KILLS}, SelfTest)


# --- what it says ----------------------------------------------------------------------------------------------------


def test_it_has_the_sections_of_the_page(make):
    record = _everything(make)
    made = _rendered(record, selftests=[SELFTEST])
    found = read(made)
    assert found.headings == [
        ("h2", "toy × mine 1"),
        *(
            ("h3", title)
            for title in (
                "Why",
                "Matrix",
                "Failures",
                "Upstream: Hugging Face disagrees with itself; the adapter is not to blame",
                "Config space",
                "Refused by HF",
                "Agrees to float32 rounding only",
                "Did not run",
                "Self-test",
                "Environment",
            )
        ),
    ]
    assert found.html == FOLDED
    page = html.render([view_record(record)])
    for title in ("Matrix", "Failures", "Upstream", "Parity", "Config space", "Self-test", "Time", "Environment"):
        assert f">{title}</h3>" in page
        assert title in made


def test_it_begins_with_the_verdict_and_what_it_rests_on(make):
    lines = _rendered(make(specs(), rows_fail, stop=None)).splitlines()
    assert lines[:6] == [
        "## toy × mine 1",
        "",
        "**INTERRUPTED** (1 bug in 6 cases)",
        "",
        "12 valid cases, 0 refused by HF, 5 checks: 36 of 36 looked at the adapter; 42 ok, 6 FAIL",
        "",
    ]
    assert lines[6].startswith("Note: the run was cut off")


def test_verdicts_are_told_by_word_and_shape(make):
    record = make(specs(), of_every_verdict())
    made = _rendered(record)
    for verdict, count in view_record(record).summary.counts.items():
        assert f"{count} {verdict.word}" in made
    for verdict in set(RECORDED) - {Verdict.PASS, Verdict.SKIP}:
        assert f"{verdict.shape} {verdict.word}" in made


def test_the_matrix_says_how_each_row_fared(make):
    assert _rows(_rendered(make(specs(), rows_fail)), "Matrix") == [
        ["bias", "alibi", "kv_heads", "cases", "reference", "build", "qkv", "forward"],
        ["---"] * 8,
        ["false", "any", "any", "6", "✓ ok", "✓ ok", "✓ ok", "✓ ok"],
        ["true", "any", "any", "6", "✓ ok", "✓ ok", "✗ FAIL 1", "✓ ok"],
    ]


def test_a_finding_says_what_where_and_how_to_see_it(make):
    record = make(specs(), rows_fail)
    [finding] = view_record(record).summary.bugs
    made = _rendered(with_looks(record, ladder(finding.smallest.id, [rung("a"), wrong("hook_embed")])))
    assert (
        f"**1 qkv.rows** ✗ FAIL, 6 of 12 cases, `{finding.fingerprint}`\n\n"
        f"- where: `{Q}`\n"
        "- rule: `bias` (fails 6 of 6, passes 6 of 6)\n"
        "- smallest: `bias=true`\n"
        "- starts: hook_embed, the first activation that differs\n"
        f"- reproduce: `{finding.reproduce}`\n"
    ) in made


def test_causes_name_the_checks_that_saw_them(make):
    def fails(spec, check):
        wrong = spec.config["bias"] and check in ("qkv.rows", "forward.logits")
        return outcome(check, Verdict.FAIL, where=Q) if wrong else None

    assert _rows(_rendered(make(specs(), fails)), "Why")[2:] == [
        ["`bias` (fails 6 of 6, passes 6 of 6)", "`blocks.{i}.attn.hook_q`", "6", "1 qkv.rows, 2 forward.logits"]
    ]


def test_pairs_that_were_never_exercised_are_named(make):
    made = _rendered(make(specs(lambda config: config["bias"] and config["alibi"])))
    assert "15 of 16 pairs of flags' values are in some valid case." in made
    assert "- `bias=true alibi=true`: HF refuses all 3 cases" in made


def test_a_run_in_which_nothing_ran_says_so(make):
    made = _rendered(make([]))
    assert "**INCONCLUSIVE** (no valid case was selected)" in made
    assert "nothing ran" in made
    assert "### Matrix" not in made


def test_records_are_shown_side_by_side_first(make):
    record = make(specs(), rows_fail)
    newer = replace(record, run=replace(record.run, adapter_version="2"))
    right = replace(make(specs()), run=replace(record.run, adapter_name="other"))
    made = _rendered(record, newer, right)
    [finding] = view_record(record).summary.bugs
    assert [title for level, title in read(made).headings if level == "h2"] == [
        "Side by side",
        "toy × mine 1",
        "toy × mine 2",
        "toy × other 1",
    ]
    assert f"| `{finding.fingerprint}` | qkv.rows | 6 | 6 | – |" in made
    assert "| verdict | DOES NOT CONFORM | DOES NOT CONFORM | CONFORMS: 36 of 36 looked at |" in made
    assert "| qkv | ✗ FAIL 1 | ✗ FAIL 1 | ✓ ok |" in made
    assert "Side by side" not in _rendered(record)


def test_a_selftest_is_counted(make):
    assert "2 pairs of planted fault and check: 1 caught, 1 survived, 0 not tried." in _rendered(
        make(specs()), selftests=[SELFTEST]
    )
    assert "### Self-test" not in _rendered(make(specs()))


def test_equal_records_give_equal_texts(make):
    assert _rendered(_everything(make)) == _rendered(_everything(make))


# --- what texts in it could do ---------------------------------------------------------------------------------------


def _hostile(make, what):
    run, changed = {}, {}
    texts = {"where": HOSTILE_MARKDOWN, "message": HOSTILE_MARKDOWN} if what == "outcomes" else {"where": "x"}
    if what == "errors":
        texts = dict.fromkeys(("message", "exception", "site", "detail"), HOSTILE_MARKDOWN)
    if what == "names":
        names = dict.fromkeys(("family", "adapter", "adapter_name", "adapter_version", "started"), HOSTILE_MARKDOWN)
        run = {**names, "versions": {HOSTILE_MARKDOWN: HOSTILE_MARKDOWN}, "asked": {"only": [HOSTILE_MARKDOWN]}}
    if what == "checks":
        run = {"checks": [{"id": check, "doc": HOSTILE_MARKDOWN} for check in (*CHECKS, HOSTILE_MARKDOWN)]}
    if what == "flags":
        run = {"flags": {**FLAGS, HOSTILE_MARKDOWN: [HOSTILE_MARKDOWN, "other"]}}
        changed = {HOSTILE_MARKDOWN: HOSTILE_MARKDOWN}
    cases = [replace(spec, config={**spec.config, **changed}) for spec in specs(lambda config: config["kv_heads"] == 4)]
    if what == "cases":
        cases = [replace(spec, label=HOSTILE_MARKDOWN, reason=spec.reason and HOSTILE_MARKDOWN) for spec in cases]

    def fails(spec, check):
        verdict = {"qkv.rows": Verdict.FAIL, "forward.logits": Verdict.SKIP, "build.refusal": Verdict.ERROR}.get(check)
        if verdict is None:
            return outcome(check, measured=1e-15, bound=1e-14)
        return outcome(check, verdict, **texts)

    record = make(cases, fails, **run)
    if what == "notes":
        record = replace(record, notes=(HOSTILE_MARKDOWN,))
    [case, *_] = [finding.smallest.id for finding in view_record(record).summary.bugs]
    return with_looks(record, ladder(case, [wrong(HOSTILE_MARKDOWN)])) if what == "looks" else record


@pytest.mark.parametrize("what", ["outcomes", "errors", "names", "checks", "flags", "cases", "looks", "notes"])
def test_hostile_text_is_text(make, what):
    record = _hostile(make, what)
    made = _rendered(record, record)
    made.encode()
    assert not set(made) & set("\x1b\x00\u202e\ud800")
    found = read(made)
    assert found.html == FOLDED
    assert found.links == found.mentions == []
    assert {level for level, _ in found.headings} == {"h2", "h3"}
    for kind in ("em_open", "s_open", "hr", "fence", "code_block", "blockquote_open", "ordered_list_open"):
        assert found.count(kind) == 0
    assert found.count("heading_open") == read(_rendered(*[_hostile(make, "nothing")] * 2)).count("heading_open")
    assert len(made) < 40_000


@pytest.mark.parametrize("what", ["outcomes", "errors", "names", "checks", "flags", "cases", "looks", "notes"])
def test_every_row_of_a_table_has_as_many_cells_as_its_header(make, what):
    record = _hostile(make, what)
    made = _rendered(record, record)
    found = tables(made)
    assert len(found) >= 2 * 5
    assert [one for one in found if len(set(one)) > 1] == []
    assert len(found) == read(made).count("table_open")


@pytest.mark.parametrize("flags", [FLAGS, {}])
def test_named_cases_take_up_as_many_cells_as_combinations(make, flags):
    corners = [replace(spec, label="corner", length=9) for spec in specs()[:2]]
    made = _rendered(make([*specs(lambda config: config["alibi"]), *corners], rows_fail, flags=flags))
    assert [one for one in tables(made) if len(set(one)) > 1] == []


# --- how long it is --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_many_findings_and_rows_the_first_are_shown_and_the_others_counted(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where=f"place {spec.id}") if check == "qkv.rows" else None

    cases = [replace(spec, config={**spec.config, "hidden_size": 8 * size}) for size in range(1, 9) for spec in specs()]
    made = _rendered(make(cases, fails))
    assert len(_rows(made, "Matrix")) == 2 + markdown.MOST_ROWS
    assert made.count("- reproduce: ") == markdown.MOST_BUGS
    assert len(_rows(made, "Why")) == 2 + markdown.MOST_CAUSES
    for left in (96 - markdown.MOST_ROWS, 96 - markdown.MOST_BUGS, 96 - markdown.MOST_CAUSES):
        assert f"\n\n… and {left} more in the HTML report\n" in made


@pytest.mark.slow
def test_a_text_that_is_too_long_is_cut_between_lines_and_says_so(make, monkeypatch):
    record = _everything(make)
    made = _rendered(record, record)
    ending = "… cut here, because a job's summary may not be longer; the HTML report has all of it.\n"
    assert ending not in made
    for most in range(len(made.encode()) - 1, 300, -97):
        monkeypatch.setattr(markdown, "MOST_BYTES", most)
        cut = _rendered(record, record)
        assert len(cut.encode()) <= most
        assert cut.endswith(f"\n\n{ending}")
        kept = cut.removesuffix(f"\n\n{ending}")
        assert kept.count("<details>") == kept.count("</details>")
        if not made.startswith(kept + "\n"):  # what was open is closed
            kept = kept.removesuffix("\n\n</details>")
        assert made.startswith(kept + "\n")
    monkeypatch.setattr(markdown, "MOST_BYTES", len(made.encode()))
    assert _rendered(record, record) == made


@pytest.mark.slow
def test_however_many_records_there_are_a_job_can_show_it(make):
    one = view_record(_hostile(make, "outcomes"))
    made = markdown.render([one] * 400)
    assert 0.9 * markdown.MOST_BYTES < len(made.encode()) <= markdown.MOST_BYTES < 2**20
    assert "cut here" in made[-200:]
