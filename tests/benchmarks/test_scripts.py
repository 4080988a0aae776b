"""The benchmarks' own logic, and each of them on something tiny."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import against
import case_costs
import generated as generated_script
import growth
import matrix as matrix_script
import processes
import pytest
import quick as quick_script
import same_records

from verifier import family
from verifier.cases import matrix

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ONLY = ("build.adapter", "hooks.values", "hooks.removed")  # none of which needs a circumstance
FEW = "new_decoder_architecture=true,alibi=true,bias=true,parallel_attn=true,num_kv_heads=4,multi_query=true"


def only() -> list[str]:
    return [word for check in ONLY for word in ("--only", check)]


def python(*arguments: str) -> str:
    """What a process of its own prints: a clock on the models is nothing for one that runs other tests."""
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def script(name: str, *arguments: str) -> str:
    return python(str(BENCHMARKS / name), *arguments)


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_program_is_measured_with_its_children() -> None:
    child = "import time; x = bytearray(80_000_000); time.sleep(0.8)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    usage = processes.run([sys.executable, "-c", parent])
    assert usage.bytes > 80_000_000
    assert usage.seconds > 0.8
    assert len(usage.cpu) == 2


def test_a_program_that_fails_is_told_with_its_last_line() -> None:
    with pytest.raises(processes.Failed, match=r"ended with status 3: it broke$"):
        processes.run([sys.executable, "-c", "import sys; print('it broke', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(processes.Failed, match="cannot be started"):
        processes.run(["/no/such/program"])


def test_a_program_is_ended_with_its_children_when_it_has_shown_enough(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(100)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    usage = processes.run([sys.executable, "-c", parent], until=lambda: mark.exists() and mark.read_text() != "")
    assert usage.seconds < 50
    deadline = time.monotonic() + 10
    while processes.process_tree(int(mark.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not processes.process_tree(int(mark.read_text()))


# --- same_records ----------------------------------------------------------------------------------------------------


def write_record(path: Path, **changed: object) -> Path:
    outcomes = [{"kind": "outcome", "case": "c1", "check": f"area.{n}", "verdict": "pass", "bound": n} for n in (1, 2)]
    outcomes[1].update(changed)
    path.parent.mkdir(exist_ok=True)
    lines = [{"kind": "run"}, {"kind": "case", "case": "c1"}, *outcomes, {"kind": "end"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("folders", [False, True])
def test_equal_records_are_the_same(tmp_path: Path, folders: bool, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = (write_record(tmp_path / name / "record.jsonl", seconds=name) for name in ("before", "after"))
    places = [before.parent, after.parent] if folders else [before, after]
    assert same_records.main([str(place) for place in places]) == 0
    assert capsys.readouterr().out == "2 outcomes compared, 0 differ or are in one alone\n"


@pytest.mark.parametrize("changed", [{"verdict": "fail"}, {"where": "x"}, {"measured": 1e-9}, {"bound": 3}])
def test_each_difference_counts(tmp_path: Path, changed: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    before, after = write_record(tmp_path / "a.jsonl"), write_record(tmp_path / "b.jsonl", **changed)
    assert same_records.main([str(before), str(after)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("2 outcomes compared, 1 differ")
    assert "c1 area.2\n" in said


def test_what_is_in_one_record_alone_differs_and_nothing_is_not_the_same(tmp_path: Path) -> None:
    before, after = write_record(tmp_path / "a.jsonl"), write_record(tmp_path / "b.jsonl", check="area.3")
    assert same_records.main([str(before), str(after)]) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert same_records.main([str(empty), str(empty)]) == 1


# --- growth ----------------------------------------------------------------------------------------------------------

SIZES = (1, 2, 4, 8, 16)


@pytest.mark.parametrize(("rest", "word"), [(1.5, "GROWS"), (0.5, "falls"), (1.0, "holds")])
def test_the_word_follows_from_the_slopes(rest: float, word: str) -> None:
    points = [
        growth.Point(size=size, seconds=3 * size + size**rest * (1 + 0.1 * (-1) ** number), models=3 * size)
        for number, size in enumerate(SIZES)
    ]
    assert growth.judge_growth(points).startswith(word)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
def test_the_exponent_of_a_power_law_is_found(exponent: float) -> None:
    found, error = growth.fit_exponent(SIZES, [7 * size**exponent for size in SIZES])
    assert found == pytest.approx(exponent, abs=1e-9)
    assert error == pytest.approx(0, abs=1e-6)


def test_a_config_grows_along_its_axis_alone() -> None:
    for axis, ladder in growth.grow_cases().items():
        first, *others = ladder.values()
        assert list(ladder) == [next(iter(ladder)) * factor for factor in SIZES]
        for spec in others:
            changed = {name for name, value in spec.config.items() if value != first.config[name]}
            assert changed == set(growth.GROWING.get(axis, ()))
            assert family.load("falcon").refusal(spec.config) is None


@pytest.mark.nightly
def test_growth_is_measured_at_each_size() -> None:
    said = script("growth.py", *only(), *["--factors", "1", "2", "3", "--counts", "2", "4", "6", "--repeats", "1"])
    heads = [line.split()[0] for line in said.splitlines() if line.endswith("rest over them")]
    assert heads == [*growth.GROWING, "positions", "cases"]
    assert said.count("What is not inside the models") == 4


# --- quick -----------------------------------------------------------------------------------------------------------


def test_a_quick_run_plans_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    quick_script.main(["falcon"])
    table = read_table(capsys.readouterr().out)
    quick, whole = ({name: values[place] for name, values in table.items()} for place in (0, 1))
    assert (quick["valid cases"], whole["valid cases"]) == (20, 243)
    assert quick["outcomes"] / whole["outcomes"] == pytest.approx(1 / 10, rel=0.1)
    assert quick["their cost"] / whole["their cost"] == pytest.approx(0.24, rel=0.03)


def test_options_of_a_run_need_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quick_script.main(["falcon", "--only", "qkv"])
    assert "--only qkv: options of a run need --run" in capsys.readouterr().err


# One case of a quick run, and three of the whole matrix.
IN_BOTH = "new_decoder_architecture=true,multi_query=true,alibi=false,bias=false,parallel_attn=true,num_kv_heads=4"


@pytest.mark.slow
def test_a_quick_and_a_whole_run_are_timed() -> None:
    said = script("quick.py", "falcon", "--run", "--where", IN_BOTH, "--only", ONLY[0])
    table = read_table(said)
    assert min(table["seconds"]) > 0
    assert table["found"] == [0, 0]


def test_what_the_whole_run_alone_finds_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both, alone = ("qkv.rows", "split.q"), ("hooks.shown", "hook_z")
    found = {True: {both: ""}, False: {both: "when mask is left", alone: "when dtype is bfloat16"}}
    monkeypatch.setattr(quick_script, "measured", lambda *_, quick: (1.0, found[quick]))
    quick_script.main(["falcon", "--run"])
    said = capsys.readouterr().out
    assert "only the whole run: hooks.shown at hook_z when dtype is bfloat16" in said
    assert "qkv.rows" not in said


def read_table(said: str) -> dict[str, list[float]]:
    rows = (re.fullmatch(r"(\D+?) +([\d,.]+) +([\d,.]+) +(?:[\d.]+%|–)", line) for line in said.splitlines())
    return {row[1]: [float(row[place].replace(",", "")) for place in (2, 3)] for row in rows if row}


# --- case_costs ------------------------------------------------------------------------------------------------------


def test_a_sample_stands_for_the_matrix() -> None:
    specs = matrix.cases(family.load("falcon"), "falcon")
    sample = case_costs.sample_cases(specs, 12)
    assert round(sum(weight for _, weight in sample), 6) == sum(spec.valid for spec in specs)
    assert {spec.depth for spec, _ in sample} == {spec.depth for spec in specs}
    assert all(spec.valid for spec, _ in sample)


def test_only_the_outermost_call_counts() -> None:
    clock = case_costs.ModelClock()
    inner = clock.timed(lambda: time.sleep(0.01), "inner")
    clock.timed(inner, "outer")()
    assert dict(clock.calls) == {"outer": 1}
    assert clock.total >= 0.01


OUTCOMES = """
import json, sys
sys.path.insert(0, {folder!r})
import case_costs
from verifier import family
from verifier.cases import matrix
from verifier.checks.runner import run_case
from verifier.engine.loading import load
from verifier.engine.plan import Plan
spec = next(spec for spec in matrix.cases(family.load("falcon"), "falcon") if spec.is_sampled)
def outcomes(what):
    run = run_case(spec, what.family, what.adapter, what.checks)
    return [(one.check, one.verdict, one.measured, one.bound) for one in run]
