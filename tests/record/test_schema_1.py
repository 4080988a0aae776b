"""Records that older versions wrote are still read, and today's schema has the same lines."""

from __future__ import annotations

import json
import math
import re
from datetime import date
from pathlib import Path
from typing import Any

from verifier import record
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict
from verifier.record.known_failure import EntryState

# Written by the version before records were read into typed classes; it has a line of every kind.
OLD = Path(__file__).with_name("schema_1.jsonl")
FAILURE = "qc8eamvf"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_old_record_is_read() -> None:
    found = record.read(OLD)
    good, bad = found.cases.values()
    assert [(entry.case, entry.outcome.verdict, entry.fingerprint) for entry in found.entries] == [
        (good.id, Verdict.PASS, None),
        (bad.id, Verdict.FAIL, FAILURE),
    ]
    assert found.entries[1].outcome.fingerprint == FAILURE
    assert found.run.limits == {"timeout": 60.0, "memory": 2**31}
    assert found.done == {good.id: 0.5, bad.id: 0.5}
    assert [one.verdict for one in found.lost] == [Verdict.CRASH, Verdict.CRASH]
    assert found.resumed == 1
    assert found.held is not None
    assert [(one.state, one.failure.spec, one.message) for one in found.held.settled] == [(EntryState.KNOWN, bad, None)]
    assert [rung.where for rung in found.evidence[FAILURE, bad.id].places] == ["blocks.0.attn.hook_q"]
    assert found.ladders[bad.id].forward[0].measured == math.inf
    assert found.found[FAILURE].neighbours[0].verdict is Verdict.PASS
    assert found.end is not None
    assert found.end.exit is ExitStatus.DIFFERS
    assert (found.schema, found.rows) == (1, ())
    assert found.notes == ()
    assert not found.contradicts_itself


def test_the_same_lines_are_written(tmp_path: Path) -> None:
    found = record.read(OLD)
    outcomes = {entry.case: entry.outcome for entry in found.entries}
    with record.Writer(tmp_path) as writer:
        writer.run(found.run)
        assert found.held is not None
        writer.held(found.held)
        for case, lost in zip(found.cases.values(), found.lost, strict=True):
            writer.case(case)
            writer.lost(lost)
            writer.outcome(case.id, outcomes[case.id])
            writer.done(case.id, found.done[case.id])
        writer.resumed(started=found.run.started, workers=found.run.workers)
        for evidence in (*found.evidence.values(), *found.ladders.values()):
            writer.evidence(evidence)
        for one in found.found.values():
            writer.found(one)
        assert found.end is not None
        writer.end(status=found.end.exit, stop=found.end.stop, seconds=found.end.seconds)
    # Depths have other words than they had; whatever else an old record says is written as it was.
    words = {"valid": "all", "spread": "pairwise", "thorough": "sampled"}
    old = OLD.read_text()
    for word, today in words.items():
        old = re.sub(rf'("depth": ?)"{word}"', rf'\1"{today}"', old)
    assert old != OLD.read_text()
    (tmp_path / "old.jsonl").write_text(old.replace('"schema": 1', '"schema": 2'))
    assert lines(writer.path) == lines(tmp_path / "old.jsonl")


def test_a_day_on_which_an_entry_expires_is_read(tmp_path: Path) -> None:
    path = tmp_path / record.FILE
    path.write_text(OLD.read_text().replace('"expires": null', '"expires": "2027-01-31"'))
    found = record.read(path).held
    assert found is not None
    assert found.settled[0].failure.expires == date(2027, 1, 31)
