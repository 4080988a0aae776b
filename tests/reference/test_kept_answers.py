"""What Hugging Face said is found again, by any process, and no trouble with the file ends one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from verifier.families.llama import LlamaFamily
from verifier.reference import kept_answers
from verifier.reference.kept_answers import (
    ACCEPTED,
    UNKNOWN,
    Acceptance,
    answers_file,
    asked_by,
    find_answer,
    forget_answers,
    keep_answer,
)

REFUSED = Acceptance(reason="ValueError: 5 is not 6\u2028 – no")


@pytest.fixture(autouse=True)
def file(answers: Path) -> Path:
    found = answers_file("Model")
    assert found is not None
    assert found.is_relative_to(answers)
    return found


def find_anew(config: dict[str, Any]) -> Acceptance:
    """As another process finds it."""
    forget_answers()
    return find_answer("Model", config)


def test_an_answer_is_found_by_another_process() -> None:
    keep_answer("Model", {"width": 5}, REFUSED)
    keep_answer("Model", {"width": 6, "rope": {"theta": 1.5, "type": None}}, ACCEPTED)
    assert find_anew({"width": 5}) == REFUSED
    assert find_anew({"rope": {"type": None, "theta": 1.5}, "width": 6}) == ACCEPTED


@pytest.mark.parametrize("other", [{"width": 5.0}, {"width": "5"}, {"width": 5, "tied": False}, {}])
def test_nothing_is_known_of_another_config(other: dict[str, Any]) -> None:
    keep_answer("Model", {"width": 5}, REFUSED)
    assert find_anew(other) == UNKNOWN


def test_nothing_is_known_of_another_architecture_or_version(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_answer("Model", {"width": 5}, REFUSED)
    assert find_answer("Other", {"width": 5}) == UNKNOWN
    monkeypatch.setattr("verifier.reference.kept_answers._version", lambda: "99.0")
    assert find_answer("Model", {"width": 5}) == UNKNOWN


def test_a_family_that_goes_another_way_is_asked_for_itself() -> None:
    class Mended(LlamaFamily):
        reference_attention = "eager"

    class Builds(LlamaFamily):
        def build(self, config: Any, **options: Any) -> Any:
            return super().build({**config, "hidden_act": "relu"}, **options)

    class Derived(LlamaFamily):
        name = "derived"

    plain, *others = (asked_by(one()) for one in (LlamaFamily, Mended, Builds))
    assert len({plain, *others}) == 3
    assert asked_by(Derived()) == plain == "LlamaForCausalLM-sdpa"


def test_the_later_answer_counts() -> None:
    keep_answer("Model", {"width": 5}, REFUSED)
    keep_answer("Model", {"width": 5}, ACCEPTED)
    assert find_anew({"width": 5}) == ACCEPTED


def test_what_others_may_not_rely_on_is_this_processs_alone(file: Path) -> None:
    keep_answer("Model", {"width": 5}, REFUSED, on_disk=False)
    assert find_answer("Model", {"width": 5}) == REFUSED
    assert not file.exists()


def test_a_kill_in_the_middle_of_a_line_costs_that_line(file: Path) -> None:
    keep_answer("Model", {"width": 5}, REFUSED)
    keep_answer("Model", {"width": 6}, REFUSED)
    whole = file.read_bytes()
    for length in range(len(whole) // 2 + 2, len(whole) - 2):
        file.write_bytes(whole[:length])
        assert find_anew({"width": 5}) == REFUSED
        assert find_anew({"width": 6}) == UNKNOWN
        keep_answer("Model", {"width": 6}, ACCEPTED)
        assert find_anew({"width": 6}) == ACCEPTED


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00\xff\n{}\n[1]\n",
        b'{"config":1,"reason":null}',
        b'{"config":{"width":5},"reason":7}\n',
        b'{"config":{"width":' + b"[" * 100_000,
        b'{"config":{"width":1e999},"reason":null}',
    ],
)
def test_a_damaged_file_costs_what_is_damaged(file: Path, damage: bytes) -> None:
    keep_answer("Model", {"width": 6}, REFUSED)
    file.write_bytes(damage + file.read_bytes())
    assert find_anew({"width": 5}) == UNKNOWN
    assert find_anew({"width": 6}) == REFUSED


def test_what_is_no_file_holds_no_answer_and_is_left_alone(file: Path) -> None:
    file.mkdir(parents=True)
    keep_answer("Model", {"width": 5}, REFUSED)
    assert find_answer("Model", {"width": 5}) == REFUSED
    assert find_anew({"width": 5}) == UNKNOWN


def test_nobody_waits_for_a_pipe(file: Path) -> None:
    file.parent.mkdir(parents=True)
    os.mkfifo(file)
    keep_answer("Model", {"width": 5}, REFUSED)
    assert find_anew({"width": 5}) == UNKNOWN


def test_where_no_folder_can_be_made_this_process_remembers(answers: Path) -> None:
    answers.write_text("in the way")
    keep_answer("Model", {"width": 5}, REFUSED)
    assert find_answer("Model", {"width": 5}) == REFUSED
    assert find_anew({"width": 5}) == UNKNOWN


def test_a_file_that_is_too_large_is_begun_anew(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers, "MOST_BYTES", 60)
    for width in range(9):
        keep_answer("Model", {"width": width}, ACCEPTED)
        assert find_anew({"width": width}) == ACCEPTED
    assert file.stat().st_size < 120


WRITER = """
import sys
from verifier.reference.kept_answers import Acceptance, keep_answer
for number in range(300):
    keep_answer("Model", {"writer": int(sys.argv[1]), "number": number}, Acceptance(reason="x" * number))
"""


def test_several_processes_write_at_once() -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(number)]) for number in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    forget_answers()
    for writer in range(3):
        for number in range(300):
            found = find_answer("Model", {"writer": writer, "number": number})
            assert found == Acceptance(reason="x" * number)
