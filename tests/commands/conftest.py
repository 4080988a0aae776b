"""A user's folder with adapters in it, and the command run there as a user runs it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from user_adapters import ADAPTERS

from verifier import cli


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user's adapters are; one for all tests, so that they share a forkserver."""
    place = tmp_path_factory.mktemp("user")
    (place / "mine.py").write_text(ADAPTERS)
    return place


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The process stands in the user's folder, and forgets it afterwards; a run into no other folder leaves nothing."""
    path, reports = list(sys.path), folder / "reports"
    before = reports.exists()
    monkeypatch.chdir(folder)
    yield folder
    sys.path[:] = path
    if not before and reports.exists():
        shutil.rmtree(reports)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error, without those that tell of progress."""
        lines = [line for line in self.err.splitlines() if ": loading, then " not in line]
        assert len(lines) == 1, self.err
        return lines[0]


Verifier = Callable[..., Ended]


@pytest.fixture
def verifier(in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Verifier:
    """The command, run in this process (its workers are processes of their own)."""
    monkeypatch.setenv("COLUMNS", "140")

    def run(*arguments: object) -> Ended:
        status = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ended(status=status, out=said.out, err=said.err)

    return run


@pytest.fixture
def started(folder: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The command, started in a process group of its own; all its processes have the test's folder as their mark."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "verifier", *(str(argument) for argument in arguments)],
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "VERIFIER_TEST_MARK": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()
