"""Whatever stands in a file, or in its place, a command ends with its status and one line, and does not hang."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from every_line import write_every_line
from hostile_files import DIGITS, NESTED, either, harmful, mutate_json, mutate_lines, mutate_toml

from verifier import cli
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus, Inconclusive
from verifier.families.falcon import FalconFamily

FILES = 500
SHARE = 10  # of the files one of so many is in the default run
SECONDS = 20  # none takes one; more is a hang
WOULD_RUN = "it would run"

Command = Callable[[Path], Sequence[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A file that a command reads.

    Attributes:
        name: what it is to the user.
        file: its name in the folder of the test.
        content: a right one.
        mutate: makes it hostile.
        commands: each reads it.
    """

    name: str
    file: str
    content: bytes
    mutate: Callable[[random.Random], bytes]
    commands: tuple[tuple[str, ...], ...]


CASE = CaseSpec(family="falcon", config=FalconFamily().dims() | {"alibi": False, "bias": True})
BASELINE = f"""schema = 1
family = "falcon"
adapter = "bridge"
[asked]
only = ["qkv"]
[ran]
"qkv.rows" = 12
[[failure]]
id = "abcdefgh"
check = "qkv.rows"
rule = "bias"
also = ["alibi=true"]
reason = "so"
issue = "#7"
expires = 2027-01-31
case = '{json.dumps(CASE.to_json())}'
"""
SETTINGS = """[tool.verifier]
family = "falcon"
adapter = ["bridge"]
baseline = "known.toml"
only = ["qkv"]
where = ["alibi=true"]
seed = 7
workers = 2
timeout = "2m"
memory = "1G"
out = "results"
gate = ["reduced"]
"""
SELFTEST = {
    "family": "toy",
    "adapter": "bridge",
    "kills": [{"fault": "f", "what": "w", "check": "qkv.rows", "verdict": "caught", "evidence": "fail: x"}],
}
CONFIG = {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "layer_norm_epsilon": 1e-5, **CASE.config}


def spelled(data: Any) -> tuple[bytes, Callable[[random.Random], bytes]]:
    """A JSON file, and how it is made hostile."""
    content = json.dumps(data)
    return content.encode(), lambda draw: either(lambda text, draw: mutate_json(json.loads(text), draw), content, draw)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Door]:
    """Every file that a user gives to a command, or that lies where a command looks."""
    lines = write_every_line(tmp_path_factory.mktemp("record"))
    del lines[0]["asked"]["shard"]
    record = "".join(json.dumps(line) + "\n" for line in lines).encode()
    case = {"kind": "case", "case": CASE.id, **CASE.to_json()}
    selftest, mutate_selftest = spelled(SELFTEST)
    config, mutate_config = spelled(CONFIG)
    page = ("--out", "page.html")
    made = (
        Door(
            name="record",
            file="hostile.jsonl",
            content=record,
            mutate=lambda draw: mutate_lines(lines, draw),
            commands=(
                ("report", "hostile.jsonl", *page, "--junit", "junit.xml", "--gate"),
                ("report", "good.jsonl", "hostile.jsonl", "--merge", "--format", "markdown"),
                ("diff", "good.jsonl", "hostile.jsonl"),
                ("baseline", "hostile.jsonl", "--out", "new.toml"),
                ("repro", lines[3]["case"], "hostile.jsonl", "--script", "script.py"),
                ("run", "falcon", "--cases", "hostile.jsonl"),
            ),
        ),
        Door(
            name="cases",
            file="hostile.jsonl",
            content=(json.dumps(case) + "\n").encode(),
            mutate=lambda draw: mutate_lines([case, case], draw),
            commands=(("run", "falcon", "--cases", "hostile.jsonl"),),
        ),
        Door(
            name="baseline",
            file="known.toml",
            content=BASELINE.encode(),
            mutate=lambda draw: either(mutate_toml, BASELINE, draw),
            commands=(
                ("run", "falcon", "--adapter", "bridge", "--baseline", "known.toml"),
                ("baseline", "--remove", "abcdefgh", "--out", "known.toml"),
                ("baseline", "good.jsonl", "--out", "known.toml"),
            ),
        ),
        Door(
            name="configuration",
            file="pyproject.toml",
            content=SETTINGS.encode(),
            mutate=lambda draw: either(mutate_toml, SETTINGS, draw),
            commands=(("run", "--no-baseline"), ("baseline", "good.jsonl")),
        ),
        Door(
            name="self-test",
            file="selftest.json",
            content=selftest,
            mutate=mutate_selftest,
            commands=(("report", "good.jsonl", *page, "--selftest", "selftest.json"),),
        ),
        Door(
            name="checkpoint",
            file="checkpoint/config.json",
            content=config,
            mutate=mutate_config,
            commands=(("run", "falcon", "--checkpoint", "checkpoint"),),
        ),
    )
    return {door.name: door for door in made}


