"""Sessions of pytest in a folder with adapters in it: in this process, which has torch, or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from session_adapters import ADAPTERS
from sessions import PLAIN, Ended, standing_in
from terminals import environment

from verifier import cli
from verifier.testing import collecting, keeping, parametrizing, running, spreading

# A session inside this one must find them imported, or it would import them a second time.
_USED = (collecting, keeping, parametrizing, running, spreading)


Session = Callable[..., Ended]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sessions are; one for a module, so that they share a forkserver."""
    place = tmp_path_factory.mktemp("sessions")
    (place / "mine.py").write_text(ADAPTERS)
    return place


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    """A session in this very process; an adapter that is named runs in another one all the same."""

    def run(*arguments: object, plain: tuple[str, ...] = PLAIN) -> Ended:
        said = io.StringIO()
        with standing_in(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            words = [*plain, "--capture=sys", f"--rootdir={folder}", *map(str, arguments)]
            status = pytest.main(words)
        return Ended(status=int(status), out=said.getvalue())

    return run


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A session that is a process, started as a user starts it, in a process group of its own."""
    running_ones: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        one = subprocess.Popen(
            [sys.executable, "-m", "pytest", *PLAIN, f"--rootdir={folder}", *map(str, arguments)],
            cwd=folder,
            env=environment(COLUMNS="160"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running_ones.append(one)
        return one

    yield start
    for one in running_ones:
        one.kill()
        one.communicate()


@pytest.fixture(scope="module")
def command(folder: Path) -> Callable[..., Ended]:
    """The command in the same folder."""

    def run(*arguments: object) -> Ended:
        said = io.StringIO()
        with standing_in(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = cli.main([str(argument) for argument in arguments])
        return Ended(status=int(status), out=said.getvalue())

    return run
