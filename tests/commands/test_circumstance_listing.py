"""`verifier list circumstances` prints every axis, value, constraint and class, and how many rows and meetings."""

from __future__ import annotations

import re
import sys

import pytest

from verifier.cases.circumstances import AXES, CLASSES, CONSTRAINTS, read_rows, wanted_meetings
from verifier.commands.circumstance_listing import write_circumstances

WHOLE = list(write_circumstances(0))

BEGINNING = """\
16 axes, the plainest value of each first; `--where dtype=bfloat16` asks for one

dtype
    float64   everything in float64
    float32   everything in float32
    bfloat16  everything in bfloat16
    float16   everything in float16
    mixed     a bfloat16 model whose norms are float32

mode
    eval     evaluation mode
    train    training mode, with dropouts of 0
    dropout  training mode with dropout, from the same random state
"""
CONSTRAINT = f"""\
{len(CONSTRAINTS)} constraints: values that do not go together, and why

past is generation, and tokens is embeddings
    Adapters are not given embeddings for a generation.
"""
CLASS_AT_80 = """\
loss gradients: gradients of the loss
    where labels is given or some, and grad is grad or autocast
"""
CONSTRAINT_AT_80 = """\
length is one, and mask is left, right, gaps, mixed, boolean or rewritten, and
past is none, asked or generation
    No token would be left.
"""
VALUE_AT_80 = """\
    other      the adapter is given another attention implementation that the
               family names
"""


def test_it_looks_like_this() -> None:
    text = "\n".join(WHOLE)
    assert text.startswith(BEGINNING)
    assert CONSTRAINT in text
    folded = "\n".join(write_circumstances(80))
    for part in (BEGINNING, CONSTRAINT, CLASS_AT_80, CONSTRAINT_AT_80, VALUE_AT_80):
        assert part in folded


def test_nothing_is_left_out() -> None:
    lines = [line.split() for line in WHOLE]
    for axis, values in AXES.items():
        place = lines.index([axis])
        listed = lines[place + 1 : place + 1 + len(values)]
        assert listed == [[value, *meaning.split()] for value, meaning in values.items()]
    assert [line for line in WHOLE if line.strip() in {one.reason for one in CONSTRAINTS}] == [
        f"    {one.reason}" for one in CONSTRAINTS
    ]
    heads = [f"{kind.name}: {kind.observables}" for kind in CLASSES]
    assert [line for line in WHOLE if line in heads] == heads


def test_lines_are_folded_for_a_terminal_alone() -> None:
    folded = list(write_circumstances(80))
    assert max(map(len, folded)) <= 80 < max(map(len, WHOLE))
    assert " ".join(folded).split() == " ".join(WHOLE).split()


def test_the_command_folds_at_the_width_of_the_terminal(verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verifier("list", "circumstances").out.splitlines() == WHOLE
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert verifier("list", "circumstances").out.splitlines() == list(write_circumstances(80))


def test_a_family_has_no_circumstances_of_its_own(verifier) -> None:
    ended = verifier("list", "circumstances", "falcon")
    assert (ended.status, ended.line) == (2, "verifier: `list circumstances` takes no family; hooks and presets do")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_array() -> None:
    every = frozenset().union(*map(wanted_meetings, CLASSES))
    for kind in CLASSES:
        head = WHOLE.index(f"{kind.name}: {kind.observables}")
        counted = next(line for line in WHOLE[head:] if re.match(r" +[\d,]+ rows, ", line))
        assert f" {sum(len(one) == 2 for one in wanted_meetings(kind)):,} pairs of values" in counted
        assert (" triples" in counted) == bool(kind.triples)
    pairs, triples = (sum(len(one) == size for one in every) for size in (2, 3))
    assert WHOLE[-1].startswith(f"In all {len(read_rows())} rows, {pairs:,} pairs of values, {triples} triples (of ")
