"""Facts that are printed on a console."""

from __future__ import annotations

import io

from verifier.output.console import show_facts, stream_console


def test_only_the_facts_that_are_there_are_printed():
    stream = io.StringIO()
    show_facts({"rule": "alibi", "where": None, "said": "one\nline"}, stream_console(stream), indent=0)
    assert stream.getvalue() == "rule  alibi\nsaid  one line\n"


def test_without_a_fact_nothing_is_printed():
    stream = io.StringIO()
    show_facts({"rule": None}, stream_console(stream))
    assert stream.getvalue() == ""