def loading():
    return load(Plan(family="falcon", adapter="bridge", specs=(), only={only!r}))
if {clocked}:
    with case_costs.clocked(loading) as (loaded, clock):
        found = outcomes(loaded)
else:
    found = outcomes(loading())
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_case_has_the_outcomes_that_it_has_without_the_clock() -> None:
    found = [
        json.loads(python("-c", OUTCOMES.format(folder=str(BENCHMARKS), only=ONLY, clocked=clocked)))
        for clocked in (True, False)
    ]
    assert found[0] == found[1]
    assert {check: verdict for check, verdict, *_ in found[0]} == dict.fromkeys(ONLY, "pass")


@pytest.mark.slow
def test_the_mean_case_is_printed() -> None:
    said = script("case_costs.py", "falcon", *only(), "--cases", "2")
    assert "of it inside the models" in said
    for kind in ("builds", "wraps", "modules", "subjects", "backwards"):
        (line,) = [line for line in said.splitlines() if line.split()[:1] == [kind]]
        assert float(line.split()[1]) > 0
    assert all(check in said for check in ONLY)


# --- matrix and against ----------------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize("fuzzed", [[], ["--fuzz", "4"]])
def test_a_run_is_measured(fuzzed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    matrix_script.main(["falcon", *fuzzed, *only(), "--where", FEW, "--workers", "1"])
    said = capsys.readouterr().out
    assert "times a bare import of torch" in said
    assert f"of {4 if fuzzed else 3} cases" in said
    assert "MiB  memory at most" in said
    assert all(check in said for check in ONLY)


@pytest.mark.nightly  # three minutes
def test_the_generated_self_test_is_timed_beside_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    assert generated_script.main(["falcon", "--quick"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1:3]] == ["seconds", "CPU"]
    assert said[-1].endswith(": none survived")


def test_the_path_of_the_cases_stands_where_it_is_asked_for() -> None:
    cases = Path("/f")
    assert against.fill_command("other --x={cases} {cases}", cases) == ["other", "--x=/f", "/f"]
    assert against.fill_command("other 'a b'", cases) == ["other", "a b", "/f"]


@pytest.mark.slow
def test_another_program_is_timed_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.py"
    other.write_text("import sys; assert len(open(sys.argv[1]).readlines()) == 2")
    command = shlex.join([sys.executable, str(other)])
    against.main(["falcon", "--command", command, "--cases", "2", "--turns", "1", "--only", "build.adapter"])
    assert "2 cases, median of 1 turns" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not (against.ROOT / ".git").exists(), reason="not a checkout")
def test_another_commit_is_timed_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    against.main(["falcon", "--commit", "HEAD", "--cases", "1", "--turns", "1", "--only", "build.adapter"])
    assert "ours over theirs: " in capsys.readouterr().out