NAMES = ("record", "cases", "baseline", "configuration", "self-test", "checkpoint")


@pytest.fixture
def folder(tmp_path: Path, doors: dict[str, Door], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, in which a run ends where it would begin."""

    def refuse(*arguments: object) -> NoReturn:
        raise Inconclusive(WOULD_RUN)

    monkeypatch.setattr("verifier.commands.run.record_run", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "good.jsonl").write_bytes(doors["record"].content)
    return tmp_path


@contextlib.contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    def stop(*arguments: object) -> NoReturn:
        pytest.fail(f"it hangs: {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def end(command: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command, and give its status and its one line; there may be none where the status is not of an error."""
    with no_longer_than(SECONDS):
        status = cli.main(command)
    said = capsys.readouterr()
    assert status in (0, 1, 2, 4), (command, status, said.err)
    assert "Traceback" not in said.err
    assert "internal error" not in said.err
    assert not harmful(said.out + said.err)
    lines = said.err.splitlines()
    assert len(lines) == 1 if status == ExitStatus.USAGE else len(lines) <= 2, (command, said.err)
    return status, said.err


@pytest.mark.parametrize("name", NAMES)
def test_a_right_file_is_taken(
    doors: dict[str, Door], name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    door = doors[name]
    (folder / door.file).write_bytes(door.content)
    status, said = end(door.commands[0], capsys)
    assert status != ExitStatus.USAGE, said


@pytest.mark.parametrize(
    "seeds",
    [
        range(0, FILES, SHARE),
        pytest.param([seed for seed in range(FILES) if seed % SHARE], marks=pytest.mark.slow),
    ],
    ids=["some", "others"],
)
def test_a_hostile_file_ends_in_one_line(
    doors: dict[str, Door], seeds: Sequence[int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = []
    for seed in seeds:
        draw = random.Random(seed)
        door = doors[draw.choice(NAMES)]
        content = door.mutate(draw)
        command = draw.choice(door.commands)
        (folder / door.file).write_bytes(content)
        try:
            status, _ = end(command, capsys)
        except BaseException:
            print(f"seed {seed}: {' '.join(command)}: {content[:1_000]!r}")
            raise
        finally:
            (folder / door.file).unlink(missing_ok=True)
        statuses.append(status)
    assert statuses.count(ExitStatus.USAGE) > len(statuses) / 2


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_folder(path: Path) -> None:
    path.mkdir()


def put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end, contextlib.chdir(path.parent):
        end.bind(path.name)


@pytest.mark.parametrize("put", [put_pipe, put_device, put_folder, put_socket])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_is_not_waited_for(
    doors: dict[str, Door],
    name: str,
    put: Callable[[Path], None],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    door = doors[name]
    put(folder / door.file)
    for command in door.commands:
        status, said = end(command, capsys)
        assert status == ExitStatus.USAGE, (command, said)
        assert Path(door.file).parts[0] in said


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("record", '"seconds": 0.5', '"seconds": Infinity', "not JSON: Infinity is no number there"),
        ("record", '"seconds": 0.5', '"seconds": "inf"', "must be a number of at most 1000000000.0, not 'inf'"),
        ("record", '"seconds": 0.5', '"seconds": 1e999', "'1e999' is beyond every number"),
        ("record", '"workers": 2', f'"workers": {DIGITS}', "a whole number of 5,000 digits"),
        ("record", '"workers": 2', f'"workers": {NESTED}', "nested too deep"),
        (
            "record",
            '"adapter_name": "mine"',
            '"adapter_name": "\\u001b[2J"',
            "`adapter_name` is '\\x1b[2J'; it must be",
        ),
        ("record", '"adapter_version": "1"', '"adapter_version": "1\\n0"', "must be printable, on one line"),
        ("cases", '"layers": 2', '"layers": NaN', "not JSON: NaN is no number there"),
        ("checkpoint", "1e-05", "NaN", "not JSON: NaN is no number there"),
        ("checkpoint", '"bias": true', '"bias": true, "hidden_size": 1000000000000', "cannot be 1,000,000,000,000"),
        ("configuration", "seed = 7", f"seed = {DIGITS}", "value has 5000 digits"),
        ("configuration", "seed = 7", f"seed = {NESTED}", "nested too deep"),
        ("baseline", "schema = 1", f"schema = {NESTED}", "nested too deep"),
        ("self-test", '"caught"', NESTED, "nested too deep"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(
    doors: dict[str, Door],
    name: str,
    old: str,
    new: str,
    said: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    door = doors[name]
    content = door.content.decode()
    old = old if old in content else '"num_hidden_layers": 2'
    assert old in content
    (folder / door.file).write_text(content.replace(old, new, 1))
    status, line = end(door.commands[0], capsys)
    assert status == ExitStatus.USAGE
    assert said in line
