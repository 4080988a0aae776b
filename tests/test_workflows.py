"""The action, our workflow and the one to copy: of the form that GitHub reads, safe, with commands that exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from verifier import cli
from verifier.cases.shards import Shard

ROOT = Path(__file__).parent.parent
ACTION = ROOT / "action.yml"
OURS = ROOT / ".github" / "workflows" / "ci.yml"
NIGHTLY = ROOT / ".github" / "workflows" / "nightly.yml"
EXAMPLE = ROOT / "docs" / "github-workflow.yml"
WORKFLOWS = [OURS, EXAMPLE]
PLACEHOLDER = "OWNER/verifier@COMMIT"
SCHEMAS = {ACTION: "vendor.github-actions", **dict.fromkeys([*WORKFLOWS, NIGHTLY], "vendor.github-workflows")}
EVERY = pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)


def _tool(name):
    """A tool of the extra `dev`, beside the interpreter or on the path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; the extra `dev` has it")
    return found


def _read(path):
    return yaml.safe_load(path.read_text())


def _steps(path):
    found = _read(path)
    if path == ACTION:
        return found["runs"]["steps"]
    return [step for job in found["jobs"].values() for step in job["steps"]]


def _uses(path):
    return [step["uses"] for step in _steps(path) if "uses" in step]


# --- the files -------------------------------------------------------------------------------------------------------


