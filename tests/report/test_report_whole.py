"""What every renderer says alike: how much of the adapter was looked at, and one mistake once."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from made_records import HOSTILE, outcome, specs

from verifier.analysis.summary import NOT_OFFERED
from verifier.analysis.view import view_record
from verifier.judging.outcome import Verdict
from verifier.output.console import QuietConsole
from verifier.report import github, html, junit, markdown, notebook, terminal

LITTLE = "CONFORMS in what it offers: 24 of 36 looked at; not offered: hooks, weights"
STOPPED = ("build.adapter", "qkv.rows", "forward.logits")


def no_weights(spec, check):
    """An adapter that offers neither weights nor hooks, and is right in the rest."""
    message = f"{NOT_OFFERED}hooks and no weights"
    return outcome(check, Verdict.SKIP, message=message) if check == "qkv.rows" else None


def wrong_signature(spec, check):
    """An adapter of which one method takes too few arguments."""
    if check not in STOPPED:
        return None
    return outcome(check, Verdict.ERROR, exception="TypeError", message="TypeError: hooked() takes 2 arguments")


def on_a_terminal(view):
    console = QuietConsole(file=io.StringIO(), width=140, markup=False, highlight=False, emoji=False)
    terminal.show(view.summary, console)
    terminal.show_verdict(view.summary, console)
    return console.file.getvalue()


RENDERERS = {
    "terminal": on_a_terminal,
    "page": lambda view: html.render([view]),
    "markdown": lambda view: markdown.render([view]),
    "junit": lambda view: junit.render([view]),
    "github": lambda view: "\n".join(github.commands([view], Path("/nowhere"))),
    "notebook": notebook.render,
}


@pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS.keys())
def test_a_verdict_over_little_says_so_everywhere(make, render):
    assert LITTLE in render(view_record(make(specs(), no_weights)))


def test_side_by_side_it_is_said_of_each(make):
    views = [view_record(make(specs(), no_weights)), view_record(make(specs()))]
    row = f"| verdict | {LITTLE} | CONFORMS: 36 of 36 looked at |"
    assert row in markdown.render(views)
    assert f"<td>{LITTLE}</td>" in html.render(views)


def test_an_adapter_that_offers_everything_gets_no_notice(make):
    assert github.commands([view_record(make(specs()))], Path("/nowhere")) == []


ONCE = {
    "terminal": (on_a_terminal, r"said +TypeError: hooked\(\)"),
    "page": (RENDERERS["page"], r'<article class="finding"'),
    "markdown": (RENDERERS["markdown"], r"- said: TypeError"),
    "github": (RENDERERS["github"], r"::error "),
    "notebook": (RENDERERS["notebook"], r"<li>"),
}


@pytest.mark.parametrize(("render", "told"), ONCE.values(), ids=ONCE.keys())
def test_one_mistake_is_told_once(make, render, told):
    shown = render(view_record(make(specs(), wrong_signature)))
    assert len(re.findall(told, shown)) == 1
    assert "in 2 other checks" in shown


def test_the_page_has_a_place_for_each_check_that_one_mistake_stopped(make):
    view = view_record(make(specs(), wrong_signature))
    page = html.render([view])
    for bug in view.summary.bugs:
        assert page.count(f'id="{bug.fingerprint}"') == 1
        assert bug.reproduce in page


def test_no_check_that_one_mistake_stopped_is_green_for_a_build_server(make):
    made = junit.render([view_record(make(specs(), wrong_signature))])
    assert made.count('<error type="error"') == len(STOPPED)


@pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS.keys())
def test_what_others_say_is_harmless(make, render):
    def hostile(spec, check):
        facts = {"exception": "TypeError", "site": "mine.py:hooked", "message": f"{HOSTILE} {check}"}
        return outcome(check, Verdict.ERROR, **facts) if check in STOPPED else None

    shown = render(view_record(make(specs(), hostile)))
    assert not set(shown) & set("\x1b\x07\u202e\ud800")
