"""A family without a predicate: Hugging Face says what it refuses, at every door, and only once."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from asked_llama import AskedLlama, ForwardAdapter
from llama_family import CORNERS, DIMS, FLAGS, PRESETS, LlamaFamily
from transformers.models.llama import modeling_llama

from verifier import checks, cli, family, record
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec
from verifier.checks.late_refusal import find_late_refusal
from verifier.checks.runner import run_case
from verifier.engine import asking as asking_process
from verifier.engine import events
from verifier.engine.asking import asking_hugging_face
from verifier.engine.plan import Plan
from verifier.engine.run import run
from verifier.errors import Unrunnable
from verifier.family import RefusesConfigs
from verifier.judging.outcome import Outcome, Verdict
from verifier.observing.case import Case
from verifier.reference import asking
from verifier.reference.acceptance import answered_by, ask_here, look_up, refusal_of
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

REFERENCE, ADAPTER = "asked_llama:AskedLlama", "asked_llama:ForwardAdapter"
HERE = Path(__file__).parent
ASKED, LLAMA = AskedLlama(), LlamaFamily()
PRODUCT = [dict(zip(FLAGS, values, strict=True)) for values in itertools.product(*FLAGS.values())]
REFUSED: Mapping[str, Any] = {**DIMS, "num_key_value_heads": 5}  # HF builds it, and does not run it


@pytest.fixture(autouse=True)
def kept(answers: Path) -> Path:
    return answers


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """The configs of which a model is built, to ask about it, in this process."""
    asked: list[Mapping[str, Any]] = []

    def ask(described: Any, config: Mapping[str, Any]) -> Acceptance:
        asked.append(config)
        return real(described, config)

    real = asking._ask
    monkeypatch.setattr(asking, "_ask", ask)
    return asked


def case(**more: Any) -> CaseSpec:
    return CaseSpec(family=REFERENCE, **{"config": REFUSED, "dtypes": (), **more})


def outcomes(spec: CaseSpec, *only: str, of: Any = ASKED) -> dict[str, Outcome]:
    return {one.check: one for one in run_case(spec, of, ForwardAdapter(), checks.select(only))}


# --- asking ----------------------------------------------------------------------------------------------------------


def test_it_is_a_family_that_says_nothing_of_refusals() -> None:
    assert family.is_family(ASKED)
    assert not isinstance(ASKED, RefusesConfigs)
    assert isinstance(LLAMA, RefusesConfigs)


def test_hugging_face_refuses_what_the_predicate_says() -> None:
    configs = [{**DIMS, **config} for config in (*PRODUCT, *CORNERS.values())]
    found = {str(config): (asking.ask(ASKED, config), LLAMA.refusal(config)) for config in configs}
    assert all(answer.known for answer, _ in found.values())
    assert [config for config, (answer, ours) in found.items() if (answer.reason is None) is not (ours is None)] == []
    assert sum(ours is not None for _, ours in found.values()) >= 10


def test_a_predicate_is_asked_and_hugging_face_is_not(questions: list[Any]) -> None:
    for config in CORNERS.values():
        whole = {**DIMS, **config}
        assert refusal_of(LLAMA, asks=True)(whole) == LLAMA.refusal(whole)
    assert questions == []


def test_it_is_asked_once(questions: list[Any]) -> None:
    for _ in range(2):
        assert "must divide" in str(asking.ask(ASKED, REFUSED).reason)
        forget_answers()
    assert questions == [REFUSED]


def test_the_random_generators_are_where_they_were() -> None:
    before = torch.random.get_rng_state()
    asking.ask(ASKED, REFUSED)
    asking.ask(ASKED, DIMS)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "config", [PRESETS["tinyllama-1.1b"], {"num_hidden_layers": 5000}, {"num_hidden_layers": None, "vocab_size": 2**30}]
)
def test_no_large_model_is_built_only_to_ask(config: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    monkeypatch.setattr(AskedLlama, "build", lambda *given, **more: built.append(1))
    assert asking.ask(ASKED, {**DIMS, **config}) == UNKNOWN
    assert built == []


@pytest.mark.parametrize("error", [Unrunnable("no room"), TypeError("a slip")])
def test_what_the_family_raises_is_no_answer(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*given: Any, **more: Any) -> Any:
        raise error

    monkeypatch.setattr(AskedLlama, "build", build)
    assert asking.ask(ASKED, DIMS) == UNKNOWN
    assert find_answer(asked_by(ASKED), DIMS) == UNKNOWN


def test_what_a_patched_hugging_face_says_is_not_kept_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "changed_since_first", lambda described: ["LlamaAttention.forward"])
    assert asking.ask(ASKED, REFUSED).reason is not None
    forget_answers()
    assert find_answer(asked_by(ASKED), REFUSED) == UNKNOWN


def test_a_family_is_looked_up_and_not_asked_unless_somebody_answers(questions: list[Any]) -> None:
    assert look_up(ASKED, REFUSED) == UNKNOWN
    assert refusal_of(ASKED)(REFUSED) is None
    assert questions == []
    with answered_by(ask_here):
        assert look_up(ASKED, REFUSED).reason is not None
    assert refusal_of(ASKED)(REFUSED) is not None  # it is kept
    assert refusal_of(ASKED, asks=True)(DIMS) is None
    assert look_up(ASKED, DIMS) == ACCEPTED


# --- planning --------------------------------------------------------------------------------------------------------

NO_TORCH = """
import sys

