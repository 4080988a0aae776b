"""`verifier repro` and `verifier report`: a record's failures again, and its page again."""

from __future__ import annotations

import io
import os

import pytest
from user_adapters import FEW

from verifier import record
from verifier.commands.repro import ReproTarget, _conclude
from verifier.errors import ExitStatus
from verifier.judging.outcome import Outcome, Verdict


@pytest.fixture(scope="module")
def failing(folder, tmp_path_factory):
    """The record of a run in which every case with a bias crashes."""
    from verifier import cli

    place = tmp_path_factory.mktemp("failing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["run", "falcon", "--adapter", "mine:Quits", "--where", FEW, "--only", "build.adapter"]
        assert cli.main([*arguments, "--out", str(place)]) == 1
    return place


def _entry(place, verdict):
    return next(entry for entry in record.read(place).entries if entry.outcome.verdict is verdict)


def test_a_fingerprint_is_run_again_on_its_smallest_case(verifier, failing):
    ended = verifier("repro", _entry(failing, Verdict.CRASH).fingerprint, failing)
    assert ended.status == 1
    assert "config   alibi=true num_ln_in_parallel_attn=1 bias=true" in ended.out
    assert "goodbye, cruel config" in ended.out
    assert "the process ended with exit status 7; the case is run once more" in ended.out
    assert ended.out.splitlines()[-1] == "it still fails"


def test_a_case_that_passed_and_fails_now_is_told_so(verifier, folder, tmp_path):
    arguments = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "mine:Right")
    assert verifier(*arguments, "--out", tmp_path).status == 0
    case = next(iter(record.read(tmp_path).done))
    ended = verifier("repro", case, tmp_path, "--adapter", "mine:Raises")
    assert (ended.status, ended.out.splitlines()[-1]) == (1, "it fails, as it did not in the record")


@pytest.mark.slow
def test_a_hang_is_run_again_under_its_records_limit(verifier, tmp_path):
    arguments = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "mine:Sleeps")
    assert verifier(*arguments, "--timeout", "1s", "--out", tmp_path).status == 1
    ended = verifier("repro", _entry(tmp_path, Verdict.TIMEOUT).fingerprint, tmp_path)
    assert ended.status == 1
    assert "TIMEOUT" in ended.out
    assert "in wrap" in ended.out
    assert ended.out.splitlines()[-1] == "it still fails"


def test_a_failure_is_debugged_in_this_process(verifier, tmp_path, monkeypatch):
    arguments = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "mine:Raises")
    assert verifier(*arguments, "--out", tmp_path).status == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("p model.config.model_type\nc\n"))
    ended = verifier("repro", _entry(tmp_path, Verdict.ERROR).fingerprint, tmp_path, "--pdb")
    assert ended.status == 1
    assert "(Pdb) 'falcon'" in ended.out
    assert ended.out.splitlines()[-1].endswith("it still fails")


def test_a_case_that_was_mended_passes(verifier, failing):
    ended = verifier("repro", _entry(failing, Verdict.CRASH).case, failing, "--adapter", "mine:Right")
    assert ended.status == 0
    assert ended.out.splitlines()[-1] == "it does not fail here"


def test_without_a_record_the_newest_one_that_knows_the_id_is_taken(verifier, failing, in_folder):
    places = [in_folder / "reports" / name for name in ("older", "newer")]
    for time, target in enumerate(places):
        target.mkdir(parents=True)
        (target / record.FILE).write_bytes((failing / record.FILE).read_bytes())
        os.utime(target / record.FILE, (time, time))
    broken = in_folder / "reports" / "broken"
    broken.mkdir()
    (broken / record.FILE).write_text("nonsense\n")
    try:
        ended = verifier("repro", _entry(failing, Verdict.PASS).case)
        unknown = verifier("repro", "x" + _entry(failing, Verdict.CRASH).fingerprint[1:])
    finally:
        for path in (*places, broken):
            (path / record.FILE).unlink()
            path.rmdir()
        (in_folder / "reports").rmdir()
    assert ended.status == 0
    assert "record   reports/newer, the newest of 2 that know this id\n" in ended.out
    assert "left aside" in ended.err
    assert unknown.status == 2
    assert _entry(failing, Verdict.CRASH).fingerprint in unknown.err


def test_what_is_upstream_is_not_held_against_the_adapter(failing):
    found = record.read(failing)
    target = ReproTarget(record=found, spec=next(iter(found.cases.values())), outcomes=(), checks=(), fingerprint=None)
    outcomes = [Outcome(check="reference.attention", verdict=verdict) for verdict in (Verdict.UPSTREAM, Verdict.SKIP)]
    status, sentence = _conclude(target, outcomes)
    assert status is ExitStatus.CONFORMS
    assert sentence == "Hugging Face still disagrees with itself; the adapter is not to blame"


def test_the_page_is_the_same_for_the_same_record(verifier, failing, tmp_path):
    pages = []
    for name in ("one.html", "two.html"):
        assert verifier("report", failing, "--out", tmp_path / name).status == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1] == (failing / "report.html").read_bytes()


def test_several_records_share_a_page(verifier, failing, tmp_path):
    ended = verifier("report", failing, failing / record.FILE, "--out", tmp_path / "both.html")
    assert ended.status == 0
    assert (tmp_path / "both.html").read_text().count("<strong>✗ DOES NOT CONFORM</strong>") == 2
    assert verifier("report", failing, failing).line.endswith("--out FILE")


def test_a_broken_record_is_told_with_its_line(verifier, failing, tmp_path):
    lines = (failing / record.FILE).read_text().splitlines(keepends=True)
    lines[2] = lines[2][:-20] + "\n"
    (tmp_path / record.FILE).write_text("".join(lines))
    ended = verifier("report", tmp_path)
    assert ended.status == 2
    assert "line 3: not JSON" in ended.line
