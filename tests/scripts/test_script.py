"""Failures as files that stand alone: each kind is run as its reader runs it, and fails as long as it should."""

from __future__ import annotations

import ast
import importlib.util
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verifier import family, scripts
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.families.falcon_configs import DIMS
from verifier.judging import numerics
from verifier.judging.outcome import Outcome, Verdict
from verifier.record import RunLine
from verifier.scripts.templating import WIDTH

needs_lens = pytest.mark.skipif(
    importlib.util.find_spec("transformer_lens") is None, reason="transformer_lens is not installed"
)
PLAIN: dict[str, Any] = {**DIMS, "multi_query": True}
ALIBI: dict[str, Any] = {**PLAIN, "alibi": True, "bias": True}
GROUPED: dict[str, Any] = {**DIMS, "new_decoder_architecture": True, "multi_query": False, "num_kv_heads": 4}
ONE_NORM: dict[str, Any] = {**GROUPED, "num_ln_in_parallel_attn": 1}
LINES = 70

# What ends strings, comments and lines, in Python's eyes and in others', or declares an encoding.
HOSTILE = (
    "coding: rot13\n\"\"\"'''\nraise SystemExit(9)\r\nraise SystemExit(9)\x0craise\u2028raise {1/0} \\\n"
    "%s \x00\x1b[2J \ud800 \u202e # fmt: off\\"
)

Write = Callable[..., scripts.Script]


def of(
    check: str, config: dict[str, Any], adapter: str = "bridge", *, test: bool = False, **said: Any
) -> scripts.Script:
    """The file for a failure made up by hand."""
    case = {name: said.pop(name) for name in list(said) if name in CaseSpec.__dataclass_fields__}
    spec = CaseSpec(family="falcon", config=config, **case)
    outcome = Outcome(**{"check": check, "verdict": Verdict.FAIL, "message": "off by 1.0e+00 (rms)", **said})
    return scripts.write(spec, adapter, [outcome], _run(adapter), pytest=test)


def _run(adapter: str, text: str = "1.0") -> RunLine:
    return RunLine(
        family="falcon",
        adapter=adapter,
        adapter_name=adapter,
        adapter_version=text,
        versions={"torch": text, "transformers": text},
        seed=0,
        started=text,
        flags={},
        dims={},
        checks=(),
        planned={},
        asked={},
        workers=1,
    )


