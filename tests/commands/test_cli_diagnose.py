"""A run looks closer at what failed: on the smallest case of each failure, kept in the record, shown on the page."""

from __future__ import annotations

import json

import pytest
from user_adapters import FEW

from verifier import record
from verifier.analysis.bugs import find_bugs
from verifier.engine import diagnose

RUN = ("run", "falcon", "--where", FEW, "--workers", 2)


def _evidence(place):
    return [json.loads(line) for line in (place / record.FILE).read_text().splitlines() if '"evidence"' in line[:30]]


def test_each_failure_has_evidence_of_its_smallest_case(verifier, tmp_path):
    ended = verifier(*RUN, "--only", "forward.*", "--adapter", "mine:Silent", "--out", tmp_path)
    assert ended.status == 1
    assert "looking closer at" in ended.err
    kept = record.read(tmp_path)
    found = find_bugs(kept, upstream=False)
    assert found
    assert all(one.evidence is not None and one.evidence.case == one.smallest.id for one in found)
    assert all(one.ladder is not None and one.ladder.starts.where == "logits" for one in found)
    assert diagnose.checks_to_diagnose(kept) == {}
    assert 'class="map"' in (tmp_path / "report.html").read_text()


def test_a_right_adapter_is_not_looked_at(verifier, tmp_path):
    ended = verifier(*RUN, "--only", "build.adapter", "--adapter", "mine:Right", "--out", tmp_path)
    assert "looking closer" not in ended.err
    assert _evidence(tmp_path) == []


def test_what_died_is_not_run_into_its_death_again(verifier, tmp_path):
    ended = verifier(*RUN, "--only", "build.adapter", "--adapter", "mine:Quits", "--out", tmp_path)
    assert ended.status == 1
    assert "looking closer" not in ended.err


def test_looks_work_without_isolation(verifier, tmp_path):
    ended = verifier(
        *RUN[:4], "--only", "forward.logits", "--adapter", "mine:Silent", "--no-isolation", "--out", tmp_path
    )
    assert ended.status == 1
    assert len(_evidence(tmp_path)) == 1


@pytest.mark.slow
def test_a_run_that_is_taken_up_again_looks_at_what_was_not_looked_at(verifier, tmp_path):
    arguments = (*RUN, "--only", "forward.logits", "--adapter", "mine:Silent", "--out", tmp_path)
    assert verifier(*arguments).status == 1
    file = tmp_path / record.FILE
    lines = file.read_text().splitlines(keepends=True)
    cut = next(place for place, line in enumerate(lines) if line.startswith('{"kind": "evidence"'))
    file.write_text("".join(lines[:cut]))
    assert _evidence(tmp_path) == []
    assert verifier(*arguments, "--resume").status == 1
    assert len(_evidence(tmp_path)) == 1
    assert record.read(tmp_path).end.exit == 1


@pytest.mark.slow
def test_evidence_that_is_broken_is_one_line(verifier, tmp_path):
    verifier(*RUN, "--only", "forward.logits", "--adapter", "mine:Silent", "--out", tmp_path)
    file = tmp_path / record.FILE
    text = file.read_text()
    file.write_text(text.replace('"more": 0', '"more": "none"', 1))
    ended = verifier("report", tmp_path)
    assert ended.status == 2
    assert "line 14: the evidence's `more` must be a whole number, not 'none'" in ended.line
