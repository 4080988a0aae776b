"""Killing processes of runs at random: the script finds nothing wrong, and would have said so."""

from __future__ import annotations

import json
import subprocess

import kills
import pytest


@pytest.mark.slow
def test_ten_kills_lose_nothing_leave_nothing_and_change_nothing(capsys) -> None:
    status = kills.main(["--kills", "10"])
    said = capsys.readouterr().out
    assert status == 0, said
    (line,) = said.splitlines()
    assert line.startswith(
        "10 kills (4 of a coordinator, 2 of a guard, 2 of a forkserver, 2 of a worker), 5 with children"
    )
    assert "0 lost; 0 processes alive after 5 s; 0 verdicts that differ" in line


def test_what_is_alive_is_seen(monkeypatch) -> None:
    monkeypatch.setattr(kills, "SECONDS", 0.1)
    mark = "3600.271828182845904"
    with subprocess.Popen(["sleep", mark], env={}, start_new_session=True) as process:
        assert kills.wait_for_the_end(mark) == [f"sleep {mark}"]
        process.kill()
    assert kills.wait_for_the_end(mark) == []


def test_a_verdict_is_read_once_its_line_is_whole(tmp_path) -> None:
    assert kills.read_verdicts(tmp_path) == {}
    lines = [
        json.dumps({"kind": "outcome", "case": "a", "check": check, "verdict": verdict})
        for check, verdict in (("b.c", "crash"), ("b.c", "pass"), ("b.d", "pass"))
    ]
    (tmp_path / kills.FILE).write_text('{"kind": "run"}\n' + "\n".join(lines))
    assert kills.read_verdicts(tmp_path) == {("a", "b.c"): "pass"}


RIGHT, OTHER, MORE = {"b.c": "pass"}, {"b.c": "fail"}, {"b.c": "pass", "b.d": "pass"}


@pytest.mark.parametrize(
    ("reads", "words", "status"),
    [
        ((RIGHT, RIGHT, RIGHT), "0 lost; 0 processes alive after 5 s; 0 verdicts", 0),
        ((RIGHT, {}, RIGHT), "1 lost; 0 processes alive after 5 s; 0 verdicts", 1),
        ((RIGHT, OTHER, RIGHT), "1 lost; 0 processes alive after 5 s; 0 verdicts", 1),
        ((RIGHT, RIGHT, {}), "1 lost; 0 processes alive after 5 s; 1 verdicts", 1),
        (({}, {}, OTHER), "0 lost; 0 processes alive after 5 s; 1 verdicts", 1),
        (({}, {}, MORE), "0 lost; 0 processes alive after 5 s; 1 verdicts", 1),
    ],
)
def test_a_loss_and_a_difference_fail(monkeypatch, capsys, reads, words, status) -> None:
    """Every run is over at once; what its record has is read before the kill, after it, and at the end."""
    left = iter(reads)
    monkeypatch.setattr(kills, "run_undisturbed", lambda adapter, folder, mark: (RIGHT, 0, 0.0))
    monkeypatch.setattr(kills, "kill_one", lambda process, role, draw: True)
    monkeypatch.setattr(kills, "VERIFIER", ["true"])
    monkeypatch.setattr(kills, "read_verdicts", lambda folder: RIGHT if "undisturbed" in folder.name else next(left))
    assert kills.main(["--kills", "1"]) == status
    assert words in capsys.readouterr().out.splitlines()[-1]
