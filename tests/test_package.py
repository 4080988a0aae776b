"""What the package promises of itself: its commands, its pins, its entry points, its style."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]


def test_ci_calls_exactly_the_readmes_test_command() -> None:
    *_, command, slow = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "pytest" in command
    assert f"```sh\n{command}\n```" in README
    # What it leaves out is run after it, in the same environment.
    assert slow == command.rpartition(" && ")[2] + " -m slow"
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    assert "-m 'not slow and not nightly'" in options


def test_the_readmes_commands_each_make_an_environment_of_their_own() -> None:
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    environments = [re.findall(r"\.venv-\w+", command) for command in commands]
    assert len(commands) == 2
    assert all(len(set(names)) == 1 for names in environments)
    assert environments[0][0] != environments[1][0]


def test_every_pin_is_exact_and_without_a_local_version() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][0-9A-Za-z.]*", line)] == []


def test_the_pins_are_the_set_that_runs_these_tests() -> None:
    pinned = {_normal(name): version for name, _, version in (line.partition("==") for line in PINS)}
    installed = {_normal(one.name): one.version.partition("+")[0] for one in importlib.metadata.distributions()}
    wrong = {
        name: (version, installed[name]) for name, version in pinned.items() if installed.get(name, version) != version
    }
    if wrong:
        pytest.skip(f"this environment was not made with constraints.txt: {wrong}")
    needed = {_normal(re.split(r"[<>=!~\[; ]", text)[0]) for text in _requirements()}
    assert needed <= pinned.keys()


def _requirements() -> list[str]:
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    return [*PROJECT["dependencies"], *extras]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("group", ["verifier.families", "verifier.adapters"])
def test_every_entry_point_loads(group: str) -> None:
    points = set(PROJECT["entry-points"][group])
    found = {point.name: point for point in importlib.metadata.entry_points(group=group)}
    assert points <= found.keys()
    for name in points:
        assert callable(found[name].load())


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        pytest.param(["mypy"], marks=pytest.mark.slow, id="mypy"),
    ],
    ids=" ".join,
)
def test_style_is_clean(command: list[str]) -> None:
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed; the extra `dev` has it")
    ended = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_imports_keep_the_contracts() -> None:
    if importlib.util.find_spec("importlinter") is None:
        pytest.skip("import-linter is not installed; the extra `dev` has it")
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
