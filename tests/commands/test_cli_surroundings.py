"""A machine that gives little, or takes something away in the middle: one line, the right status, and what is known."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from every_line import write_every_line
from test_cli_interrupt import NARROW, wait_for_the_long_cases
from user_adapters import FEW

from verifier import record
from verifier.errors import ExitStatus
from verifier.judging.outcome import Outcome, Verdict

LITTLE = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--workers", "1")
Start = Callable[..., subprocess.Popen[str]]


def limited(folder: Path, *arguments: str, environment: dict[str, str] | None = None, **limits: int) -> tuple[int, str]:
    """Run the command under limits of the system, and give its status and its one line."""

    def limit() -> None:
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    ended = subprocess.run(
        [sys.executable, "-m", "verifier", *arguments],
        cwd=folder,
        # Python would leave a module of which it could write a part alone.
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in ended.stderr.splitlines() if ": loading, then " not in line]
    assert len(lines) == 1, ended.stderr
    return ended.returncode, lines[0]


def test_few_files(tmp_path: Path) -> None:
    status, line = limited(tmp_path, *LITTLE, RLIMIT_NOFILE=20)
    assert status == ExitStatus.BROKEN
    assert line == "verifier: a process may have 20 files open here, and this run needs 72: raise it (`ulimit -n 72`)"


def test_no_memory_to_start(tmp_path: Path) -> None:
    status, line = limited(tmp_path, *LITTLE, RLIMIT_AS=600 * 2**20)
    assert status == ExitStatus.BROKEN
    assert "600 MiB of address space" in line


def test_a_folder_for_temporary_files_that_is_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    status, line = limited(tmp_path, *LITTLE, environment={"TMPDIR": str(deep)})
    assert status == ExitStatus.USAGE
    assert "TMPDIR has" in line
    assert list(deep.iterdir()) == []


def test_a_disk_that_is_full_at_the_report(tmp_path: Path) -> None:
    write_every_line(tmp_path)
    status, line = limited(tmp_path, "report", ".", "--out", "page.html", RLIMIT_FSIZE=8192)
    assert status == ExitStatus.BROKEN
    assert line == "verifier: cannot write the report 'page.html': File too large"
    assert sorted(path.name for path in tmp_path.iterdir()) == [record.FILE]


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_a_report_replaces_no_device(tmp_path: Path, device: str) -> None:
    write_every_line(tmp_path)
    status, line = limited(tmp_path, "report", ".", "--out", device)
    assert status == ExitStatus.USAGE
    assert line == f"verifier: cannot write the report '{device}': it is a pipe or a device; name a file"
    assert Path(device).is_char_device()


def test_a_debugger_in_another_process_is_a_contradiction(verifier: Callable[..., Any]) -> None:
    ended = verifier("run", "falcon", "--pdb", "--isolation")
    assert ended.status == ExitStatus.USAGE
    assert "--pdb and --isolation contradict each other" in ended.line


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_record_that_is_taken_away_is_missed_at_the_next_line(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "results"
    line = record.read_content(
        Path("x"), "".join(json.dumps(one) + "\n" for one in write_every_line(tmp_path)).encode()
    )
    with record.Writer(folder) as writer:
        writer.run(line.run)
        case = next(iter(line.cases.values()))
        writer.case(case)
        if how == "removed":
            shutil.rmtree(folder)
        elif how == "moved":
            folder.rename(tmp_path / "elsewhere")
        else:
            (folder / record.FILE).unlink()
            (folder / record.FILE).touch()
        with pytest.raises(record.RecordLost) as caught:
            writer.outcome(case.id, Outcome(check="qkv.rows", verdict=Verdict.PASS))
    word = "another file was put in its place" if how == "replaced" else "it was removed"
    assert str(caught.value) == f"cannot write to '{folder / record.FILE}': {word} while it was written"
    assert caught.value.status is ExitStatus.BROKEN
    assert list(record.read_content(caught.value.path, caught.value.content).cases) == [case.id]


@pytest.mark.slow
def test_what_is_known_is_printed_when_the_results_folder_is_removed(started: Start, tmp_path: Path) -> None:
    out = tmp_path / "results"
    process = started(*NARROW, "--adapter", "mine:Sleeps", "--timeout", "8s", "--out", out)
    over = wait_for_the_long_cases(out)
    shutil.rmtree(out)
    said, error = process.communicate(timeout=60)
    assert process.returncode == ExitStatus.BROKEN
    assert f"{len(over)} ok" in said
    assert error.splitlines()[-1].endswith("it was removed while it was written")
    assert "Traceback" not in error


@pytest.mark.slow
def test_what_a_campaign_knows_is_printed_when_its_folder_is_removed(started: Start, tmp_path: Path) -> None:
    out = tmp_path / "campaign"
    process = started(
        *("fuzz", "falcon", "--adapter", "mine:Right", "--only", "build.adapter", "--time", "60s", "--workers", "1"),
        *("--out", out),
    )
    deadline = time.monotonic() + 60
    while not (out / record.FILE).exists() or '"kind": "done"' not in (out / record.FILE).read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    shutil.rmtree(out)
    said, error = process.communicate(timeout=60)
    assert process.returncode == ExitStatus.BROKEN
    assert " ok" in said
    assert error.splitlines()[-1].endswith("it was removed while it was written")
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "processes"), [((), 2), (("--no-isolation", "--workers", "1"), 1)], ids=["workers", "here"]
)
def test_the_report_is_written_when_the_terminal_closes(
    folder: Path, tmp_path: Path, options: tuple[str, ...], processes: int
) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        words = [str(word) for word in (*NARROW, "--adapter", "mine:Sleeps", "--out", tmp_path, *options)]
        os.execv(sys.executable, [sys.executable, "-m", "verifier", *words])
    try:
        over = wait_for_the_long_cases(tmp_path, processes)
    finally:
        os.close(terminal)
    deadline = time.monotonic() + 20
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.05)
    assert ended == process
    assert os.waitstatus_to_exitcode(status) == ExitStatus.INTERRUPTED
    found = record.read(tmp_path)
    assert found.end is not None
    assert found.end.stop == "interrupted"
    assert over == found.done.keys()
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_the_next_run_sweeps_what_a_killed_one_left(
    started: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path("/tmp") / f"sweep-{os.getpid()}"  # the test's own folder is too deep for a socket
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    try:
        process = started(*NARROW, "--adapter", "mine:Sleeps", "--out", tmp_path / "one")
        wait_for_the_long_cases(tmp_path / "one")
        process.kill()
        process.wait()
        assert list(place.glob("verifier-*"))
        process = started(*LITTLE, "--adapter", "mine:Right", "--out", tmp_path / "two")
        process.communicate(timeout=120)
        assert process.returncode == 0
        assert [path for path in place.iterdir() if path.name.startswith(("verifier-", "pymp-"))] == []
    finally:
        shutil.rmtree(place)
