"""A file or folder in the current folder that has the harness's name does not stand in its way."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from user_adapters import FEW

from verifier import plugins, record
from verifier.engine import server
from verifier.errors import UsageError

SHADOW = "raise RuntimeError('the shadow was imported')\n"
COMMAND = Path(sysconfig.get_path("scripts"), "verifier")
CLEAN = """
class Clean(Right):
    '''What it starts finds modules as ever.'''
    def wrap(self, model):
        assert "PYTHONSAFEPATH" not in os.environ
        return Subject(model)
"""


@pytest.fixture(params=["verifier.py", "verifier/__init__.py"])
def shadowed(request, tmp_path, folder):
    """A folder with adapters and with such a file."""
    path = tmp_path / request.param
    path.parent.mkdir(exist_ok=True)
    path.write_text(SHADOW)
    (tmp_path / "mine.py").write_text((folder / "mine.py").read_text() + CLEAN)
    return tmp_path


def command(folder, *arguments):
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_is_not_misled(shadowed):
    asked = ("run", "falcon", "--adapter", "mine:Clean", "--where", FEW, "--only", "build.adapter")
    ended = command(shadowed, *asked)
    assert ended.stdout.splitlines()[-1] == "falcon × mine:Clean (right 1.0): CONFORMS: 4 of 4 looked at", ended.stderr
    assert ended.returncode == 0
    assert len(record.read(shadowed / "reports" / "falcon-mine-Clean").cases) == 4


def test_an_adapter_of_that_name_is_told_what_is_in_its_way(shadowed, monkeypatch):
    monkeypatch.chdir(shadowed)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UsageError, match="has the name of this harness, which is found first: rename it"):
        plugins.load("verifier:Adapter", group="nothing", kind="adapter", is_one=lambda one: True)


def test_it_is_seen_and_nothing_else_is(shadowed, tmp_path_factory):
    assert plugins.shadowing(str(shadowed)) is not None
    assert plugins.shadowing(str(tmp_path_factory.mktemp("empty"))) is None
    assert plugins.shadowing(str(Path(plugins.__file__).parent.parent)) is None


def test_what_is_spawned_does_not_look_there_first(shadowed, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(shadowed), *sys.path])
    with server.without_shadowing_paths():
        assert str(shadowed) not in sys.path
    assert sys.path[0] == str(shadowed)
