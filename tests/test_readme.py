"""The README's example of an adapter is run, and does what the README says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from verifier import checks, family, faults
from verifier.canonical import COMPONENTS, KINDS, WEIGHTS
from verifier.cases import matrix
from verifier.checks.runner import run_case
from verifier.faults.selftest import MutantResult
from verifier.judging.outcome import Outcome, Verdict
from verifier.report import kill_table, vocabulary

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def executed(word: str) -> dict[str, Any]:
    """What the one python block with that word in it leaves behind."""
    (code,) = [one for one in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if word in one]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    return namespace


def example() -> Any:
    return executed("class MyAdapter")["MyAdapter"]()


def test_its_decorated_test_has_every_case_that_it_asks_for() -> None:
    function = executed("@parametrize_with_checks")["test_conforms"]
    (marked,) = [mark for mark in function.pytestmark if mark.name == "parametrize"]
    wanted = matrix.cases(family.load("falcon"), "falcon", where={"alibi": "true"})
    assert {case.id for case, _ in (one.values for one in marked.args[1])} == {spec.id for spec in wanted if spec.valid}


@pytest.mark.slow
def test_its_run_from_python_conforms() -> None:
    result = executed("verifier.run(")["result"]
    assert result.conforms
    assert result.rules == {}


def test_it_computes_what_hugging_face_computes() -> None:
    falcon, adapter = family.load("falcon"), example()
    valid = [spec for spec in matrix.cases(falcon, "falcon") if spec.valid][::60]
    outcomes = [one for spec in valid for one in run_case(spec, falcon, adapter, checks.select([]))]
    assert [one for one in outcomes if one.verdict.gates] == []
    assert any(one.check == "forward.logits" and one.verdict is Verdict.PASS for one in outcomes)


def test_it_does_not_refuse_what_hugging_face_refuses() -> None:
    falcon, adapter = family.load("falcon"), example()
    refused = next(spec for spec in matrix.cases(falcon, "falcon") if not spec.valid)
    (outcome,) = run_case(refused, falcon, adapter, checks.select(["build.refusal"]))
    assert (outcome.verdict, outcome.where) == (Verdict.FAIL, "forward")


def test_the_kill_table_has_every_fault_with_its_checks() -> None:
    """`tests/faults/test_selftest.py` sees that each is caught; here, that the page says which."""
    every = [
        MutantResult(fault=fault.name, what=fault.what, check=check, outcome=Outcome(check=check, verdict=Verdict.FAIL))
        for fault in faults.list_faults(family.load("falcon"))
        for check in fault.caught_by
    ]
    page = (ROOT / "docs" / "kill-table.md").read_text()
    assert page == f"{kill_table.markdown(every, 'falcon')}\n", (
        "run `verifier selftest falcon --markdown > docs/kill-table.md`"
    )
    assert "(docs/kill-table.md)" in README


def test_the_page_of_the_vocabulary_has_every_name() -> None:
    page = (ROOT / "docs" / "vocabulary.md").read_text()
    assert page == f"{vocabulary.markdown()}\n", "run `verifier list hooks --markdown > docs/vocabulary.md`"
    for name in (*(kind.template for kind in KINDS), *(weight.template for weight in WEIGHTS), *COMPONENTS):
        assert f"| `{name}` |" in page
    assert "(docs/vocabulary.md)" in README


def test_every_area_is_in_the_table_of_what_is_checked() -> None:
    assert re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)[: len(checks.AREAS)] == list(checks.AREAS)


def test_the_map_names_every_room_and_only_files_that_there_are() -> None:
    section = README.partition("\n## The map\n")[2].partition("\n\nThe words are explained")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]
    harness = ROOT / "verifier"
    rooms = {path.name for path in harness.iterdir() if (path / "__init__.py").exists()}
    assert {row[0].strip("`/") for row in rows} == {*rooms, "verifier", "adapters", "benchmarks", "tests"}
    named = [(row[0], file) for row in rows for file in re.findall(r"`(\w+\.py)`", row[2])]
    missing = [
        (room, file)
        for room, file in named
        if not (harness / room.strip("`/").replace("verifier", ".") / file).exists()
    ]
    assert named
    assert not missing
