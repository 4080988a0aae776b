"""Facts that are printed on a console."""

from __future__ import annotations

import io

from verifier.output.console import into, show_facts


def test_only_the_facts_that_are_there_are_printed():
    stream = io.StringIO()
    show_facts({"rule": "alibi", "where": None, "said": "one\nline"}, into(stream), indent=0)
    assert stream.getvalue() == "rule  alibi\nsaid  one line\n"


def test_without_a_fact_nothing_is_printed():
    stream = io.StringIO()
    show_facts({"rule": None}, into(stream))
    assert stream.getvalue() == ""
