"""Records that somebody, or a broken disk, has changed: whatever they hold, they are read or refused in one line."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from every_line import write_every_line

from verifier import cli, record
from verifier.errors import UsageError

ODD: tuple[Any, ...] = (None, True, -1, 10**400, "", "x", "\ud800\0", [], [[]], {}, {"a": {"b": []}})
GONE = object()


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A record with a line of every kind."""
    return write_every_line(tmp_path_factory.mktemp("record"))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within a line."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def changed(line: dict[str, Any], path: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    made = copy.deepcopy(line)
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    if odd is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = odd
    return made


KINDS = (
    "run",
    "baseline",
    "known",
    "case",
    "row",
    "outcome",
    "done",
    "lost",
    "resumed",
    "evidence",
    "ladder",
    "found",
    "end",
)


def of_kind(lines: list[dict[str, Any]], kind: str) -> int:
    """The number of the last line of that kind."""
    return max(number for number, line in enumerate(lines) if line["kind"] == kind)


def taken(lines: list[dict[str, Any]], number: int, path: tuple[Any, ...], file: Path) -> list[bytes]:
    """The records that are read although that place of that line holds something odd; others are refused in a line."""
    read = []
    for odd in (*ODD, GONE):
        made = [*lines[:number], changed(lines[number], path, odd), *lines[number + 1 :]]
        file.write_text("".join(json.dumps(line) + "\n" for line in made))
        with contextlib.suppress(UsageError):
            record.read(file)
            read.append(file.read_bytes())
    return read


@pytest.mark.thinned(3)
@pytest.mark.parametrize("kind", KINDS)
def test_a_line_is_read_or_refused_whatever_it_holds(lines: list[dict[str, Any]], kind: str, tmp_path: Path) -> None:
    number = of_kind(lines, kind)
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for path in places(lines[number]):
        taken(lines, number, path, tmp_path / "bad.jsonl")
    assert record.read(tmp_path / "good.jsonl").end is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_value_of_a_line_breaks_a_command(
    lines: list[dict[str, Any]], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = of_kind(lines, kind)
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("".join(json.dumps(line) + "\n" for line in lines))
    commands = (
        ["report", bad, "--out", tmp_path / "page.html", "--junit", tmp_path / "junit.xml", "--gate"],
        ["report", bad, good, "--merge", "--format", "markdown"],
        ["diff", good, bad],
        ["baseline", bad, "--out", tmp_path / "known.toml"],
    )
    for turn, path in enumerate(places(lines[number])):
        if turn % 3:
            continue
        read = taken(lines, number, path, bad)
        if not read:
            continue
        # Another one at each third place: all of them would take minutes, and were looked at once.
        bad.write_bytes(read[turn // 3 % len(read)])
        for command in commands:
            (tmp_path / "known.toml").unlink(missing_ok=True)
            cli.main([str(word) for word in command])
            said = capsys.readouterr().err
            assert "internal error" not in said, (path, bad.read_text().splitlines()[number], command[0], said)
