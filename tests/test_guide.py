"""The guides are followed: their files are written, their commands run, their output compared.

A section starts in a folder with the files of all sections before it. Of a command's output the guide may leave out
what it likes, where it says `…`; what it shows must have been printed, in that order.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from terminals import environment

from verifier import checks
from verifier.cases import matrix
from verifier.checks.runner import run_case
from verifier.errors import ExitStatus
from verifier.families.falcon import FalconFamily
from verifier.judging.outcome import Verdict

TESTS = Path(__file__).parent
GUIDE, FAMILIES = (TESTS.parent / "docs" / name for name in ("adapters.md", "families.md"))
SAMPLE = TESTS / "sample"
ADAPTER = SAMPLE / "sample_lens" / "adapter.py"
WIDTH = "100"
LEFT_OUT = "…"
COMMAND = "$ "


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code: its language, and the file that it is to be saved as, if any."""

    language: str
    source: str

    @property
    def file(self) -> str | None:
        found = re.match(r"# (\w+\.\w+)\n", self.source)
        return None if found is None else found[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands under a heading."""

    heading: str
    blocks: tuple[Block, ...]


def sections(guide: Path) -> tuple[Section, ...]:
    text = guide.read_text(encoding="utf-8")
    found = []
    for part in re.split(r"^#+ (?=[^\n]*\n\n)", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", body, flags=re.MULTILINE | re.DOTALL)
        made = tuple(Block(language=language, source=source) for language, source in blocks)
        found.append(Section(heading=heading, blocks=made))
    return tuple(found)


SECTIONS = sections(GUIDE)
GUIDES = (SECTIONS, sections(FAMILIES))
RUNNING = [
    pytest.param(guide[: number + 1], id=section.heading)
    for guide in GUIDES
    for number, section in enumerate(guide)
    if any(block.language in ("python", "console") for block in section.blocks)
]


@pytest.mark.slow
@pytest.mark.parametrize("until", RUNNING)
def test_section(until: tuple[Section, ...], tmp_path: Path) -> None:
    section = until[-1]
    for block in (block for one in until for block in one.blocks if block.file is not None):
        (tmp_path / str(block.file)).write_text(block.source)
    ran = 0
    for block in section.blocks:
        if block.language == "console":
            for command, shown in commands(block.source):
                follows(command, shown, tmp_path)
                ran += 1
        elif block.language == "python":
            (tmp_path / "block.py").write_text(block.source)
            ended = run(f"python {block.file or 'block.py'}", tmp_path)
            assert ended.returncode == 0, ended.stdout + ended.stderr
            ran += 1
    assert ran


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    told = environment(PATH=path, PYTHONPATH=str(SAMPLE), COLUMNS=WIDTH)
    return subprocess.run(command, shell=True, cwd=folder, env=told, capture_output=True, text=True, check=False)


def commands(source: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a block, and the lines that are shown of what it prints."""
    for part in re.split(r"^" + re.escape(COMMAND), source, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, shown


def follows(command: str, shown: list[str], folder: Path) -> None:
    """Run the command: it prints what is shown, and its status is that of the verdict."""
    ended = run(command, folder)
    printed = ended.stdout + ended.stderr
    pattern = "".join("(?s:.*)" if line == LEFT_OUT else f"{_pattern(line)} *\n" for line in shown)
    assert not shown or re.fullmatch(pattern, ended.stdout) or re.fullmatch(pattern, printed), f"{command}\n{printed}"
    bad = "DOES NOT CONFORM" in printed or "BROKEN (" in printed
    assert ended.returncode == (ExitStatus.DIFFERS if bad else ExitStatus.CONFORMS), f"{command}\n{printed}"


def _pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split(LEFT_OUT)))


def definitions(source: str) -> dict[str, str]:
    """The source of what is defined at the top of a module, by name."""
    found = {}
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = ast.get_source_segment(source, node) or ""
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = ast.get_source_segment(source, node) or ""
    return found


@pytest.mark.parametrize("file", ["weighing.py", "hooking.py"])
def test_the_sample_is_the_guides_adapter(file: str) -> None:
    (block,) = [block for section in SECTIONS for block in section.blocks if block.file == file]
    shown = definitions(block.source)
    whole = definitions(ADAPTER.read_text())
    assert len(shown) > 4
    for name in shown.keys() - {"Subject", "Adapter"}:
        assert shown[name] == whole[name], f"{name} is not the same in {GUIDE.name} and in {ADAPTER}"


@pytest.mark.slow
def test_the_samples_adapter_conforms(falcon: FalconFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here on some cases of each kind, those that are refused too; `sample/` has no known failure on any."""
    monkeypatch.syspath_prepend(str(SAMPLE))
    adapter = importlib.import_module("sample_lens.adapter").LensAdapter()
    specs = matrix.cases(falcon, "falcon")
    chosen = [spec for valid in (True, False) for spec in [one for one in specs if one.valid is valid][::31]]
    outcomes = [one for spec in chosen for one in run_case(spec, falcon, adapter, checks.select([]))]
    assert [(one.check, one.message) for one in outcomes if one.verdict.gates] == []
    looked = {one.check.partition(".")[0] for one in outcomes if one.verdict is Verdict.PASS}
    assert {"build", "qkv", "weights", "hooks", "intervene", "backward", "forward"} <= looked


def test_the_entry_point_is_the_samples() -> None:
    shown = [block.source for section in SECTIONS for block in section.blocks if "entry-points" in block.source]
    assert shown
    assert all(source in (SAMPLE / "pyproject.toml").read_text() for source in shown)


def test_the_action_has_what_it_is_given() -> None:
    (source,) = [block.source for section in SECTIONS for block in section.blocks if block.language == "yaml"]
    (step,) = yaml.safe_load(source)
    inputs = yaml.safe_load((TESTS.parent / "action.yml").read_text())["inputs"]
    assert step["with"].keys() <= inputs.keys()
    assert {name for name, one in inputs.items() if one.get("required")} <= step["with"].keys()
