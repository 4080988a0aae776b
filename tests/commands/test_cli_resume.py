"""A run that is taken up again, and records that stay whose they are."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys

import pytest
from equal_results import have_same_result
from test_cli_interrupt import NARROW, wait_for_the_long_cases
from user_adapters import FEW

from verifier import record

RUN = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--workers", 2)


def lines(place):
    return [json.loads(line) for line in (place / record.FILE).read_text().splitlines()]


def cases_run(place):
    """The cases whose line came after the run was taken up again."""
    kinds = [line["kind"] for line in lines(place)]
    return [line["case"] for line in lines(place)[kinds.index("resumed") :] if line["kind"] == "case"]


@pytest.mark.slow
def test_a_killed_run_loses_nothing_and_runs_only_what_is_missing(started, verifier, tmp_path, in_folder):
    slow, whole = tmp_path / "slow", tmp_path / "whole"
    process = started(*NARROW, "--adapter", "mine:SleepsFirst", "--out", slow)
    over = wait_for_the_long_cases(slow)
    process.kill()
    process.wait()
    before = record.read(slow)
    assert before.end is None
    assert before.done.keys() == over
    with (slow / record.FILE).open("ab") as file:
        file.write(b'{"kind": "outcome", "case": "torn')
    (in_folder / "slept").touch()
    ended = verifier(*RUN, "--adapter", "mine:SleepsFirst", "--out", slow, "--resume")
    assert ended.status == 0
    assert f"({len(over)} {'is' if len(over) == 1 else 'are'} there already)" in ended.err
    assert "taken up again" in ended.out
    assert set(cases_run(slow)) == set(record.read(slow).cases) - set(before.done)
    after = record.read(slow)
    assert after.end.exit == 0
    assert len(after.done) == 4
    assert verifier(*RUN, "--adapter", "mine:SleepsFirst", "--out", whole).status == 0
    assert have_same_result(slow / record.FILE, whole / record.FILE)
    (in_folder / "slept").unlink()


def test_what_is_complete_is_only_shown(verifier, tmp_path):
    arguments = (*RUN, "--adapter", "mine:Silent", "--out", tmp_path)
    assert verifier(*arguments).status == 0
    before = (tmp_path / record.FILE).read_bytes()
    ended = verifier(*arguments, "--resume")
    assert ended.status == 0
    assert "nothing is missing" in ended.err
    assert "CONFORMS" in ended.out
    assert (tmp_path / record.FILE).read_bytes() == before


@pytest.mark.slow
def test_a_record_of_the_adapter_before_it_was_edited_is_not_gone_on_with(verifier, in_folder, tmp_path):
    edited = in_folder / "edited.py"
    edited.write_text("from mine import Right as Mine\n")
    run = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "edited:Mine", "--out", tmp_path)
    assert verifier(*run).status == 0
    assert verifier(*run, "--resume").status == 0
    edited.write_text("from mine import Raises as Mine\n")
    ended = verifier(*run, "--resume")
    assert ended.status == 2
    assert "is the record of another run: its edited (sources) is " in ended.line
    assert verifier(*run).status == 1


@pytest.mark.slow
def test_a_shard_does_not_replace_another_one(verifier, tmp_path):
    run = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "mine:Right", "--out", tmp_path)
    assert verifier(*run, "--shard", "1/2").status == 0
    ended = verifier(*run, "--shard", "2/2")
    assert ended.status == 2
    assert "is the record of shard 1/2, and is not overwritten by shard 2/2" in ended.line
    assert verifier(*run, "--shard", "1/2").status == 0


def test_a_report_does_not_replace_a_record(verifier, tmp_path):
    run = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "mine:Right", "--out", tmp_path)
    assert verifier(*run).status == 0
    before = (tmp_path / record.FILE).read_bytes()
    ended = verifier("report", tmp_path, "--out", tmp_path / record.FILE)
    assert ended.status == 2
    assert "is a record, and is not overwritten by a report" in ended.line
    assert (tmp_path / record.FILE).read_bytes() == before


def test_without_a_record_everything_is_missing(verifier, tmp_path):
    assert verifier(*RUN, "--adapter", "mine:Right", "--out", tmp_path, "--resume").status == 0
    assert len(record.read(tmp_path).done) == 4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--adapter", "mine:Right", "--seed", 3), "its seed is 0, and this one's 3"),
        (("--adapter", "mine:Silent"), "its adapter is mine:Right, and this one's mine:Silent"),
        (("--adapter", "mine:Right", "--dtype", "float32"), "its dtype is ['float32', 'bfloat16', 'float16']"),
    ],
)
def test_another_runs_record_is_not_gone_on_with(verifier, tmp_path, more, said):
    assert verifier(*RUN, "--adapter", "mine:Right", "--out", tmp_path).status == 0
    before = (tmp_path / record.FILE).read_bytes()
    ended = verifier(*RUN, *more, "--out", tmp_path, "--resume")
    assert ended.status == 2
    assert said in ended.line
    assert (tmp_path / record.FILE).read_bytes() == before


def test_another_adapters_record_is_not_replaced(verifier, tmp_path):
    assert verifier(*RUN, "--adapter", "mine:Right", "--out", tmp_path).status == 0
    before = (tmp_path / record.FILE).read_bytes()
    ended = verifier(*RUN, "--adapter", "mine:Silent", "--out", tmp_path)
    assert ended.status == 2
    assert "is the record of another run, of falcon × mine:Right" in ended.line
    assert (tmp_path / record.FILE).read_bytes() == before


def test_the_same_adapters_record_is_kept_beside_the_new_one(verifier, tmp_path):
    arguments = (*RUN, "--adapter", "mine:Right", "--out", tmp_path)
    assert verifier(*arguments).status == 0
    before = (tmp_path / record.FILE).read_bytes()
    assert verifier(*arguments).status == 0
    assert (tmp_path / record.PREVIOUS).read_bytes() == before
    assert have_same_result(tmp_path / record.FILE, tmp_path / record.PREVIOUS)


def test_two_runs_do_not_share_a_folder(verifier, tmp_path):
    with record.lock_folder(tmp_path):
        ended = verifier(*RUN, "--adapter", "mine:Right", "--out", tmp_path)
    assert ended.status == 2
    assert f"another run (process {os.getpid()}) is writing into" in ended.line
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_run_held_is_free(tmp_path):
    holder = "import pathlib, sys, time\nfrom verifier import record\n" + (
        "with record.lock_folder(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE)
    with process.stdout:
        assert process.stdout.readline() == b"held\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with record.lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
        with (tmp_path / ".lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_keeps_what_was_written(folder, tmp_path):
    """A limit on the size of files stands for the end of the disk."""

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    place = tmp_path / "out"
    ended = subprocess.run(
        [sys.executable, "-m", "verifier", *map(str, RUN), "--adapter", "mine:Raises", "--out", str(place)],
        cwd=folder,
        # What Python would compile, and cut off at the limit, is others' too.
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=small,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "cannot write to" in ended.stderr.splitlines()[-1]
    kept = record.read(place)
    assert kept.end is None or kept.end.stop == "broken"  # the last line may be short enough to fit
    assert kept.cases
    assert not any("torn" in note for note in kept.notes)


def test_where_the_page_has_no_room_the_verdict_is_told_all_the_same(verifier, tmp_path):
    (tmp_path / "report.html").mkdir()
    ended = verifier(*RUN, "--adapter", "mine:Right", "--out", tmp_path)
    assert ended.status == 2
    assert "CONFORMS" in ended.out
    assert "cannot write the report" in ended.err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [record.FILE, "report.html"]


def test_a_run_that_was_killed_between_two_circumstances_loses_none_and_has_none_twice(verifier, tmp_path):
    run = ("run", "falcon", "--where", f"{FEW},dtype=float64,grad=no_grad", "--only", "forward.outputs")
    arguments = (*run, "--adapter", "mine:Right", "--workers", 1, "--out")
    assert verifier(*arguments, tmp_path / "whole").status == 0
    whole = lines(tmp_path / "whole")
    rows = [number for number, line in enumerate(whole) if line["kind"] == "row"]
    done = next(number for number, line in enumerate(whole) if line["kind"] == "done")
    killed_after = next(number for number in rows if number > done and number + 1 in rows)
    (tmp_path / "cut").mkdir()
    kept = (tmp_path / "whole" / record.FILE).read_text().splitlines(keepends=True)[: killed_after + 1]
    (tmp_path / "cut" / record.FILE).write_text("".join(kept))
    assert verifier(*arguments, tmp_path / "cut", "--resume").status == 0
    assert have_same_result(tmp_path / "cut" / record.FILE, tmp_path / "whole" / record.FILE)
    assert len(record.read(tmp_path / "cut").rows) == len(rows)


def test_a_record_of_schema_1_is_not_gone_on_with(verifier, tmp_path):
    arguments = (*RUN, "--adapter", "mine:Right", "--out", tmp_path)
    assert verifier(*arguments).status == 0
    path = tmp_path / record.FILE
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 1'))
    ended = verifier(*arguments, "--resume")
    assert ended.status == 2
    assert "is the record of another run: its schema is 1, and this one's 2" in ended.line
    assert verifier("report", tmp_path).status == 0