@EVERY
def test_it_is_of_the_form_that_github_reads(path):
    command = [_tool("check-jsonschema"), "--builtin-schema", SCHEMAS[path], str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@EVERY
def test_it_is_safe(path):
    """`./` is what every runner knows of a repository's own action, whatever the lowest severity says of it."""
    command = [_tool("zizmor"), "--offline", "--no-progress", "--min-severity", "medium", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@EVERY
def test_actions_of_others_are_pinned_to_a_commit(path):
    lines = [line.strip() for line in path.read_text().splitlines() if re.match(r"\s*(- )?uses:", line)]
    assert len(lines) == len(_uses(path)) > 0
    for line in lines:
        if not line.endswith("uses: ./") and PLACEHOLDER not in line:
            assert re.fullmatch(r"(- )?uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_is_pinned_to_the_same_commit_everywhere():
    pins = {use for path in SCHEMAS for use in _uses(path) if use.startswith("actions/")}
    assert len(pins) == len({use.partition("@")[0] for use in pins})


@EVERY
def test_no_expression_is_pasted_into_a_shell(path):
    scripts = [step["run"] for step in _steps(path) if "run" in step]
    assert scripts
    assert not [script for script in scripts if "${{" in script]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_nothing_else(path):
    found = _read(path)
    assert found["permissions"] == {"contents": "read"}
    assert not [job for job in found["jobs"].values() if "permissions" in job]
    checkouts = [step for step in _steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_gives_the_action_what_it_takes(path):
    inputs = _read(ACTION)["inputs"]
    uses = [step for step in _steps(path) if step.get("uses") in ("./", PLACEHOLDER)]
    assert uses
    for step in uses:
        assert step["with"].keys() <= inputs.keys()
        assert {name for name, one in inputs.items() if one.get("required")} <= step["with"].keys()
        baseline = step["with"].get("baseline")
        assert baseline is None or (ROOT / baseline).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_all_shards_are_run_and_put_together(path):
    jobs = _read(path)["jobs"]
    ((name, dealt),) = [(name, job) for name, job in jobs.items() if "strategy" in job]
    numbers = dealt["strategy"]["matrix"]["shard"]
    assert numbers == list(range(1, len(numbers) + 1))
    (given,) = (step["with"] for step in dealt["steps"] if "shard" in step.get("with", {}))
    assert given["shard"] == "${{ matrix.shard }}/${{ strategy.job-total }}"
    (gathering,) = (job for job in jobs.values() if job.get("needs") == name)
    (download,) = (step["with"] for step in gathering["steps"] if "download-artifact" in step.get("uses", ""))
    prefix = given["record-artifact"].removesuffix("${{ matrix.shard }}")
    assert download["pattern"] == f"{prefix}*"
    (command,) = (step["run"] for step in gathering["steps"] if step.get("run", "").startswith("verifier "))
    assert f" {download['path']}/{prefix}* " in command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_of_verifier_is_a_command_line(path):
    commands = [step["run"] for step in _steps(path) if step.get("run", "").startswith("verifier ")]
    assert commands
    for command in commands:
        _, name, *words = shlex.split(command)
        options = cli.cli.commands[name].make_context(name, words).params
        assert options["gate"]
        assert options["github"]


@pytest.mark.parametrize(("path", "job"), [(OURS, "tests"), (NIGHTLY, "slow-tests")], ids=["ours", "nightly"])
def test_our_own_workflows_run_the_tests_as_the_readme_says(path, job):
    install, run = [step["run"] for step in _read(path)["jobs"][job]["steps"] if "run" in step]
    *_, command, slow = (ROOT / ".ci" / "run").read_text().replace(".venv-test/bin/", "").splitlines()
    assert install.removeprefix("python -m ") in command
    every_night = slow.replace("-m slow", '-m "slow or nightly"')
    assert run == (every_night if path == NIGHTLY else command.rpartition(" && ")[2])


# --- what the action runs --------------------------------------------------------------------------------------------

INPUTS = {
    "FAMILY": "falcon",
    "ADAPTER": "",
    "BASELINE": "",
    "SHARD": "",
    "ARGUMENTS": "",
    "RECORD": "verifier-record",
    "REQUIREMENT": "adapter-verifier",
}
RUN = ["-m", "verifier", "run", "falcon", "--out", "verifier-record", "--junit", "verifier-record/junit.xml"]


@pytest.fixture
def ran(tmp_path):
    """What a step of the action gives to Python, where its inputs are these."""
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nfor one in "$@"; do printf "%s\\0" "$one" >> "{tmp_path}/arguments"; done\n')
    fake.chmod(0o755)

    def run(name, **inputs):
        (step,) = (step for step in _steps(ACTION) if step["name"] == name)
        assert step["env"].keys() <= INPUTS.keys()
        script = tmp_path / "script.sh"
        script.write_text(step["run"])
        subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],  # as a runner calls `shell: bash`
            cwd=tmp_path,
            env={"PATH": f"{fake.parent}:/usr/bin:/bin", **{key: {**INPUTS, **inputs}[key] for key in step["env"]}},
            check=True,
        )
        return (tmp_path / "arguments").read_text().split("\0")[:-1]

    return run


def test_the_action_runs_and_tells_github(ran):
    assert ran("Run") == [*RUN, "--github"]


def test_the_action_hands_on_what_it_is_given(ran):
    found = ran("Run", ADAPTER="a:B", BASELINE="known.toml", ARGUMENTS="--only qkv.*\n  --where alibi=true\n")
    more = ["--adapter", "a:B", "--baseline", "known.toml", "--github", "--only", "qkv.*", "--where", "alibi=true"]
    assert found == [*RUN, *more]
    options = cli.cli.commands["run"].make_context("run", found[3:]).params
    assert (options["adapters"], options["only"]) == (("a:B",), ("qkv.*",))


def test_of_a_shard_github_is_not_told(ran):
    found = ran("Run", SHARD="2/4")
    assert found == [*RUN, "--shard", "2/4"]
    assert cli.cli.commands["run"].make_context("run", found[3:]).params["shard"] == Shard(number=2, of=4)


@pytest.mark.parametrize("name", ["FAMILY", "ADAPTER", "BASELINE", "SHARD", "ARGUMENTS"])
def test_no_input_is_taken_for_a_command(ran, tmp_path, name):
    ran("Run", **{name: '$(touch hit) `touch hit` "; touch hit; # * ${HOME}'})
    assert not (tmp_path / "hit").exists()


def test_the_action_installs_what_is_asked_for(ran):
    assert ran("Install", REQUIREMENT="-c constraints.txt .[lens]") == [
        "-m", "pip", "install", "-c", "constraints.txt", ".[lens]",
    ]  # fmt: skip
