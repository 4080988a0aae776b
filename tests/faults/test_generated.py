"""Generated mutants: a row that does not establish its circumstance lets them live; alone they die by the command."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from falcons import KINDS, spec

from verifier import adapter as adapters
from verifier.cases import matrix
from verifier.cases.circumstances import CLASSES, PLAIN, Meeting, classes_in
from verifier.cases.spec import CaseSpec
from verifier.families.falcon import FalconFamily
from verifier.faults import generated_selftest
from verifier.faults.generated import EFFECTS
from verifier.faults.sensing import meets
from verifier.observing.circumstances import row as rows
from verifier.observing.circumstances.texts import make_texts

SEED, ALONE = 0, 20
ROW = {"mask": "left"}
UNMASKED: Meeting = frozenset({("mask", "left")})


def survivors(family: FalconFamily) -> set[tuple[str, Meeting]]:
    case = spec(KINDS["one-norm-multi-query-rope"], circumstances=(ROW,))
    acted = generated_selftest.run_case(case, family, adapters.load("bridge"))
    return set(generated_selftest.count(acted, rows=1).survivors)


def test_a_row_that_does_not_establish_its_circumstance_lets_mutants_live(
    falcon: FalconFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ("logits", UNMASKED) not in survivors(falcon)

    def unmasked(circumstance: Mapping[str, str], **how: Any) -> Any:
        return make_texts({**circumstance, "mask": "none"}, **how)

    monkeypatch.setattr(rows, "make_texts", unmasked)
    assert ("logits", UNMASKED) in survivors(falcon)


# What rows claimed once and did not establish.
ESTABLISHED: list[tuple[str, dict[str, str]]] = [
    ("generated tokens", {"past": "generation", "history": "fresh"}),
    ("generated tokens", {"past": "generation", "history": "interleaved"}),
    ("generated tokens", {"past": "generation", "history": "nested"}),
    ("generated tokens", {"past": "generation", "history": "backward"}),
    ("logits", {"grad": "no_grad", "history": "backward"}),
    ("logits", {"grad": "frozen", "history": "backward"}),
    ("logits", {"history": "nested", "mask": "left"}),
    ("edits", {"history": "nested", "grad": "grad"}),
    ("shown values", {"past": "chunk", "tokens": "ids"}),
    ("edits of gradients", {"grad": "grad", "history": "fresh", "mask": "rewritten"}),
    ("shown gradients", {"grad": "grad", "history": "inference", "mask": "rewritten"}),
    ("logits", {"mask": "mixed", "grad": "no_grad"}),
]


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("effect", "values"), ESTABLISHED, ids=lambda one: one if isinstance(one, str) else "")
def test_a_row_establishes_what_it_claims(effect: str, values: dict[str, str], falcon: FalconFamily) -> None:
    case = spec(KINDS["one-norm-multi-query-rope"], circumstances=(values,))
    acted = generated_selftest.run_case(case, falcon, adapters.load("bridge"))
    trigger = frozenset(values.items())
    assert any(one.killed and meets(one.sensed, trigger) for one in acted if one.effect == effect)


def choose(count: int) -> Iterator[tuple[str, Meeting, CaseSpec]]:
    """Choose mutants by a seed, each with a case of a default run that has a row in which it must be seen."""
    cases = [case for case in matrix.cases(FalconFamily(), "falcon", seed=0) if case.valid]
    kinds = {kind.name: kind for kind in CLASSES}
    all_of_them = [
        (effect.name, trigger)
        for effect in EFFECTS.values()
        for trigger in sorted(generated_selftest.triggers(effect), key=sorted)
    ]
    for name, trigger in random.Random(SEED).sample(all_of_them, count):
        effect = EFFECTS[name]
        fitting = [
            (case, circumstance)
            for case in cases
            for circumstance in case.circumstances
            if trigger <= {**PLAIN, **circumstance}.items()
            and effect.unseen.isdisjoint({**PLAIN, **circumstance}.items())
            and kinds[effect.kind] in classes_in({**PLAIN, **circumstance})
        ]
        assert fitting, f"no row of a default run has {sorted(trigger)} where {name} are looked at"
        case, circumstance = min(fitting, key=lambda one: len(one[1]))
        yield name, trigger, replace(case, circumstances=(circumstance,))


def _mutants() -> Iterator[Any]:
    # Those of the night are asked for by name: they take an hour.
    count = int(os.environ.get("VERIFIER_MUTANTS", ALONE))
    for number in range(count):
        yield pytest.param(number, count, id=str(number))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "count"), _mutants())
def test_a_mutant_alone_dies_by_the_command(number: int, count: int, tmp_path: Path) -> None:
    name, trigger, case = list(choose(count))[number]
    (tmp_path / "one_mutant.py").write_text(
        "from verifier import adapter\n"
        "from verifier.faults.generated import Armed, GeneratedAdapter\n"
        f"ARMED = Armed(effect={name!r}, trigger=frozenset({sorted(trigger)!r}))\n"
        "class Mutant(GeneratedAdapter):\n"
        "    def __init__(self):\n"
        "        super().__init__(adapter.load('bridge'), ARMED, 'sdpa')\n"
    )
    (tmp_path / "cases.jsonl").write_text(json.dumps(case.to_json()) + "\n")
    command = [sys.executable, "-m", "verifier", "run", "falcon", "--adapter", "one_mutant:Mutant", "--workers", "1"]
    options = ["--cases", "cases.jsonl", "--out", "out", "--timeout", "300"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1, f"{name} {sorted(trigger)} {case.circumstances}\n{done.stdout}{done.stderr}"