def ran(path: Path, *before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *before, str(path)],
        cwd=path.parent,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Writes the file of a failure."""

    def write(found: scripts.Script, name: str = "shown.py") -> Path:
        (tmp_path / name).write_text(found.source, encoding="utf-8")
        return tmp_path / name

    return write


def executed(path: Path) -> None:
    """Run it in this process, which has everything imported."""
    runpy.run_path(str(path), run_name="__main__")


# --- each kind, in a process of its own ------------------------------------------------------------------------------


@pytest.mark.slow
@needs_lens
def test_wrong_logits_are_shown_without_the_harness(put):
    found = of("forward.logits", ALIBI, "transformer-lens")
    assert found.why_harness is None
    assert "verifier" not in found.source
    ended = ran(put(found))
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("farthest off at [batch, pos, vocab] = [")
    assert lines[1].startswith("Hugging Face ")
    assert ", adapter " in lines[1]
    assert lines[2].startswith("rms difference 0.")
    assert ended.stderr.endswith("AssertionError: the adapter's logits are not Hugging Face's\n")


@pytest.mark.slow
@needs_lens
def test_a_model_that_cannot_be_wrapped_is_shown_without_the_harness(put):
    found = of("build.adapter", ONE_NORM, "transformer-lens", verdict=Verdict.ERROR, exception="AttributeError")
    assert found.why_harness is None
    ended = ran(put(found))
    assert ended.returncode == 1
    assert ended.stdout.startswith("Hugging Face runs it: logits [5, 11, 89], rms ")
    assert "AttributeError: 'FalconDecoderLayer' object has no attribute 'ln_attn'" in ended.stderr


@pytest.mark.slow
@needs_lens
def test_a_test_fails_under_pytest(put):
    found = of("forward.outputs", GROUPED, "transformer-lens", test=True, **LEFT)
    ended = ran(put(found, "test_shown.py"), "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert ended.returncode == 1
    assert "rms difference" in ended.stdout
    assert "FAILED test_shown.py::test_forward_outputs" in ended.stdout


@pytest.mark.slow
def test_where_the_adapter_is_right_the_file_ends_well(put):
    ended = ran(put(of("forward.logits", ALIBI)))
    assert ended.returncode == 0, ended.stderr
    assert "rms difference" in ended.stdout


@pytest.mark.slow
@needs_lens
@pytest.mark.parametrize(("adapter", "status"), [("bridge", 0), ("transformer-lens", 1)])
def test_what_only_the_check_can_say_runs_the_check(put, adapter, status):
    found = of("qkv.rows", GROUPED, adapter)
    assert found.why_harness == "what qkv.rows proves is more than a comparison of logits"
    assert "\n# Needs `verifier` (pip install adapter-verifier): " in found.source
    ended = ran(put(found))
    assert ended.returncode == status, ended.stderr
    assert ended.stdout.startswith("qkv.rows fail blocks.0.attn.q.weight " if status else "qkv.rows pass None")


# --- every check that can stand alone --------------------------------------------------------------------------------


def in_circumstance(**circumstance: str) -> dict[str, Any]:
    return {"circumstance": {axis: (value,) for axis, value in circumstance.items()}, "measured": 1.0}


LEFT, ONE_TOKEN = in_circumstance(mask="left"), in_circumstance(length="one")
LOGITS = [
    ("forward.logits", {}),
    ("forward.outputs", LEFT),
    ("forward.outputs", in_circumstance(mask="right")),
    ("forward.outputs", in_circumstance(mask="gaps")),
    ("forward.outputs", in_circumstance(mask="mixed")),
    ("forward.outputs", ONE_TOKEN),
    ("forward.outputs", in_circumstance(length="long")),
    ("forward.outputs", in_circumstance(mask="ones", positions="given")),
    ("forward.outputs", in_circumstance(mask="left", positions="given")),
    ("forward.outputs", in_circumstance(tokens="embeddings")),
]
ALONE = [("build.adapter", {"verdict": Verdict.ERROR}), ("build.forward", {}), *LOGITS]


@pytest.mark.slow
@pytest.mark.parametrize(("check", "said"), ALONE)
def test_a_right_adapter_passes(put, check, said):
    """On a model that is as intricate as one of the family can be."""
    found = of(check, {**GROUPED, "alibi": True}, scale=2.0, seed=3, **said)
    assert found.why_harness is None
    executed(put(found))


@pytest.mark.thinned(3)
@needs_lens
# A single token has no distance, of which ALiBi makes a bias.
@pytest.mark.parametrize(("check", "said"), [one for one in LOGITS if one[1] != ONE_TOKEN])
def test_a_wrong_adapter_fails(put, check, said):
    with pytest.raises(AssertionError, match="the adapter's logits are not Hugging Face's"):
        executed(put(of(check, ALIBI, "transformer-lens", **said)))


def test_the_length_that_failed_is_shown():
    assert "(1, 97)" in of("forward.outputs", PLAIN, **in_circumstance(length="long")).source
    assert "(5, 1)" in of("forward.outputs", PLAIN, **in_circumstance(length="one")).source


@pytest.mark.parametrize(
    "said", [in_circumstance(dtype="bfloat16"), in_circumstance(mask="left", past="token"), {**LEFT, "measured": None}]
)
def test_a_circumstance_of_more_than_a_few_lines_needs_the_harness(said):
    found = of("forward.outputs", PLAIN, **said)
    assert found.why_harness == "it makes the circumstance in which both models are looked at"


def test_the_adapter_is_given_the_attention_that_it_was_given(put):
    found = of("forward.logits", PLAIN, attention="eager")
    assert 'model, reference = build(attention="eager"), build()' in found.source
    executed(put(found))


@pytest.mark.slow
@needs_lens
def test_files_are_short_and_formatted(put):
    ruff = Path(sys.executable).with_name("ruff")
    for check, said in ALONE:
        found = of(check, PLAIN, "transformer-lens", **said)
        path = put(found, f"{check}.py")
        assert len(found.source.splitlines()) < LINES + 10 * check.endswith("position_ids"), check
        assert max(map(len, found.source.splitlines())) <= WIDTH
    for config, point in HOOKS:
        found = of("hooks.values", config, "transformer-lens", where=point)
        put(found, f"{point}-{len(config)}.py")
        assert len(found.source.splitlines()) < LINES + 12
        assert max(map(len, found.source.splitlines())) <= WIDTH
    put(of("qkv.rows", {**PLAIN, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}), "check.py")
    put(of("qkv.rows", PLAIN, test=True), "test_check.py")
    if not ruff.exists():
        pytest.skip("ruff is not installed")
    said = subprocess.run([ruff, "format", "--isolated", "--diff", path.parent], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_the_margin_is_the_checks_own():
    assert f"wrong <= {numerics.SEMANTICS_MARGIN} * rounding" in of("forward.logits", PLAIN).source


# --- what a hook shows -----------------------------------------------------------------------------------------------

SEQUENTIAL: dict[str, Any] = {**DIMS, "multi_query": False, "parallel_attn": False, "bias": True}
NEXT_HEADS = "scripted_adapters:NextHeadsAdapter"
Z = "blocks.1.attn.hook_z"


def points_of(config: dict[str, Any]) -> list[str]:
    """The points outside the blocks and in the last of them that have a line of their own."""
    falcon: Any = family.load("falcon")
    names = [point.name for point in falcon.points(config)]
    return [
        name for name in names if not name.startswith("blocks.0.") and falcon.point_source(config, name) is not None
    ]


HOOKS = [(GROUPED, point) for point in points_of(GROUPED)]
HOOKS += [
    (SEQUENTIAL, f"blocks.1.{name}") for name in ("hook_resid_mid", "ln2.hook_scale", "attn.hook_k", "hook_mlp_out")
]


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("config", "point"), HOOKS, ids=lambda one: one if isinstance(one, str) else len(one))
def test_a_right_hook_passes(put, config, point):
    found = of("hooks.values", {**config, "alibi": True}, where=point, scale=2.0, seed=3)
    assert found.why_harness is None
    executed(put(found))


@pytest.mark.slow
@needs_lens
@pytest.mark.parametrize("point", points_of(PLAIN))
def test_a_right_hook_of_another_library_passes(put, point):
    executed(put(of("hooks.values", PLAIN, "transformer-lens", where=point)))


@pytest.mark.slow
@needs_lens
def test_a_wrong_hook_is_shown_without_the_harness(put):
    """In a process of its own, with nothing of the harness in the file."""
    found = of("hooks.values", ALIBI, "transformer-lens", where="blocks.0.hook_attn_out")
    assert found.why_harness is None
    assert "verifier" not in found.source
    ended = ran(put(found))
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("farthest off at [batch, pos, d_model] = [")
    assert lines[1].startswith("Hugging Face ")
    assert lines[2].startswith("rms difference 0.")
    assert ended.stderr.endswith("AssertionError: the adapter's activation is not Hugging Face's\n")


def test_a_wrong_hook_fails(put, capsys):
    found = of("hooks.values", GROUPED, NEXT_HEADS, where=Z)
    with pytest.raises(AssertionError, match="the adapter's activation is not Hugging Face's"):
        executed(put(found))
    assert capsys.readouterr().out.startswith("farthest off at [batch, pos, head, d_head] = [")


def test_beside_a_wrong_hook_the_others_pass(put):
    executed(put(of("hooks.values", GROUPED, NEXT_HEADS, where="blocks.1.hook_attn_out")))


def test_a_hook_of_other_axes_fails(put):
    found = of("hooks.values", GROUPED, NEXT_HEADS, where=Z)
    path = put(found)
    path.write_text(found.source.replace(f'found = activations["{Z}"]', f'found = activations["{Z}"].flatten(-2)'))
    with pytest.raises(AssertionError, match=r"\[5, 11, 72\], not \[5, 11, 12, 6\]"):
        executed(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "adapter", "why"),
    [
        ("blocks.0.attn.hook_pattern", "bridge", "no line of plain torch or of the adapter's library reads blocks.0."),
        ("blocks.9.hook_resid_pre", "bridge", "no line of plain torch or of the adapter's library reads blocks.9."),
        (HOSTILE, "bridge", "no line of plain torch or of the adapter's library reads"),
        (None, "bridge", "no line of plain torch or of the adapter's library reads"),
        (Z, "scripted_adapters:SaysNothingOfHooks", "the adapter does not say how a hook is read without it"),
    ],
)
def test_what_no_line_reads_needs_the_harness(point, adapter, why):
    found = of("hooks.values", PLAIN, adapter, where=point)
    assert found.why_harness is not None
    assert found.why_harness.startswith(why)
    assert found.why_harness.isprintable()
    assert "run_case" in found.source


def test_a_family_that_does_not_say_where_needs_the_harness(monkeypatch):
    class Silent:
        falcon = family.load("falcon")

        def __getattr__(self, name: str) -> Any:
            if name == "point_source":
                raise AttributeError(name)
            return getattr(self.falcon, name)

    silent = Silent()
    monkeypatch.setattr(family, "load", lambda reference: silent)
    found = of("hooks.values", PLAIN, where=Z)
    assert found.why_harness == (
        "the family does not say where its model shows an activation (`verifier.family.ShowsPoints`)"
    )


def test_a_hook_that_raises_needs_the_harness():
    found = of("hooks.values", PLAIN, where=Z, verdict=Verdict.ERROR, exception="RuntimeError")
    assert found.why_harness == "what hooks.values proves is more than a comparison of logits"


# --- what cannot stand alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"check": "forward.logits", "checkpoint": "/somewhere"}, "it is about a checkpoint's weights"),
        ({"check": "build.refusal", "valid": False}, "it is about a config that Hugging Face refuses"),
        ({"check": "build.adapter", "where": "subject"}, "what build.adapter proves is more than"),
        ({"check": "forward.logits", "verdict": Verdict.UPSTREAM}, "it is about Hugging Face, which disagrees"),
    ],
)
def test_why_the_harness_is_needed(given, why):
    found = of(given.pop("check"), PLAIN, **given)
    assert found.why_harness.startswith(why)
    assert "run_case" in found.source


def test_of_several_failures_one_that_can_stand_alone_is_shown():
    spec = CaseSpec(family="falcon", config=PLAIN)
    passed = Outcome(check="forward.logits", verdict=Verdict.PASS)
    failed = [Outcome(check=check, verdict=Verdict.FAIL) for check in ("qkv.rows", "hooks.values", "build.forward")]
    alone = scripts.write(spec, "bridge", [passed, *failed], _run("bridge"), pytest=True)
    assert "def test_build_forward():" in alone.source
    checks = scripts.write(spec, "bridge", [passed, *failed[:2]], _run("bridge"), pytest=False)
    assert 'CHECKS = ["qkv.rows", "hooks.values"]' in checks.source
    nothing_failed = scripts.write(spec, "bridge", [passed], _run("bridge"), pytest=False)
    assert nothing_failed.why_harness is None


# --- text from outside -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("check", ["forward.logits", "qkv.rows"])
@pytest.mark.parametrize("test", [False, True])
def test_no_text_becomes_code(put, check, test):
    spec = CaseSpec(
        family="falcon",
        config={**PLAIN, HOSTILE: HOSTILE, "a_list": [HOSTILE, {HOSTILE: [1.5, None]}]},
        label=HOSTILE,
        reason=HOSTILE,
    )
    texts = dict.fromkeys(("where", "message", "exception", "site", "detail"), HOSTILE)
    outcomes = [Outcome(check=check, verdict=Verdict.ERROR, **texts)]
    found = scripts.write(spec, "bridge", outcomes, _run("bridge", HOSTILE), pytest=test)
    path = put(found)
    tree = ast.parse(path.read_bytes())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    assert HOSTILE in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert functions <= {"build", f"test_{check.replace('.', '_')}" if test else "reproduce"}


def test_the_name_of_a_check_becomes_no_code():
    found = of(HOSTILE, PLAIN, test=True)
    functions = [node.name for node in ast.walk(ast.parse(found.source)) if isinstance(node, ast.FunctionDef)]
    assert [name.startswith("test_coding_rot13") for name in functions] == [True]


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(UsageError, match="a set in a case cannot be written as code"):
        of("forward.logits", {**PLAIN, "eos": {1}})
