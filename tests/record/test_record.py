"""The record: what is written is read again, and what is broken is said in one line."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
from dataclasses import replace

import pytest
from equal_results import have_same_result

from verifier import record
from verifier.analysis.summary import summarize
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus, UsageError, VerifierError
from verifier.judging.outcome import Outcome, Verdict

RUN = record.RunLine(
    family="toy",
    adapter="mine:Adapter",
    adapter_name="mine",
    adapter_version="1",
    versions={"python": "3.11"},
    seed=0,
    started="2024-01-01T00:00:00+00:00",
    flags={"bias": [False, True]},
    dims={"hidden_size": 8},
    checks=[{"id": "build.adapter", "doc": "It builds."}],
    planned={"valid": 1, "refused": 0},
    asked={},
    workers=2,
)
SPEC = CaseSpec(family="toy", config={"bias": True, "hidden_size": 8})


def _write(folder, *outcomes, run=RUN):
    with record.Writer(folder) as writer:
        writer.run(run)
        writer.case(SPEC)
        for outcome in outcomes:
            writer.outcome(SPEC.id, outcome)
        writer.end(status=ExitStatus.CONFORMS, stop="complete", seconds=1.5)
    return folder / record.FILE


def test_what_is_written_is_read(tmp_path):
    outcome = Outcome(
        check="build.adapter",
        verdict=Verdict.ERROR,
        measured=0.5,
        bound=1e-14,
        where="blocks.0.attn.hook_q",
        message="no <b>\x1b[31m\ud800",
        exception="RuntimeError",
        site="mine.py:wrap",
        detail="line\nline",
        seconds=0.25,
    )
    found = record.read(_write(tmp_path, outcome))
    assert found.run == RUN
    assert found.cases == {SPEC.id: SPEC}
    assert found.entries == (record.RecordedOutcome(case=SPEC.id, outcome=outcome, fingerprint=outcome.fingerprint),)
    assert found.end == record.EndLine(counts={"error": 1}, exit=0, stop="complete", seconds=1.5)
    assert found.notes == ()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_not_finite_survive_strict_json(tmp_path, value):
    path = _write(tmp_path, Outcome(check="a.b", verdict=Verdict.FAIL, measured=value, bound=1.0))

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    measured = record.read(path).entries[0].outcome.measured
    assert measured == value or (math.isnan(value) and math.isnan(measured))


def test_a_later_outcome_replaces_the_earlier_one(tmp_path):
    path = _write(
        tmp_path, Outcome(check="a.b", verdict=Verdict.PASS), Outcome(check="a.b", verdict=Verdict.CRASH, exception="X")
    )
    found = record.read(path)
    assert [entry.outcome.verdict for entry in found.entries] == [Verdict.CRASH]
    assert found.end.counts == {"crash": 1}


def test_a_case_that_turns_out_to_be_refused_is_read_so(tmp_path):
    with record.Writer(tmp_path) as writer:
        writer.run(RUN)
        writer.case(SPEC)
        assert writer.valid == {SPEC.id}
        writer.refused(SPEC.id, "HF says no")
        assert writer.valid == set()
    assert record.read(tmp_path / record.FILE).cases == {SPEC.id: replace(SPEC, valid=False, reason="HF says no")}


def test_a_torn_last_line_is_skipped_and_said(tmp_path):
    path = _write(tmp_path, Outcome(check="a.b", verdict=Verdict.PASS), Outcome(check="a.c", verdict=Verdict.PASS))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:-30])
    found = record.read(path)
    assert [entry.outcome.check for entry in found.entries] == ["a.b"]
    assert found.end is None
    assert "line 4, the last one, is torn and was skipped" in found.notes


def test_lines_of_a_kind_to_come_are_left_aside_and_said(tmp_path):
    path = _write(tmp_path)
    with path.open("a") as file:
        file.write('{"kind": "trace"}\n')
    assert record.read(path).notes == (
        "1 line(s) of the kind 'trace', which this version does not know, were left aside",
    )


def _with_line(path, number, text):
    lines = path.read_text().splitlines(keepends=True)
    lines[number - 1] = text
    path.write_text("".join(lines))


@pytest.mark.parametrize(
    ("number", "text", "said"),
    [
        (1, "a text\n", "line 1: not JSON"),
        (1, "[1]\n", "line 1: not an object"),
        (1, '{"kind": "case"}\n', "is no verifier record: its first line is not a `run` line"),
        (1, '{"kind": "run", "schema": 3}\n', "schema 3; this version of verifier reads schemas 1 and 2"),
        (1, '{"kind": "run", "schema": 1}\n', "line 1: the run has no `family`"),
        (2, '{"kind": "case", "case": "abc"}\n', "line 2: a case has no `family`"),
        (
            3,
            '{"kind": "outcome", "case": "nope"}\n',
            "line 3: the 'outcome' line is of case 'nope', which has no line before it",
        ),
        (3, f'{{"kind": "outcome", "case": "{SPEC.id}"}}\n', "line 3: an outcome has no `check`"),
        (
            3,
            f'{{"kind": "outcome", "case": "{SPEC.id}", "check": "a.b", "verdict": "fine"}}\n',
            "line 3: an outcome's `verdict` cannot be 'fine'",
        ),
        (
            3,
            f'{{"kind": "outcome", "case": "{SPEC.id}", "check": "a.b", "verdict": "pass", "measured": "much"}}\n',
            "line 3: an outcome's `measured` must be a number or null, not 'much'",
        ),
        (3, '{"kind": "outc\n', "line 3: not JSON"),
        (
            4,
            '{"kind": "end", "counts": {}, "exit": "0", "stop": "complete"}\n',
            "line 4: the last line's `exit` must be a whole number, not '0'",
        ),
    ],
)
def test_a_broken_record_is_told_with_its_line(tmp_path, number, text, said):
    path = _write(tmp_path, Outcome(check="a.b", verdict=Verdict.PASS))
    _with_line(path, number, text)
    with pytest.raises(UsageError) as raised:
        record.read(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("content", "said"), [(b"", "it is empty"), (b"\xff\xfe\n", "not UTF-8")])
def test_what_is_no_record_is_said_to_be_none(tmp_path, content, said):
    path = tmp_path / record.FILE
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        record.read(path)


def test_an_old_record_stays_until_the_new_one_begins(tmp_path):
    old = _write(tmp_path).read_bytes()
    with record.Writer(tmp_path):
        assert (tmp_path / record.FILE).read_bytes() == old
    assert (tmp_path / record.FILE).read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == [record.FILE]
    with record.Writer(tmp_path) as writer:
        writer.run(RUN)
        assert len((tmp_path / record.FILE).read_bytes().splitlines()) == 1


def test_each_line_is_whole_in_the_file_as_soon_as_it_is_written(tmp_path):
    with record.Writer(tmp_path) as writer:
        writer.run(RUN)
        writer.case(SPEC)
        writer.outcome(SPEC.id, Outcome(check="a.b", verdict=Verdict.PASS))
        assert (tmp_path / record.FILE).read_bytes().count(b"\n") == 3


def test_a_full_disk_is_an_error_that_tears_no_line(tmp_path):
    # A limit on the size of files stands for the disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with record.Writer(tmp_path) as writer:
            writer.run(RUN)
            size = os.path.getsize(writer.path)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
            with pytest.raises(VerifierError, match="disk is full"):
                writer.case(SPEC)
            assert os.path.getsize(writer.path) == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_records_are_the_same_but_for_times_order_and_workers(tmp_path):
    first = _write(
        tmp_path / "a",
        Outcome(check="a.b", verdict=Verdict.PASS, seconds=1.0),
        Outcome(check="a.c", verdict=Verdict.PASS),
    )
    second = _write(
        tmp_path / "b",
        Outcome(check="a.c", verdict=Verdict.PASS),
        Outcome(check="a.b", verdict=Verdict.PASS, seconds=2.0),
        run=record.RunLine(**{name: getattr(RUN, name) for name in RUN.__slots__} | {"started": "later", "workers": 7}),
    )
    third = _write(
        tmp_path / "c", Outcome(check="a.b", verdict=Verdict.PASS), Outcome(check="a.c", verdict=Verdict.REDUCED)
    )
    assert have_same_result(first, second)
    assert not have_same_result(first, third)


def test_what_a_killed_run_left_before_its_first_line_is_written_over(tmp_path):
    (tmp_path / f".{record.FILE}.new").write_text("half a li")
    path = _write(tmp_path, Outcome(check="build.adapter", verdict=Verdict.PASS))
    assert record.read(path).end is not None
    assert [one.name for one in tmp_path.iterdir()] == [record.FILE]


def test_a_record_whose_lines_were_removed_never_conforms(tmp_path):
    with record.Writer(tmp_path) as writer:
        writer.run(RUN)
        writer.case(SPEC)
        for check, verdict in (("a.b", Verdict.PASS), ("c.d", Verdict.FAIL)):
            writer.outcome(SPEC.id, Outcome(check=check, verdict=verdict, where="x"))
        writer.done(SPEC.id, 0.5)
        writer.end(status=ExitStatus.DIFFERS, stop="complete", seconds=1.0)
    assert not record.read(tmp_path).contradicts_itself
    path = tmp_path / record.FILE
    path.write_text(
        "".join(line for line in path.read_text().splitlines(True) if '"fail"' not in line or '"end"' in line)
    )
    found = summarize(record.read(tmp_path))
    assert found.status is ExitStatus.INCONCLUSIVE
    assert "lines are missing, or were changed" in found.notes[-1]
