"""The whole bench on a case or two, as a user starts it; and how it ends where it cannot measure."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verifier import cli
from verifier.bench import against, children, growth, startup
from verifier.bench.costs import Costs, of_runs
from verifier.bench.curves import Curve, Point
from verifier.bench.figures import Figures
from verifier.bench.processes import Taken, tree
from verifier.bench.sample import Stratum
from verifier.bench.startup import StartUp
from verifier.bench.whole import Whole
from verifier.commands import bench as command
from verifier.commands.bench import BenchOptions
from verifier.errors import ExitStatus, Inconclusive, UsageError
from verifier.output.console import QuietConsole
from verifier.report import bench as page

WHERE = "new_decoder_architecture=true,alibi=true,bias=true,parallel_attn=true,num_kv_heads=4,multi_query=true"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What one bench of few cases and checks printed, and its figures."""
    folder = tmp_path_factory.mktemp("bench")
    other = folder / "other.py"
    other.write_text("import sys; assert open(sys.argv[1]).read()")
    options = BenchOptions(
        family="falcon",
        adapter="bridge",
        only=("build.adapter", "forward.logits", "backward.parameters"),
        where=(WHERE,),
        workers=1,
        singly=2,
        against=shlex.join([sys.executable, str(other)]),
        growth=True,
        fuzz=4,
        json=folder / "figures.json",
    )
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "_TIMES", 1)
        patch.setattr(against, "_TURNS", 1)
        patch.setattr(growth, "_FACTORS", (1, 2, 3))
        patch.setattr(growth, "_COUNTS", (2, 4, 6))
        patch.setattr(growth, "_REPEATS", 1)
        patch.setattr(growth, "AXES", ("layers",))
        patch.setattr(sys, "stdout", out)
        assert command.bench(options) is ExitStatus.CONFORMS
    return out.getvalue(), json.loads((folder / "figures.json").read_text())


def test_every_part_is_printed(ran: tuple[str, dict[str, Any]]) -> None:
    shown, _ = ran
    titles = (
        "Start-up",
        "The run",
        "A case",
        "Checks, in a mean case",
        "Another program",
        "Growth with layers",
        "Growth with positions",
        "Growth with cases",
        "Fuzzing",
    )
    assert [line for line in shown.splitlines() if line in titles] == list(titles)
    for said in ("target 2 s", "target 70%", "target 2 GiB", "every verdict is as without it", "forward.logits"):
        assert said in " ".join(shown.split())  # a narrow terminal folds it where the figures are long
    assert "target 30 s" not in shown  # it is not the whole matrix


def test_the_figures_fit_together(ran: tuple[str, dict[str, Any]]) -> None:
    _, figures = ran
    whole, costs = figures["whole"], figures["costs"]
    assert (whole["valid"], whole["status"], whole["workers"]) == (3, 0, 1)
    assert whole["refused"] == 0
    assert whole["outcomes"] == {"pass": 3 * 3}
    assert whole["rate"] == pytest.approx(3 / whole["seconds"])
    assert 0 < whole["first_outcome"] < whole["seconds"]
    assert figures["startup"]["first_outcome"] == whole["first_outcome"]
    assert costs["models"] + costs["other"] + costs["harness"] == pytest.approx(costs["seconds"])
    assert sum(check["seconds"] for check in costs["checks"]) <= costs["seconds"]
    assert sum(check["models"] for check in costs["checks"]) == pytest.approx(costs["models"])
    assert costs["as_without"]
    inside = costs["inside"]
    assert inside["wrap"]["calls"] >= 1
    assert inside["build"]["calls"] >= 2
    fuzzed = figures["fuzzed"]
    assert fuzzed["valid"] + fuzzed["refused"] == 4
    assert fuzzed["rate"] == pytest.approx(4 / fuzzed["seconds"] / fuzzed["cores"])
    for kind in inside.values():
        assert 0 <= kind["watched_calls"] <= kind["calls"]
        assert 0 <= kind["watched_seconds"] <= kind["seconds"]


def test_growth_is_measured_at_each_size(ran: tuple[str, dict[str, Any]]) -> None:
    _, figures = ran
    sizes = {curve["axis"]: [point["size"] for point in curve["points"]] for curve in figures["growth"]}
    assert sizes == {"layers": [2, 4, 6], "positions": [11, 22, 33], "cases": [2, 4, 6]}
    for curve in figures["growth"]:
        assert all(0 < point["models"] < point["seconds"] and not point["gating"] for point in curve["points"])


def test_memory_is_that_of_all_processes(ran: tuple[str, dict[str, Any]]) -> None:
    _, figures = ran
    taken = figures["whole"]["taken"]
    if Path("/proc/self/smaps_rollup").exists():
        assert 2**26 < taken["largest"] < 2**32
        assert 2**26 < taken["memory"] < 2**32
        assert taken["cpu"] > 0
        assert taken["looks"] > 1
    else:
        assert taken["memory"] is None


