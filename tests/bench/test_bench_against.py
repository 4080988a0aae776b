"""The contract with another program: the cases in a file, its statuses, and what is wrong with it in one line."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from verifier.bench import against, children
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What our own command line was given; it is not run, because others test that."""
    given: list[list[str]] = []

    def verifier(arguments: list[str], **_: Any) -> children.Ended:
        given.append(list(arguments))
        return children.Ended(status=0, seconds=2.0, said="")

    monkeypatch.setattr(children, "verifier", verifier)
    return given


def script(folder: Path, code: str) -> str:
    path = folder / "other program.py"
    path.write_text("import json, pathlib, sys\n" + code)
    return shlex.join([sys.executable, str(path)])


@pytest.mark.parametrize("given", ["{cases}", "--from={cases} --quick", ""])
def test_it_gets_the_cases_and_is_timed_in_turns(given: str, tmp_path: Path, spec: CaseSpec, ours: Any) -> None:
    seen = tmp_path / "seen"
    code = f"with open({str(seen)!r}, 'a') as f: f.write(json.dumps(sys.argv[1:]) + '\\n')\n"
    code += "path = [w for w in sys.argv[1:] if w.endswith('.jsonl')][0].removeprefix('--from=')\n"
    code += f"pathlib.Path({str(tmp_path / 'cases')!r}).write_text(pathlib.Path(path).read_text())\n"
    other = CaseSpec(family="toy", config={"size": 4}, depth="thorough")
    command = f"{script(tmp_path, code)} {given}"
    found = against.run(command, [spec, other], "toy", ["--adapter", "mine"])

    lines = (tmp_path / "cases").read_text().splitlines()
    assert [CaseSpec.from_json(json.loads(line)) for line in lines] == [spec, other]
    calls = [json.loads(line) for line in seen.read_text().splitlines()]
    assert len(calls) == len(found.theirs) == len(found.ours) == len(ours) == 3
    assert len({tuple(call) for call in calls}) == 1
    assert len(calls[0]) == max(1, len(given.split()))
    for arguments in ours:
        assert arguments[:5] == ["run", "toy", "--adapter", "mine", "--cases"]
        assert arguments[5] in calls[0][0]
    assert (found.cases, found.command) == (2, command)
    assert found.ratio == pytest.approx(sorted(found.theirs)[1] / 2.0)


@pytest.mark.parametrize("status", [0, 1])
def test_finding_differences_is_no_failure(status: int, tmp_path: Path, spec: CaseSpec) -> None:
    assert against.run(script(tmp_path, f"sys.exit({status})"), [spec], "toy", []).cases == 1


def test_another_status_is_told_with_its_last_line(tmp_path: Path, spec: CaseSpec) -> None:
    command = script(tmp_path, "print('well', file=sys.stderr)\nprint('it  broke', file=sys.stderr)\nsys.exit(4)")
    with pytest.raises(UsageError, match=r"^--against .* ended with status 4: it broke$"):
        against.run(command, [spec], "toy", [])


def test_a_program_that_dies_is_told(tmp_path: Path, spec: CaseSpec) -> None:
    with pytest.raises(UsageError, match=r"was ended by SIGKILL$"):
        against.run(script(tmp_path, "import os; os.kill(os.getpid(), 9)"), [spec], "toy", [])


WRONG = {
    "no_such_program --x": "there is no program 'no_such_program' that can be started",
    "": "names no program",
    "python 'open": "No closing quotation",
}


@pytest.mark.parametrize("command", WRONG)
def test_what_cannot_be_started_is_known_at_once(command: str) -> None:
    with pytest.raises(UsageError, match=WRONG[command]) as caught:
        against.parse(command)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_program_is_told(tmp_path: Path, spec: CaseSpec) -> None:
    path = tmp_path / "text"
    path.write_text("not a program")
    path.chmod(0o755)
    with pytest.raises(UsageError, match=r"cannot be started: Exec format error$"):
        against.run(str(path), [spec], "toy", [])


def test_no_shell_reads_the_command() -> None:
    assert against.parse("echo '$HOME' ; rm {cases}") == ("echo", "$HOME", ";", "rm", "{cases}")
    assert against.filled(("a", "--x={cases}", "{cases}"), "/f") == ["a", "--x=/f", "/f"]
    assert against.filled(("a",), "/f") == ["a", "/f"]
