"""Nothing that comes from outside reaches a terminal as more than text, whichever door it comes through."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from every_line import write_every_line
from hostile_files import harmful
from rich.text import Text

from verifier import cli
from verifier.errors import ImportFailed, UsageError, VerifierError
from verifier.output.console import standard_error, standard_output
from verifier.output.harmless import harmless_streams

HOSTILE = {
    "escape": "\x1b[2J",
    "title": "\x1b]0;owned\x07",
    "bell": "\x07",
    "backspace": "ok\x08\x08",
    "8-bit": "\x9b31m",
    "return": "bad\rgood",
    "override": "\u202egood",
    "isolate": "\u2066good",
    "hidden": "\u200bgood\u2060",
    "tag": "\U000e0041",
    "surrogate": "\udc80",
    "delete": "\x7f",
    "next line": "bad\x85good",
    "separator": "bad\u2028good",
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
Say = Callable[[str], object]


def print_on(stream: str) -> Say:
    return lambda text: print(text, file=getattr(sys, stream))


SINKS: dict[str, Say] = {
    "standard output": print_on("stdout"),
    "standard error": print_on("stderr"),
    "lines": lambda text: sys.stdout.writelines([text]),
    "console": lambda text: standard_output().print(text),
    "console of progress": lambda text: standard_error().print(text),
    "styled": lambda text: standard_output().print(Text.assemble("a", (text, "bold"))),
}


def obeyed(text: str) -> bool:
    return bool(harmful(text)) or any(one in text for one in ("\u2028", "\u200b", "\u2060", "\U000e0041", "\udc80"))


@hostile
@pytest.mark.parametrize("say", SINKS.values(), ids=SINKS)
def test_no_stream_lets_it_through(say: Say, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with harmless_streams():
        say(text)
    said = capsys.readouterr()
    assert said.out + said.err
    assert not obeyed(said.out + said.err)


@hostile
def test_no_error_holds_it(text: str) -> None:
    for kind in (UsageError, ImportFailed, VerifierError):
        assert not obeyed(str(kind(f"it is {text}")))


def test_the_streams_are_as_before_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with contextlib.suppress(KeyError), harmless_streams():
        raise KeyError
    assert (sys.stdout, sys.stderr) == before


def test_our_own_colours_are_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with harmless_streams():
        standard_output().print(Text("\x1b[2Jred", style="red"))
    assert "\x1b[31m" in stream.getvalue()
    assert "\\x1b[2Jred" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()


def test_a_closed_terminal_is_a_reader_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> NoReturn:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.stdout", Closed())
    with harmless_streams():
        with pytest.raises(BrokenPipeError):
            print("anything")
        with pytest.raises(BrokenPipeError):
            standard_output().print("anything")


DOORS: dict[str, Sequence[str]] = {
    "unknown adapter": ("run", "falcon", "--adapter", "{text}"),
    "module": ("run", "falcon", "--adapter", "{text}:A"),
    "unknown family": ("run", "{text}"),
    "unknown command": ("{text}",),
    "unknown option": ("run", "--{text}"),
    "list": ("list", "hooks", "{text}"),
    "file": ("run", "falcon", "--cases", "{text}"),
    "checkpoint": ("run", "falcon", "--checkpoint", "{text}"),
    "where": ("run", "falcon", "--where", "{text}=1"),
    "report": ("report", "hostile.jsonl", "--format", "markdown"),
    "page": ("report", "hostile.jsonl", "--out", "{text}.html"),
    "diff": ("diff", "hostile.jsonl", "changed.jsonl"),
    "differences": ("diff", "hostile.jsonl", "changed.jsonl", "--format", "markdown"),
    "baseline": ("baseline", "hostile.jsonl", "--out", "{text}.toml"),
    "repro": ("repro", "{text}", "hostile.jsonl"),
    "explained": ("baseline", "--remove", "{text}"),
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A record in which a failure's texts and the adapter's reference are to be replaced."""
    found = write_every_line(tmp_path_factory.mktemp("record"))
    del found[0]["asked"]["shard"]
    return "".join(json.dumps(line) + "\n" for line in found)


@hostile
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_no_command_lets_it_through(
    door: Sequence[str],
    text: str,
    lines: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    spelled = json.dumps(f"x{text}y")
    written = lines.replace('"message": "off"', f'"message": {spelled}')
    written = written.replace('"adapter": "mine:Adapter"', f'"adapter": {spelled}')
    assert written.count(spelled) == 2
    (tmp_path / "hostile.jsonl").write_text(written)
    (tmp_path / "changed.jsonl").write_text(lines)
    cli.main([word.format(text=text) for word in door])
    said = capsys.readouterr()
    assert said.out + said.err
    assert not obeyed(said.out + said.err)
    assert "internal error" not in said.err