# --- where there is nothing to measure -------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "family": ({"family": "falcn"}, UsageError, "unknown family 'falcn'"),
    "adapter": ({"adapter": "brdge"}, UsageError, "unknown adapter 'brdge'"),
    "flag": ({"where": ("alib=true",)}, UsageError, "no flag or dim 'alib'"),
    "refused": ({"where": ("hidden_size=73",)}, Inconclusive, "HF refuses every case"),
    "program": ({"against": "no_such_program"}, UsageError, "no program 'no_such_program'"),
    "file": ({"json": Path("/no/such/folder/file")}, UsageError, "--json: cannot write"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_before_anything_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_measure", None)
    given, kind, said = WRONG[name]
    with pytest.raises(kind, match=said):
        command.bench(BenchOptions(**{"family": "falcon", "adapter": "bridge", **given}))


def test_what_was_measured_is_shown_though_the_other_program_could_not_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], costs: Costs, tmp_path: Path
) -> None:
    made = figures(costs)
    monkeypatch.setattr(command.startup, "imports", lambda family: made.startup.imports)
    monkeypatch.setattr(command.whole, "run", lambda *_: made.whole)
    monkeypatch.setattr(command.costs, "measure", lambda *_: costs)
    fails = shlex.join([sys.executable, "-c", "raise SystemExit(4)"])
    monkeypatch.setattr(children, "verifier", lambda *_: children.Ended(status=0, seconds=2.0, said=""))
    options = BenchOptions(
        family="falcon", adapter="bridge", where=(WHERE,), against=fails, json=tmp_path / "figures.json"
    )
    with pytest.raises(UsageError, match="ended with status 4"):
        command.bench(options)
    assert "31.00 s  wall time" in capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text())["whole"]["valid"] == 30


def test_the_configured_narrowing_is_that_of_the_bench_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "verifier.toml").write_text('family = "falcon"\nwhere = ["alibi=true"]\n')
    monkeypatch.chdir(tmp_path)
    given: list[BenchOptions] = []
    monkeypatch.setattr(command, "bench", lambda options: given.append(options) or ExitStatus.CONFORMS)
    assert cli.main(["bench", "--cases", "3"]) == 0
    assert [(one.where, one.singly) for one in given] == [(("alibi=true",), 3)]


INTERRUPTED = """
from verifier.commands.bench import BenchOptions, bench
try:
    bench(BenchOptions(family="falcon", adapter="bridge"))
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_and_its_children(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "bench: measuring the bare imports\n"
        children = descendants(child.pid)
        while not children:
            children = descendants(child.pid)
        os.kill(child.pid, number)
        assert child.wait(20) == 130
    assert not [one for one in children if Path(f"/proc/{one}").exists()]


def descendants(process: int) -> list[int]:
    return [one.number for one in tree(process) if one.number != process]


# --- the page --------------------------------------------------------------------------------------------------------


def figures(costs: Costs) -> Figures:
    """Figures that miss what can be missed."""
    whole = Whole(
        seconds=31.0,
        first_outcome=7.0,
        status=1,
        valid=30,
        refused=1,
        outcomes={"pass": 10, "fail": 1},
        workers=2,
        cores=2,
        taken=Taken(),
    )
    return Figures(
        family="toy",
        adapter="mine",
        narrowed="",
        versions={"python": "3"},
        startup=StartUp(imports=(3.0, 4.0, 5.0), first_outcome=7.0),
        whole=whole,
        costs=costs,
    )


@pytest.fixture
def costs(made_run, spec) -> Costs:
    return of_runs([Stratum(cases=(spec,), of=4)], [made_run(2.0)], [made_run(2.0, verdict="fail")])


def shown(figures: Figures, **options: Any) -> str:
    console = QuietConsole(file=io.StringIO(), width=120, markup=False, highlight=False, emoji=False)
    page.show(figures, console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_missed_and_what_is_not_measured_is_said(costs: Costs) -> None:
    found = shown(figures(costs))
    assert "3.00 s  the harness on top of them (target 2 s: MISSED)" in found
    assert "31.00 s  wall time (target 30 s: MISSED)" in found
    assert "inside the models (target 70%: met)" in found
    assert "not measured here  memory at most, of all its processes together\n" in found
    assert "0.50  cases per second and core (2 workers, 30 valid cases, 1 refused)" in found
    assert "VERDICTS DIFFER" in found


def test_a_narrower_run_is_held_against_no_time_for_the_matrix(costs: Costs) -> None:
    narrow = replace(figures(costs), narrowed="--where bias=true")
    assert narrow.met == {"start": False, "matrix": None, "share": True, "memory": None}
    assert "target 30 s" not in shown(narrow)


def test_all_checks_are_shown_on_request(costs: Costs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_CHECKS", 1)
    short, long = shown(figures(costs)), shown(figures(costs), every_check=True)
    assert "b.two" in short
    assert "a.one" not in short
    assert "… 1 more check " in short
    assert "a.one" in long
    assert "more check" not in long


def test_curves_are_told_in_a_word(costs: Costs) -> None:
    points = tuple(Point(size=size, seconds=size + size**2.0, models=size, gating=size == 4) for size in (1, 2, 4))
    curves = (Curve(axis="layers", points=points), Curve(axis="width", left_out="the family does not say"))
    found = shown(replace(figures(costs), curves=curves))
    assert "GROWS: worse than linear in what the models cost" in found
    assert "1 outcome on the way did not conform." in found
    assert "Left out: the family does not say." in found
    json.dumps(replace(figures(costs), curves=curves).to_json())