from verifier import cli, family
from verifier.cases import matrix
specs = matrix.cases(family.load("asked_llama:AskedLlama"), "asked_llama:AskedLlama")
print(sum(spec.valid for spec in specs), len(specs), file=sys.stderr)
assert cli.main(["list", "hooks", "asked_llama:AskedLlama"]) == 0
import pytest
words = ["--collect-only", "-q", "-p", "no:cacheprovider", "--verifier-family", "asked_llama:AskedLlama"]
assert pytest.main([*words, "--verifier-adapter", "asked_llama:ForwardAdapter", "--verifier-quick"]) == 0
assert not {"torch", "transformers"} & sys.modules.keys()
"""


def in_a_folder(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder without tests, from which the family is found."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={**os.environ, "COLUMNS": "300", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def plan_without_torch(folder: Path) -> tuple[str, str]:
    """Plan, list and collect in a process that may not import torch: counts of cases, and what was printed."""
    ended = in_a_folder(folder, "-c", NO_TORCH)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr
    return ended.stderr.splitlines()[0], ended.stdout


def test_planning_listing_and_collecting_import_no_torch(tmp_path: Path) -> None:
    cases, said = plan_without_torch(tmp_path)
    assert cases == "86 86"
    assert "refused+" not in said
    with answered_by(ask_here):
        matrix.cases(ASKED, REFERENCE)
    cases, said = plan_without_torch(tmp_path)
    assert cases == "76 86"
    assert "refused+kv-heads-zero" in said


@pytest.mark.slow
def test_the_cases_are_those_of_a_predicate() -> None:
    with answered_by(ask_here):
        asked = matrix.cases(ASKED, REFERENCE)
    told = matrix.cases(LLAMA, REFERENCE)
    assert [replace(spec, reason=None) for spec in asked] == [replace(spec, reason=None) for spec in told]


# --- a process that asks ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def from_here() -> Iterator[None]:
    sys.path.insert(0, str(HERE))
    try:
        yield
    finally:
        sys.path.remove(str(HERE))


def test_a_process_is_asked_for_one_without_torch(questions: list[Any]) -> None:
    with from_here(), asking_hugging_face(REFERENCE):
        assert "must divide" in str(look_up(ASKED, REFUSED).reason)
        assert look_up(ASKED, DIMS) == ACCEPTED
        assert look_up(ASKED, {**DIMS, **PRESETS["tinyllama-1.1b"]}) == UNKNOWN
    assert questions == []
    forget_answers()
    assert look_up(ASKED, REFUSED).reason is not None


DEADLY = """
import os
from asked_llama import AskedLlama

