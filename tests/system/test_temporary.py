"""Temporary folders go with their process, and what a killed one leaves behind goes with the next run."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from verifier.system.temporary import sweep, temporary_folder

DEAD = 2**22 + 1  # one more than Linux ever gives


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_there_in_its_block_alone(place: Path) -> None:
    with temporary_folder() as folder:
        (folder / "file").touch()
        assert folder.parent == place
        sweep()
        assert (folder / "file").exists()
    assert not folder.exists()


def test_a_dead_process_s_folder_is_swept(place: Path) -> None:
    folder = place / f"verifier-{DEAD}-abcdefgh"
    (folder / "inner").mkdir(parents=True)
    sweep()
    assert not folder.exists()


def test_what_a_killed_process_left_is_swept(place: Path) -> None:
    code = (
        "from verifier.system.temporary import temporary_folder\n"
        "with temporary_folder() as folder:\n"
        "    print(folder, flush=True)\n"
        "    input()\n"
    )
    environment = {**os.environ, "TMPDIR": str(place)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        folder = Path(process.stdout.readline().strip())
        sweep()
        assert folder.is_dir()
        process.kill()
        process.wait()
    assert folder.is_dir()
    sweep()
    assert not folder.exists()


def test_a_folder_whose_lock_somebody_holds_is_left(place: Path) -> None:
    folder = place / f"verifier-{DEAD}-abcdefgh"
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        sweep()
        assert folder.exists()
    finally:
        os.close(lock)


def test_what_is_not_ours_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = place / "else"
    other.mkdir()
    (other / "file").touch()
    link = place / f"verifier-{DEAD}-link"
    link.symlink_to(other)
    named = [
        place / name for name in ("verifier-notes", "verifier-1x-y", f"other-{DEAD}-x", f"verifier-{os.getpid()}-x")
    ]
    for one in named:
        one.mkdir()
    file = place / f"verifier-{DEAD}-file"
    file.touch()
    sweep()
    assert all(one.is_dir() for one in named)
    assert link.is_symlink()
    assert (other / "file").exists()
    assert file.exists()
    folder = place / f"verifier-{DEAD}-abcdefgh"
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    sweep()
    assert folder.exists()
