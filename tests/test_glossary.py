"""The glossary explains each word once, and its tables are those of the code."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (Path(__file__).parent.parent / "docs" / "glossary.md").read_text().splitlines()
    if line.startswith("|") and not line.startswith("|---")
]


def test_no_word_is_explained_twice() -> None:
    words = Counter(row[0] for row in ROWS if row[0] != "word")
    assert [word for word, count in words.items() if count > 1] == []
    assert len(words) > 50


def test_it_has_every_verdict_and_says_which_gate() -> None:
    gates = {row[0].strip("`"): row[2] for row in ROWS if re.fullmatch("`[a-z]+`", row[0])}
    assert gates.keys() == set(Verdict)
    assert {word for word, gate in gates.items() if gate == "yes"} == {one for one in Verdict if one.gates}


def test_it_has_every_exit_status() -> None:
    assert {int(row[0]) for row in ROWS if row[0].isdecimal()} == set(ExitStatus)
