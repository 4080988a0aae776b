"""Records of the same thing as one: each case once, a failure counts, and what was cut off stays so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verifier import cli, record
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus, UsageError
from verifier.judging.outcome import Outcome, Verdict

CASES = [CaseSpec(family="toy", config={"alibi": alibi, "bias": bias}) for alibi in (0, 1) for bias in (0, 1)]
LINE = record.RunLine(
    family="toy",
    adapter="mine",
    adapter_name="mine",
    adapter_version="1",
    versions={"torch": "2"},
    seed=0,
    started="2024-01-01T00:00:00+00:00",
    flags={"alibi": [0, 1], "bias": [0, 1]},
    dims={},
    checks=[{"id": "a.b", "doc": "", "applies": "valid"}],
    planned={"valid": 2, "refused": 0},
    asked={},
    workers=1,
)


def _written(folder, cases, verdict=Verdict.PASS, *, stop="complete", **line):
    status = {"complete": ExitStatus.CONFORMS, "interrupted": ExitStatus.INTERRUPTED}.get(stop)
    with record.Writer(folder) as writer:
        writer.run(replace(LINE, **line))
        for spec in cases:
            writer.case(spec)
            writer.outcome(spec.id, Outcome(check="a.b", verdict=verdict, where="x"))
            writer.done(spec.id, 0.5)
        if stop is not None:
            ended = ExitStatus.DIFFERS if verdict.gates and status is ExitStatus.CONFORMS else status
            writer.end(status=ended, stop=stop, seconds=2.0)
    return record.read(folder)


def test_shards_are_one_record(tmp_path):
    one, two = _written(tmp_path / "1", CASES[:2]), _written(tmp_path / "2", CASES[2:], seed=1)
    found = record.merge_records([one, two])
    assert set(found.cases) == {spec.id for spec in CASES}
    assert len(found.entries) == len(found.done) == 4
    assert sum(found.run.planned.values()) == 4
    assert found.run.asked == {"merged": 2, "seeds": [0, 1]}
    assert found.end.exit == 0
    assert found.end.counts == {"pass": 4}
    assert str(tmp_path / "2") in found.notes[-1]


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_that_differ_in_a_case_the_failure_counts(tmp_path, turned):
    records = [_written(tmp_path / "1", CASES[:2]), _written(tmp_path / "2", CASES[1:3], Verdict.FAIL)]
    found = record.merge_records(records[::-1] if turned else records)
    verdicts = {entry.case: entry.outcome.verdict for entry in found.entries}
    assert [verdicts[spec.id] for spec in CASES[:3]] == [Verdict.PASS, Verdict.FAIL, Verdict.FAIL]
    assert found.end.exit == 1
    # What one of them had still to run is still to be run.
    assert sum(found.run.planned.values()) == 3


def test_what_a_shard_did_not_come_to_is_told(tmp_path):
    one, two = _written(tmp_path / "1", CASES[:2]), _written(tmp_path / "2", CASES[2:3], stop="interrupted")
    found = record.merge_records([one, two])
    assert found.end.exit == ExitStatus.INTERRUPTED
    assert found.end.stop == "interrupted"
    assert sum(found.run.planned.values()) == 4
    cut = record.merge_records([one, _written(tmp_path / "3", CASES[2:3], stop=None)])
    assert cut.end is None
    assert any("cut off" in note for note in cut.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"adapter_version": "2"}, "adapter version"),
        ({"versions": {"torch": "3"}}, "versions"),
        ({"dims": {"a": 1}}, "dims"),
    ],
)
def test_what_is_not_the_same_thing_is_not_merged(tmp_path, change, said):
    one, two = _written(tmp_path / "1", CASES[:2]), _written(tmp_path / "2", CASES[2:], **change)
    with pytest.raises(UsageError, match=f"their {said} differ"):
        record.merge_records([one, two])


def test_the_command_merges_what_is_to_be_merged(tmp_path, capsys):
    for number, cases in enumerate((CASES[:2], CASES[2:])):
        _written(tmp_path / str(number), cases)
    folders = [str(tmp_path / "0"), str(tmp_path / "1")]
    assert cli.main(["report", *folders, "--merge", "--out", str(tmp_path / "one.html")]) == 0
    page = (tmp_path / "one.html").read_text()
    assert "4 valid cases" in page
    assert "Side by side" not in page
    assert cli.main(["report", *folders, "--merge"]) == 2
    assert "--out" in capsys.readouterr().err
