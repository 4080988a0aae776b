"""The page as a file: everything that matters stands in it, it loads nothing, and no text in it does anything."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from made_records import (
    CHECKS,
    DIMS,
    FLAGS,
    HOSTILE,
    hostile_fails,
    ladder,
    looked_at,
    of_every_verdict,
    outcome,
    rows_fail,
    rung,
    specs,
    with_looks,
    wrong,
)
from msgspec import convert
from page_data import extract_data

from verifier.analysis.combinations import list_combinations
from verifier.analysis.selftest import SelfTest
from verifier.analysis.view import view_record
from verifier.cases.spec import CaseSpec
from verifier.judging.outcome import RECORDED, Verdict
from verifier.report import drawing, html, markdown
from verifier.report.embedded_data import embed_data
from verifier.report.markdown import bug_report

Q = "blocks.0.attn.hook_q"
OWN = sum(len(html._read_template(name)) for name in ("page.js", "page.css"))  # what every page has, whatever is in it
_RENDERED = """
import sys
from pathlib import Path
from verifier import record
from verifier.report import html, markdown
from verifier.analysis.view import view_record
views = [view_record(record.read(Path(sys.argv[1]))) for _ in range(2)]
sys.stdout.buffer.write((html.render(views) + markdown.render(views)).encode())
"""


class _Page(HTMLParser):
    """Collects tags, ids, links, texts, tables and scripts, and sees that tags are closed in order."""

    VOID = ("meta", "wbr", "br", "hr", "input")

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.links, self.open = [], [], [], []
        self.tables, self.written, self.words = [], {"script": [], "style": []}, []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name == "href"]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append(0)
        if tag in ("td", "th"):
            self.tables[-1][-1] += int(attributes.get("colspan", 1))
        if tag in self.written:
            self.written[tag].append((attributes, ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else None
        if inside in self.written:
            attributes, before = self.written[inside][-1]
            self.written[inside][-1] = (attributes, before + data)
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    @property
    def data(self):
        return [content for attributes, content in self.written["script"] if "type" in attributes]

    def having(self, name):
        return [attributes for _, attributes in self.tags if name in attributes]


def _page(*records, **more):
    return _Page(html.render([view_record(one, **more) for one in records]))


def _article(page, fingerprint):
    return re.search(rf'<article class="finding" id="{fingerprint}".*?</article>', page, re.DOTALL)[0]


# --- texts from outside ----------------------------------------------------------------------------------------------


def _is_harmless(page):
    """Whether hostile text is in it, and is nothing but text."""
    page.encode()
    parsed = _Page(page)
    kinds = [attributes.get("type") for attributes, _ in parsed.written["script"]]
    return (
        parsed.open == []
        and kinds == ["application/gzip;base64"] * (len(kinds) - 1) + [None]
        and not any("alert" in content for _, content in parsed.written["script"])
        and not set(page) & set("\x1b\x07\u202e")
        and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        and "{{ 7*7 }}" in page
    )


def test_hostile_text_is_text(hostile):
    page = html.render([view_record(hostile)])
    assert _is_harmless(page)
    assert len(page) - OWN < 60_000


def _named_so(spec):
    return replace(spec, label=HOSTILE)


def _refused_so(spec):
    return replace(spec, valid=False, reason=HOSTILE)


def _valued_so(spec):
    return replace(spec, config={**spec.config, "kind": HOSTILE})


@pytest.mark.parametrize(
    ("changed", "run"),
    [
        (_named_so, {}),
        (_refused_so, {}),
        (_valued_so, {"flags": {**FLAGS, "kind": [HOSTILE, "other"]}}),
        (None, {"flags": {HOSTILE: [False, True]}}),
        (None, {"versions": {HOSTILE: HOSTILE}}),
        (None, {"family": HOSTILE}),
        (None, {"adapter_version": HOSTILE, "started": HOSTILE}),
        (None, {"checks": [{"id": check, "doc": HOSTILE} for check in CHECKS]}),
        (None, {"checks": [{"id": f"qkv.{HOSTILE}", "doc": ""}]}),
    ],
)
def test_hostile_names_are_text(make, changed, run):
    cases = specs() if "flags" not in run else [replace(one, config={**one.config, HOSTILE: True}) for one in specs()]
    found = make([changed(one) for one in cases] if changed else cases, rows_fail, **run)
    page = html.render([view_record(found), view_record(found)])
    assert _is_harmless(page)
    assert len(page) - OWN < 120_000


def test_hostile_findings_of_a_closer_look_are_text(make):
    found = make(specs(), rows_fail)
    [finding] = view_record(found).summary.bugs
    look = looked_at(finding.smallest.id, "qkv.rows", finding.fingerprint, [wrong(HOSTILE), wrong("y")])
    hostile = replace(look, difference=replace(look.difference, where=HOSTILE, axes=("<b>", "pos")))
    rungs = ladder(finding.smallest.id, [rung(HOSTILE), wrong(HOSTILE)], missing={"backward": HOSTILE})
    page = html.render([view_record(with_looks(found, hostile, rungs))])
    assert _is_harmless(page)
    assert "<b>, pos" not in page


def test_a_hostile_selftest_is_text(make):
    kill = dict.fromkeys(("fault", "what", "check", "verdict", "evidence"), HOSTILE)
    test = convert({"family": "toy", "adapter": HOSTILE, "kills": [kill]}, SelfTest)
    assert _is_harmless(html.render([view_record(make(specs()), [test])]))


# --- one file --------------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_that_loads_nothing(hostile):
    parsed = _page(hostile, hostile)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"link", "img", "iframe", "object", "embed", "form", "base", "audio", "video", "image", "use"}
    assert all(link.startswith("#") for link in parsed.links)
    [(_, style)] = parsed.written["style"]
    assert "url(" not in style
    assert "@import" not in style


def test_nothing_in_it_is_run_or_styled_by_an_attribute(hostile):
    names = {name for _, attributes in _page(hostile, hostile).tags for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert not names & {"src", "style", "srcdoc", "action", "formaction"}


def test_only_what_the_policy_names_may_run_or_style(hostile):
    page = html.render([view_record(hostile), view_record(hostile)])
    parsed = _Page(page)
    [policy] = [one["content"] for one in parsed.having("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert rules[name] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<script")


def _links_without_a_target(parsed):
    plots = {one["href"] for one in parsed.having("data-plot")}  # a window that the script opens
    return set(parsed.links) - {f"#{identity}" for identity in parsed.ids} - plots


def _fails_in_every_way(make):
    cases = [
        *specs(lambda config: config["kv_heads"] == 4),
        *(replace(one, label="c", length=9) for one in specs()[:3]),
    ]
    found = make(cases, of_every_verdict())
    looks = [ladder(finding.smallest.id, [rung("a"), wrong("b")]) for finding in view_record(found).summary.bugs]
    return with_looks(found, *looks)


def test_every_link_has_a_target_and_every_id_is_one(make):
    found = _fails_in_every_way(make)
    parsed = _page(found, found)
    assert _links_without_a_target(parsed) == set()
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {"content", "together", "r1", "r2", "r1-matrix", "r2-matrix"} <= set(parsed.ids)
    assert any(link.startswith("#ladder-") for link in parsed.links)


def test_only_cases_that_are_left_out_have_no_place_of_their_own(make):
    found = make(specs(), rows_fail)
    all_ = view_record(found)
    shown = list_combinations(found, all_.summary, most=3)
    parsed = _Page(html.render([replace(all_, combinations=shown)]))
    kept = {one.spec.id for _, some in shown.of_flags for one in some}
    [finding] = all_.summary.bugs
    assert _links_without_a_target(parsed) == {f"#{case}" for case in finding.cases if case not in kept}
    assert "9 cases of 12 not shown here; those that differ come first." in parsed.text


def test_what_names_another_element_names_one_that_is_there(make):
    parsed = _page(make(specs(), rows_fail))
    names = ("aria-labelledby", "aria-describedby", "for", "data-copy", "data-copy-link")
    named = {value for name in names for one in parsed.having(name) for value in one[name].split()}
    assert len(named) > 8
    assert named <= set(parsed.ids)


def test_equal_records_give_equal_pages(make):
    found = make(specs(lambda config: config["alibi"]), of_every_verdict())
    assert html.render([view_record(found), view_record(found)]) == html.render(
        [view_record(found), view_record(found)]
    )


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(make):
    found = make(specs(lambda config: config["alibi"]), of_every_verdict())
    views = [view_record(found), view_record(found)]
    expected = html.render(views) + markdown.render(views)
    for seed in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-c", _RENDERED, str(found.path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
        assert ended.stdout.decode() == expected


# --- what it says ----------------------------------------------------------------------------------------------------


def test_headers_of_tables_have_a_scope(make):
    headers = [attributes for tag, attributes in _page(_fails_in_every_way(make)).tags if tag == "th"]
    assert len(headers) > 100
    assert {one.get("scope") for one in headers} == {"col", "row", "rowgroup"}


def test_rows_of_a_table_are_equally_wide(make):
    found = _fails_in_every_way(make)
    parsed = _page(found, found)
    assert len(parsed.tables) > 10
    assert [table for table in parsed.tables if len(set(table)) > 1] == []


def test_pictures_have_words_and_what_needs_scripts_is_hidden_without(make):
    found = _fails_in_every_way(make)
    parsed = _page(found)
    pictures = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert pictures
    assert all(one.get("aria-hidden") == "true" or (one["role"] == "img" and one["aria-label"]) for one in pictures)
    [tools] = [one for one in parsed.having("id") if one["id"] == "tools"]
    [table] = parsed.having("data-table")
    assert "hidden" in tools
    assert "hidden" in table
    assert all(attributes["type"] == "button" for tag, attributes in parsed.tags if tag == "button")


def test_verdicts_are_told_by_word_and_shape(make):
    found = make(specs(), of_every_verdict())
    parsed = _page(found)
    counts = view_record(found).summary.counts
    assert set(counts) == set(RECORDED)
    for verdict in RECORDED:
        assert f"{verdict.shape} {verdict.word}" in parsed.text
        assert f"{counts[verdict]} {verdict.word.lower()}" in parsed.text
    assert len({one.shape for one in Verdict}) == len({one.word for one in Verdict}) == len(Verdict)


def test_the_page_of_a_run_where_nothing_ran_says_so(make):
    parsed = _page(make([]))
    assert "INCONCLUSIVE" in parsed.text
    assert "No case that HF accepts was run." in parsed.text
    assert "No check that measures an error ran." in parsed.text


def test_what_stands_for_every_value_is_explained(make):
    assert "“any” is every value that occurs in that row's cases" in _page(make(specs(), rows_fail)).text


@pytest.mark.parametrize("count", [3, 20])
def test_reasons_for_refusals_are_all_on_the_page(make, count):
    cases = [
        CaseSpec(family="toy", config={"hidden_size": number}, valid=False, reason=f"reason {number}.")
        for number in range(count)
    ]
    shown = _page(make(cases)).text
    assert f"Refused by HF: {count} cases" in shown
    assert all(f"reason {number}." in shown for number in range(count))


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        (Verdict.CRASH, "Where the process was, and what it said"),
        (Verdict.TIMEOUT, "Where the process was, and what it said"),
        (Verdict.ERROR, "Traceback"),
    ],
)
def test_detail_is_called_what_it_is(make, verdict, title):
    found = make(specs()[:1], lambda spec, check: outcome(check, verdict, where="x", detail="here"))
    assert f"<summary>{title}</summary>" in html.render([view_record(found)])


def test_many_bugs_are_all_on_the_page_the_first_in_full(make):
    numbers = itertools.count()
    checks = [f"qkv.{number}" for number in range(12)]
    found = make(specs(), rows_fail)
    fails = [outcome(check, Verdict.FAIL, where=f"place {next(numbers)}") for check in checks for _ in found.cases]
    entries = [
        replace(found.entries[0], case=case, outcome=one, fingerprint=one.fingerprint)
        for case, one in zip(itertools.cycle(found.cases), fails, strict=False)
    ]
    one = view_record(replace(found, entries=tuple(entries)))
    page = html.render([one])
    parsed = _Page(page)
    assert len(one.summary.bugs) == len(fails) > html.MOST_ARTICLES
    assert page.count('class="finding"') == html.MOST_ARTICLES
    assert f"The other {len(fails) - html.MOST_ARTICLES} in brief:" in parsed.text
    assert all(finding.fingerprint in parsed.ids for finding in one.summary.bugs)
    assert _links_without_a_target(parsed) == set()


def test_a_finding_says_what_where_and_how_to_see_it(make):
    found = make(specs(), rows_fail)
    one = view_record(found)
    [finding] = one.summary.bugs
    article = _article(html.render([one]), finding.fingerprint)
    facts = {name: _Page(said).text for name, said in re.findall(r"(?s)<dt>(.*?)</dt><dd>(.*?)</dd>", article)}
    assert "1 qkv.rows ✗ FAIL 6 of 12 cases" in _Page(article).text
    assert facts == {
        "where": Q,
        "rule": "bias (fails 6 of 6, passes 6 of 6)",
        "measured": "0.5, bound 1e-14",
        "smallest case": f"bias=true (case {finding.smallest.id})",
        "around it": "alibi: true ✗ FAIL; bias: false ✓ ok; kv_heads: 1 ✗ FAIL, 4 ✗ FAIL",
        "reproduce": finding.reproduce,
        "the check": "What qkv.rows proves.",
    }
    assert set(_Page(article).links) >= {f"#{case}" for case in finding.cases}


def test_a_finding_has_its_bug_report(make):
    one = view_record(make(specs(), rows_fail))
    [finding] = one.summary.bugs
    parsed = _Page(_article(html.render([one]), finding.fingerprint))
    assert bug_report(finding, one.summary.run).strip() in "".join(parsed.words)


def test_what_a_closer_look_found_is_drawn_and_told(make):
    found = make(specs(), rows_fail)
    [finding] = view_record(found).summary.bugs
    case = finding.smallest.id
    look = looked_at(case, "qkv.rows", finding.fingerprint, [wrong("logits"), wrong("h.0")])
    rungs = ladder(case, [rung("hook_embed"), wrong("blocks.0.ln1"), wrong(Q)], missing={"backward": "no gradients"})
    page = html.render([view_record(with_looks(found, look, rungs))])
    article = _article(page, finding.fingerprint)
    shown = _Page(article).text
    assert 'aria-label="differs in head 1 (of 2), pos 1 (of 2)"' in article
    assert "1, 1 1.5 1" in _Page(article.replace("<td", " <td")).text
    assert "Where it starts: blocks.0.ln1 is the first activation that differs" in shown
    assert shown.count("starts here") == 1
    assert "2 places that the check compared" in shown
    whole_page = _Page(page)
    assert f"case {case}: activations differ from blocks.0.ln1 on" in whole_page.text
    assert "backward: no gradients" in whole_page.text


def test_bars_are_as_long_as_the_errors_say(make):
    found = make(specs(), rows_fail)
    [finding] = view_record(found).summary.bugs
    rungs = [rung("a", measured=1e-14), rung("b", Verdict.FAIL, measured=0.5), rung("c", measured=0.0)]
    page = html.render([view_record(with_looks(found, ladder(finding.smallest.id, rungs)))])
    [table] = re.findall(r'<details id="ladder-.*?</details>', page, re.DOTALL)
    assert re.findall(r'<rect class="(?:ok|over)" y="1" width="(\d+)"', table) == [
        str(drawing.bar_length(one.measured, one.bound)) for one in rungs
    ]


def test_one_finding_of_a_case_is_opened_the_one_that_names_where_it_starts(make):
    def fails(spec, check):
        places = {"qkv.rows": "elsewhere", "forward.logits": Q, "build.adapter": "nowhere"}
        return outcome(check, Verdict.FAIL, where=places[check]) if check in places and spec.config["bias"] else None

    found = make(specs(), fails)
    findings = {one.entry.outcome.check: one for one in view_record(found).summary.bugs}
    [case] = {one.smallest.id for one in findings.values()}
    page = html.render([view_record(with_looks(found, ladder(case, [rung("a"), wrong(Q)])))])
    opened = {check: "<details open>" in _article(page, one.fingerprint) for check, one in findings.items()}
    assert opened == {"build.adapter": False, "qkv.rows": False, "forward.logits": True}


def test_of_several_findings_of_a_case_that_name_the_place_one_is_opened(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where=Q) if check in ("qkv.rows", "forward.logits") else None

    found = make(specs(), fails)
    first, second = view_record(found).summary.bugs
    assert first.smallest == second.smallest
    page = html.render([view_record(with_looks(found, ladder(first.smallest.id, [wrong(Q)])))])
    assert ["<details open>" in _article(page, one.fingerprint) for one in (first, second)] == [True, False]


def test_where_everything_agrees_is_said(make):
    found = make(specs(), rows_fail)
    [finding] = view_record(found).summary.bugs
    page = html.render([view_record(with_looks(found, ladder(finding.smallest.id, [rung("a")], [rung("a")])))])
    shown = _Page(_article(page, finding.fingerprint)).text
    assert "Every activation and every gradient that the adapter shows in this case agrees" in shown


def test_every_outcome_is_in_the_page(make):
    found = make(specs(), rows_fail)
    data = [extract_data(one) for one in _page(found, found).data]
    assert len(data) == 2
    assert data[0]["ids"] == list(found.cases)
    assert sum(letter != "." for column in data[0]["verdicts"] for letter in column) == len(found.entries)


def test_what_is_left_out_is_said(make, monkeypatch):
    found = make(specs(), rows_fail)
    one = view_record(found)
    assert "Left out, so that the page stays small" not in _Page(html.render([one])).text
    small = embed_data(found, limit=len(embed_data(one.record).data) - 1)
    assert small.left_out
    monkeypatch.setattr(html, "embed_data", lambda record: small)
    shown = _Page(html.render([one])).text
    assert f"Left out, so that the page stays small: {small.left_out}. All of it is in the record." in shown


def test_records_stand_side_by_side_with_addresses_of_their_own(make):
    found = make(specs(), rows_fail)
    other = replace(found, run=replace(found.run, adapter_name="theirs"))
    [finding] = view_record(found).summary.bugs
    parsed = _page(found, other)
    assert {finding.fingerprint, f"r2-{finding.fingerprint}"} <= set(parsed.ids)
    assert all(case in parsed.ids and f"r2-{case}" in parsed.ids for case in found.cases)
    assert "toy × mine 1: does not conform" in parsed.text
    assert "toy × theirs 1: does not conform" in parsed.text
    assert [one["data-prefix"] for one in parsed.having("data-prefix")] == ["", "r2-"]
    assert "together" not in _page(found).ids


def test_a_selftest_is_counted_and_listed(make):
    kills = [
        {"fault": "no bias", "what": "the bias is left out", "check": "qkv.rows", "verdict": verdict, "evidence": "e"}
        for verdict in ("caught", "caught", "survived", "not tried")
    ]
    test = convert({"family": "toy", "adapter": "mine:Adapter", "kills": kills}, SelfTest)
    shown = _page(make(specs()), selftests=[test]).text
    assert "4 pairs of fault and check, planted in toy × mine:Adapter: 2 caught, 1 survived, 1 not tried." in shown
    assert "the bias is left out" in shown


@pytest.mark.parametrize(
    ("families", "adapters", "chosen"),
    [(("toy", "toy"), ("other", "mine:Adapter"), 1), (("toy", "toy"), ("other", "another"), 0), (("a",), ("b",), None)],
)
def test_of_several_selftests_that_of_the_adapter_is_shown_or_else_one_of_the_family(make, families, adapters, chosen):
    tests = [
        SelfTest(family=family, adapter=adapter, kills=()) for family, adapter in zip(families, adapters, strict=True)
    ]
    found = view_record(make(specs()), tests).selftest
    assert found is (None if chosen is None else tests[chosen])


@pytest.mark.slow
def test_a_page_of_hostile_texts_in_every_case_stays_small(make):
    config = {**DIMS, "text": HOSTILE * 1_000}
    cases = [
        CaseSpec(family="toy", config={**config, "bias": True, "number": number}, label=f"{number} {HOSTILE * 1_000}")
        for number in range(100)
    ]
    page = html.render(
        [view_record(make(cases, hostile_fails, versions={f"{n}{HOSTILE}": HOSTILE * 99 for n in range(9)}))]
    )
    assert _is_harmless(page)
    assert len(page) - OWN < 400_000
