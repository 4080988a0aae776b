"""A record's lines of circumstances: read as written, each once, and kept when records are resumed or merged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import rows_fail, specs
from msgspec import structs

from verifier import record
from verifier.analysis.changes import ChangeKind
from verifier.analysis.diff import compare_records
from verifier.judging.outcome import Verdict
from verifier.judging.row_summary import RowSummary, WorstFinding

GOOD, BAD = specs()[0], specs()[-1]
PLAIN = RowSummary(case=GOOD.id, seconds=0.25, passed=("forward.outputs", "hooks.shown"))
LEFT = RowSummary(
    case=GOOD.id,
    circumstance={"dtype": "bfloat16", "mask": "left"},
    seconds=0.5,
    passed=("forward.outputs",),
    observables={
        "hooks.shown": WorstFinding(ratio=0.25, where="blocks.0.attn.hook_q"),
        "hooks.graph": WorstFinding(verdict=Verdict.FAIL, ratio=math.inf, where="logits"),
    },
)
CACHED = RowSummary(case=GOOD.id, circumstance={"past": "token"}, seconds=0.0, not_offered="it has no cache")
FAILING = structs.replace(PLAIN, observables={"hooks.left": WorstFinding(verdict=Verdict.ERROR)})


@pytest.fixture
def with_rows(make, tmp_path):
    """Writes a record of one case with these rows, and with `done` if it is finished; reads it."""

    def write(name: str, *rows: RowSummary, is_done: bool = True) -> record.Record:
        with record.Writer(tmp_path / name) as writer:
            writer.run(make([GOOD]).run)
            writer.case(GOOD)
            for row in rows:
                writer.row(row)
            if is_done:
                writer.done(GOOD.id, 1.0)
        return record.read(tmp_path / name)

    return write


def test_rows_are_read_as_they_are_written(with_rows):
    assert with_rows("one", PLAIN, LEFT, CACHED).rows == (PLAIN, LEFT, CACHED)


def test_what_says_nothing_is_not_written(with_rows):
    lines = with_rows("one", PLAIN, LEFT).path.read_text().splitlines()[2:4]
    plain, left = map(json.loads, lines)
    assert plain.keys() == {"kind", "case", "seconds", "passed"}
    assert left["observables"]["hooks.shown"] == {"ratio": 0.25, "where": "blocks.0.attn.hook_q"}


def test_a_later_row_of_the_same_circumstance_replaces_the_earlier_one(with_rows):
    turned = structs.replace(LEFT, circumstance=dict(reversed(LEFT.circumstance.items())), passed=())
    assert with_rows("one", LEFT, PLAIN, turned).rows == (PLAIN, turned)


@pytest.mark.parametrize(("is_done", "kept"), [(True, (PLAIN, LEFT)), (False, (LEFT,))])
def test_a_resumed_run_keeps_the_rows_of_finished_cases_alone(with_rows, is_done, kept):
    earlier = with_rows("one", PLAIN, is_done=is_done)
    with record.Writer(earlier.path.parent, onto=earlier) as writer:
        writer.resumed(started="2024-01-01T00:00:00+00:00", workers=1)
        writer.case(GOOD)
        writer.row(LEFT)
    assert record.read(earlier.path).rows == kept


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_records_the_row_that_fails_counts(with_rows, turned):
    records = [with_rows("one", PLAIN, LEFT), with_rows("two", FAILING, CACHED)]
    rows = record.merge_records(records[::-1] if turned else records).rows
    assert {row.key: row for row in rows} == {row.key: row for row in (FAILING, LEFT, CACHED)}
    assert len(rows) == 3


def test_a_record_of_schema_1_has_no_rows_and_is_held_against_today_s(make, tmp_path):
    cases = [GOOD, BAD]
    new = replace(make(cases, rows_fail), path=Path("new.jsonl"))
    old = tmp_path / "old.jsonl"
    old.write_text((tmp_path / record.FILE).read_text().replace('"schema": 2', '"schema": 1'))
    before = record.read(old)
    assert (before.schema, before.rows, new.schema) == (1, (), 2)
    found = compare_records(before, new)
    assert found.differences == {}
    assert {kind: number for kind, number in found.counts.items() if number} == {
        ChangeKind.UNCHANGED: 1,
        ChangeKind.AGREES: len(before.entries) - 1,
    }