class Deadly(AskedLlama):
    def build(self, config, **how):
        if config["num_hidden_layers"] == 1:
            os._exit(7)
        return super().build(config, **how)
"""


@pytest.mark.slow
def test_a_config_that_kills_it_stays_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly_llama.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(tmp_path))
    with from_here(), asking_hugging_face("deadly_llama:Deadly"):
        assert look_up(ASKED, {**DIMS, "num_hidden_layers": 1}) == UNKNOWN
        assert look_up(ASKED, DIMS) == ACCEPTED


@pytest.mark.slow
def test_it_is_not_started_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []
    real = asking_process._Asker._start
    monkeypatch.setattr(asking_process._Asker, "_start", lambda asker: starts.append(1) or real(asker))
    monkeypatch.setattr(asking_process, "MOST_DEATHS", 1)
    with asking_hugging_face("no_such_module:Family"):
        for width in range(4):
            assert look_up(ASKED, {**DIMS, "hidden_size": width}) == UNKNOWN
    assert starts == [1]


def test_no_process_is_started_for_a_predicate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_process._Asker, "_start", lambda asker: pytest.fail("it was started"))
    with asking_hugging_face("llama_family:LlamaFamily"):
        assert len(matrix.cases(LLAMA, "llama_family:LlamaFamily")) == 86


# --- a case that is found to be refused as it runs -------------------------------------------------------------------

ONLY = ("reference.acceptance", "build.adapter", "build.refusal", "forward.logits")


def refused_as_it_should_be(found: Mapping[str, Outcome]) -> bool:
    skipped = [found[check] for check in ("build.adapter", "forward.logits")]
    return (
        all(one.verdict is Verdict.SKIP for one in skipped)
        and all("not applicable: Hugging Face refuses the config: RuntimeError" in str(one.message) for one in skipped)
        and found["reference.acceptance"].verdict is Verdict.PASS
        and found["build.refusal"].verdict is Verdict.PASS
        and len(found) == len(ONLY)
    )


def test_a_case_becomes_refused_when_it_runs(questions: list[Any]) -> None:
    reasons: list[str] = []
    wanted = checks.select(ONLY)
    ran = run_case(case(), ASKED, ForwardAdapter(), wanted, refused=reasons.append)
    assert refused_as_it_should_be({one.check: one for one in ran})
    assert len(reasons) == 1
    assert questions == [REFUSED]
    assert find_answer(asked_by(ASKED), REFUSED).reason == reasons[0]
    assert refused_as_it_should_be(outcomes(case(), *ONLY))  # it is kept
    assert questions == [REFUSED]


def test_a_large_case_becomes_refused_when_its_own_model_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_WEIGHTS", 0)
    assert refused_as_it_should_be(outcomes(case(), *ONLY))
    assert find_answer(asked_by(ASKED), REFUSED) == UNKNOWN
    assert outcomes(case(config=DIMS), *ONLY)["forward.logits"].verdict is Verdict.PASS


def test_a_model_without_room_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_WEIGHTS", 0)
    for error, refuses in ((torch.OutOfMemoryError("CUDA out of memory"), False), (ValueError("no"), True)):
        monkeypatch.setattr(modeling_llama.LlamaModel, "forward", Mock(side_effect=error))
        found = find_late_refusal(Case(case(config=DIMS), ASKED, ForwardAdapter()))
        assert (found is not None) is refuses


def test_an_accepted_case_runs_as_ever(questions: list[Any]) -> None:
    found = outcomes(case(config=DIMS), *ONLY)
    assert {check: one.verdict for check, one in found.items()} == {
        "reference.acceptance": Verdict.PASS,
        "build.adapter": Verdict.PASS,
        "forward.logits": Verdict.PASS,
    }


def test_a_stale_answer_is_told() -> None:
    keep_answer(asked_by(ASKED), REFUSED, ACCEPTED)
    found = outcomes(case(), "reference.acceptance", "forward.logits")
    assert found["reference.acceptance"].verdict is Verdict.FAIL
    assert found["reference.acceptance"].where == "accepted when asked"
    assert "HF refuses it: RuntimeError" in str(found["reference.acceptance"].message)
    assert "remove the file, and HF is asked again" in str(found["reference.acceptance"].message)
    assert str(answers_file(asked_by(ASKED))) in str(found["reference.acceptance"].message)
    assert found["forward.logits"].verdict is Verdict.SKIP
    found = outcomes(case(config=DIMS, valid=False, reason="once"), "reference.acceptance")
    assert found["reference.acceptance"].where == "refused when asked"
    assert "HF accepts it, but it was refused: once" in str(found["reference.acceptance"].message)


def test_a_wrong_predicate_is_told_as_ever() -> None:
    found = outcomes(case(), "reference.acceptance", of=LLAMA)
    assert found["reference.acceptance"].where == "accepted by the family"
    assert "asked" not in str(found["reference.acceptance"].message)


# --- at each door ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_coordinator_is_told_that_a_case_is_refused() -> None:
    with from_here():
        plan = Plan(family=REFERENCE, adapter=ADAPTER, specs=(case(), case(config=DIMS)), only=ONLY)
        seen = list(run(plan, workers=1))
    refused = [event for event in seen if isinstance(event, events.CaseRefused)]
    assert [(event.case, "must divide" in event.reason) for event in refused] == [(case().id, True)]
    own = [event for event in seen if getattr(event, "case", None) == case().id]
    assert isinstance(own[0], events.CaseRefused)
    assert refused_as_it_should_be(
        {one.outcome.check: one.outcome for one in own if isinstance(one, events.OutcomeReady)}
    )


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(HERE)

    def start(*words: object) -> tuple[int, str]:
        said = io.StringIO()
        with from_here(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return cli.main([str(word) for word in words]), said.getvalue()

    return start


def test_a_run_asks_before_it_plans(command: Callable[..., Any], tmp_path: Path) -> None:
    only = [word for check in ONLY for word in ("--only", check)]
    words = ["run", REFERENCE, "--adapter", ADAPTER, "--quick", "--workers", 1, *only, "--out", tmp_path / "out"]
    status, said = command(*words)
    assert status == 0, said
    read = record.read(tmp_path / "out" / record.FILE)
    refused = [spec for spec in read.cases.values() if not spec.valid]
    assert read.run.planned == {"valid": 15, "refused": 10}
    assert len(refused) == 10
    assert all(LLAMA.refusal(spec.config) for spec in refused)
    assert not any("Hugging Face refuses the config" in str(one.outcome.message) for one in read.entries)


@pytest.mark.slow
def test_a_campaign_asks_as_it_draws(command: Callable[..., Any], questions: list[Any], tmp_path: Path) -> None:
    words = ["fuzz", REFERENCE, "--adapter", ADAPTER, "--max-examples", 6, "--workers", 2, "--only", "forward.logits"]
    status, said = command(*words, "--out", tmp_path / "out")
    assert status == 0, said
    assert questions == []
    read = record.read(tmp_path / "out" / record.FILE)
    assert all(look_up(ASKED, spec.config) == ACCEPTED for spec in read.cases.values())


def test_collected_as_valid_a_case_is_skipped_when_it_is_refused(tmp_path: Path) -> None:
    words: Sequence[object] = [
        *("-q", "-rs", "-p", "no:cacheprovider", "--verifier-family", REFERENCE, "--verifier-adapter", ADAPTER),
        *("--verifier-only", "forward.logits", "--verifier-where", "num_key_value_heads=5"),
        *("--verifier-out", tmp_path / "out"),
    ]
    ended = in_a_folder(tmp_path, "-m", "pytest", *words)
    assert "Hugging Face refuses the config: RuntimeError" in ended.stdout, ended.stdout + ended.stderr
    assert "failed" not in ended.stdout
    (read,) = (record.read(file) for file in (tmp_path / "out").rglob(record.FILE))
    (spec,) = read.cases.values()
    assert (spec.valid, "must divide" in str(spec.reason)) == (False, True)
