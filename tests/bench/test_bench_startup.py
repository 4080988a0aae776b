"""The first outcome in a record is seen as it is written, and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifier.bench import startup
from verifier.errors import VerifierError

RUN, CASE = b'{"kind": "run", "schema": 1}\n', b'{"kind": "case", "case": "abc"}\n'
OUTCOME = b'{"kind": "outcome", "case": "abc", "check": "a.one", "verdict": "pass"}\n'


def test_it_is_seen_once_its_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    first = startup.FirstOutcome(path, began=10.0)
    for now, written in enumerate((None, RUN, CASE, OUTCOME[:20], OUTCOME[20:-1]), start=11):
        if written is not None:
            with path.open("ab") as file:
                file.write(written)
        first.look(now)
        assert first.seconds is None
    with path.open("ab") as file:
        file.write(b"\n" + CASE)
    first.look(17.5)
    with path.open("ab") as file:
        file.write(OUTCOME)
    first.look(20.0)
    assert first.seconds == 7.5


def test_a_case_by_that_name_is_no_outcome(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_bytes(RUN + b'{"kind": "case", "case": "outcome"}\n')
    first = startup.FirstOutcome(path, began=0.0)
    first.look(1.0)
    assert first.seconds is None


def test_what_the_harness_adds_is_on_top_of_the_median() -> None:
    found = startup.StartUp(imports=(3.0, 9.0, 4.0), first_outcome=5.5)
    assert (found.bare, found.ours) == (4.0, 1.5)
    assert startup.StartUp(imports=(1.0,), first_outcome=None).ours is None


def test_the_bare_imports_are_of_the_familys_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_TIMES", 1)
    (seconds,) = startup.imports("falcon")
    assert seconds > 0


def test_an_import_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_IMPORTS", "import no_such_module_{architecture}")
    with pytest.raises(VerifierError, match="ended with status 1: ModuleNotFoundError"):
        startup.imports("falcon")
