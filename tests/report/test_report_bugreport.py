"""A failure as Markdown: all that a maintainer needs, and nothing that a text in it could do to a tracker."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import CHECKS, HOSTILE_MARKDOWN, ladder, outcome, rows_fail, rung, specs, with_looks, wrong
from read_markdown import read

from verifier.analysis.summary import summarize
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.report.markdown import bug_report
from verifier.report.templating import code, escaped, fenced

OWN_MARKUP = {
    "<details><summary>The whole config</summary>",
    "<details><summary>Traceback</summary>",
    "</details>",
}


def _report(record):
    summary = summarize(record)
    [finding] = [*summary.bugs, *summary.upstream]
    return finding, bug_report(finding, summary.run)


def _fails_with(**texts):
    def fails(spec, check):
        return outcome(check, Verdict.ERROR, **texts) if check == "qkv.rows" and spec.config["bias"] else None

    return fails


# --- what it says ----------------------------------------------------------------------------------------------------


def test_it_says_what_is_wrong_for_which_configs_and_how_to_see_it(make):
    finding, made = _report(make(specs(), rows_fail))
    assert made.startswith("### toy: mine differs from Hugging Face at blocks.0.attn.hook_q (qkv.rows)\n")
    for needed in (
        "What qkv.rows proves.\n",
        "- **Happens**: in 6 of 12 cases\n",
        "- **Rule**: `bias (fails 6 of 6, passes 6 of 6)`\n",
        "- **Where**: `blocks.0.attn.hook_q`\n",
        "- **Measured**: 0.5 against a bound of 1e-14\n",
        "- **Smallest config**: `bias=true`\n",
        "- **Versions**: mine 1, python 3.11, torch 2.9, transformers 5.20\n",
        "`verifier run toy --adapter mine:Adapter`",
    ):
        assert needed in made
    commands, config = read(made).of("fence")
    assert commands == finding.reproduce
    assert json.loads(config) == finding.smallest.config


def test_it_says_where_the_failure_starts_if_a_closer_look_found_that(make):
    record = make(specs(), rows_fail)
    finding, before = _report(record)
    _, made = _report(with_looks(record, ladder(finding.smallest.id, [rung("a"), wrong("hook_embed")])))
    assert "Starts at" not in before
    assert "- **Starts at**: hook_embed, the first activation that differs\n" in made


def test_an_error_has_its_traceback_and_the_code_that_raised(make):
    texts = {"exception": "ValueError", "message": "no", "site": "mine.py:forward", "detail": "Traceback …\n  line 1"}
    _, made = _report(make(specs(), _fails_with(**texts)))
    assert "- **Said**: ValueError: no\n" in made
    assert "- **In**: `mine.py:forward`\n" in made
    assert read(made).of("fence")[-1] == "Traceback …\n  line 1"


def test_what_is_upstream_is_held_against_hugging_face(make):
    def fails(spec, check):
        return outcome(check, Verdict.UPSTREAM, where="eager") if check == "reference.acceptance" else None

    _, made = _report(make(specs(), fails))
    assert made.startswith("### toy: Hugging Face disagrees with itself at eager (reference.acceptance)\n")


def test_what_was_neither_measured_nor_said_is_left_out(make):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL) if check == "qkv.rows" else None

    _, made = _report(make(specs()[:1], fails))
    assert re.findall(r"- \*\*(.*?)\*\*", made) == ["Happens", "Smallest config", "Versions"]
    assert "in 1 of 1 case\n" in made
    assert "`the plainest one`" in made


# --- what texts in it could do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "run", "config"),
    [
        *(({name: HOSTILE_MARKDOWN}, {}, {}) for name in ("where", "message", "exception", "site", "detail")),
        *(({}, {name: HOSTILE_MARKDOWN}, {}) for name in ("adapter_name", "adapter_version", "started")),
        ({}, {"versions": {HOSTILE_MARKDOWN: HOSTILE_MARKDOWN}}, {}),
        ({}, {"checks": [{"id": check, "doc": HOSTILE_MARKDOWN} for check in CHECKS]}, {}),
        ({}, {}, {"kind": HOSTILE_MARKDOWN}),
        ({}, {}, {HOSTILE_MARKDOWN: 1}),
        ({"detail": f"````\n</details>\n~~~\n{HOSTILE_MARKDOWN}"}, {}, {}),
    ],
)
def test_hostile_text_is_text(make, texts, run, config):
    _, plain = _report(make(specs(), _fails_with(where="x", detail="d")))
    cases = [replace(spec, config={**spec.config, **config}) for spec in specs()]
    _, made = _report(make(cases, _fails_with(**{"where": "x", "detail": "d", **texts}), **run))
    made.encode()
    assert not set(made) & set("\x1b\x00\u202e\ud800")
    found = read(made)
    assert found.html == OWN_MARKUP
    assert found.links == []
    assert found.mentions == []
    assert [level for level, _ in found.headings] == ["h3"]
    for kind in ("em_open", "s_open", "hr", "table_open", "blockquote_open", "code_block", "ordered_list_open"):
        assert found.count(kind) == 0
    for kind in ("bullet_list_open", "fence"):
        assert found.count(kind) == read(plain).count(kind)
    facts = re.findall(r"(?m)^- \*\*(.*?)\*\*", made)
    assert found.count("list_item_open") == found.count("strong_open") == len(facts)


@pytest.mark.slow
def test_a_report_of_endless_texts_is_short(make):
    endless = HOSTILE_MARKDOWN * 60_000
    assert len(endless) > 10_000_000
    texts = dict.fromkeys(("where", "message", "exception", "site", "detail"), endless)
    checks = [{"id": check, "doc": endless} for check in CHECKS]
    _, made = _report(make(specs()[6:7], _fails_with(**texts), checks=checks, adapter_name=endless))
    assert len(made) < 12_000
    assert read(made).html == OWN_MARKUP


# A text of what Markdown reads.
_SPECIAL = ["`", "``", "*", "**", "_", "~~", "[", "](b)", "<a>", "</a>", "<!--", "#", "|", "@a", "&amp;", "!", "\\"]
_PARTS = st.lists(st.sampled_from([*_SPECIAL, "a", "b c", " ", "\n", "\n\n", "\t", "é", "\x1b", "\u202e"]), max_size=12)
_MARKDOWN = _PARTS.map("".join)
_SEARCHED = settings(derandomize=True, database=None, deadline=None, max_examples=300)


@_SEARCHED
@given(_MARKDOWN)
def test_what_is_escaped_reads_as_it_was(one):
    found = read(f"x {escaped(one)} x")
    assert found.words.replace("\u200b", "") == " ".join(f"x {text.line(one)} x".replace("\u200b", "").split())
    assert found.links == found.mentions == []
    kinds = {token.type for token in found.tokens}
    assert kinds - {"inline", "text", "text_special"} == {"paragraph_open", "paragraph_close"}


@_SEARCHED
@given(_MARKDOWN)
def test_code_is_code_whatever_is_in_it(one):
    found = read(f"x {code(f'a{one}')} x")
    assert found.of("code_inline") == [text.line(f"a{one}")]
    assert found.words == "x x"


@pytest.mark.parametrize("one", ["`", "``", "`a", "a`", "a ``b` c", "\\`", "\\"])
def test_code_may_begin_and_end_with_what_ends_code(one):
    assert read(f"x {code(one)} x").of("code_inline") == [one]


@pytest.mark.slow
@_SEARCHED
@given(_MARKDOWN)
def test_a_block_of_code_ends_where_it_should(one):
    found = read(f"before\n\n{fenced(one, 'console')}\n\nafter")
    (block,) = [token for token in found.tokens if token.type == "fence"]
    assert (block.content, block.info) == (f"{text.visible(one)}\n", "console")
    assert found.words == "before after"


def test_a_mention_reaches_nobody():
    assert escaped("ask @someone") == "ask @\u200bsomeone"


@pytest.mark.parametrize("name", ["hook_resid_pre", "num_kv_heads", "a.b_c"])
def test_names_stay_as_they_are(name):
    assert escaped(name) == name
