"""A case is looked at in its circumstances, and a failure is told in the plainest one that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import KINDS, SPREAD, spec
from torch import Tensor

from verifier import checks
from verifier.adapter import Adapter, Inputs, Modes, Output, Subject
from verifier.cases.circumstances import AXES, PLAIN, Circumstance, complete
from verifier.checks import runner
from verifier.families.falcon import FalconFamily
from verifier.faults.altered_hooks import altered, at, edited_as
from verifier.faults.hooks import switch_stays_on
from verifier.faults.mutants import MutantAdapter, Mutation, replacing
from verifier.judging.outcome import Finding, Outcome, Verdict
from verifier.observing.case import Case
from verifier.observing.circumstances import covering
from verifier.observing.circumstances.row import Row, RowResult, not_resting_on_failures

pytestmark = pytest.mark.thinned(3)

CONFIG = KINDS["two-norms-grouped-rope"]

Judge = Callable[..., Outcome]


@pytest.fixture
def judge(falcon: FalconFamily, bridge: Adapter) -> Judge:
    """Judges an observable of a case in these circumstances: the bridge with a mutation, or without."""

    def run(observable: str, *circumstances: Circumstance, adapter: Adapter | None = None) -> Outcome:
        (check,) = (one for one in checks.registered() if one.id == observable)
        case = Case(spec(CONFIG, circumstances=circumstances), falcon, adapter or bridge)
        outcome, _ = runner.judge(case, check)
        case.close()
        return outcome

    return run


@pytest.fixture
def wrong(bridge: Adapter) -> Callable[[Mutation], Adapter]:
    return lambda mutation: MutantAdapter(bridge, lambda _model: mutation)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Circumstance]:
    """The circumstances that were run, in their order."""
    found: list[Circumstance] = []
    run = covering._run

    def noting(case: Case, circumstance: Circumstance, only: Sequence[str] = (), **how: Any) -> RowResult:
        found.append(circumstance)
        return run(case, circumstance, only, **how)

    monkeypatch.setattr(covering, "_run", noting)
    return found


def off_where(condition: Callable[[Inputs, Output], bool]) -> Mutation:
    """Logits that are off where the function is true of a call."""

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return replace(output, logits=output.logits * 1.5) if condition(inputs, output) else output

    return Mutation(forward=forward)


def is_left(mask: Tensor | None) -> bool:
    """Whether a mask of numbers pads each row on the left, and there alone."""
    if mask is None or mask.ndim != 2 or mask.dtype == torch.bool or bool(mask.all()):
        return False
    return torch.equal(mask, mask.cummax(1).values)


@pytest.mark.parametrize("treated", [value for value in AXES["model"] if value != PLAIN["model"]])
def test_a_model_without_layers_may_be_treated_as_others(falcon: FalconFamily, bridge: Adapter, treated: str) -> None:
    circumstance = complete({"model": treated}, {})
    assert circumstance is not None
    row = Row(spec(SPREAD["no-layers"]), falcon, circumstance).run(bridge)
    assert row.findings
    assert [one for one in {**row.findings, **row.errors} if row.is_wrong(one)] == []


# --- the plainest circumstance ---------------------------------------------------------------------------------------


def test_what_is_wrong_in_half_precision_is_told_for_each_half_dtype_and_for_nothing_else(
    judge: Judge, wrong: Callable[[Mutation], Adapter]
) -> None:
    adapter = wrong(off_where(lambda _, output: output.logits.dtype in (torch.bfloat16, torch.float16)))
    found = judge("forward.outputs", {"dtype": "bfloat16", "mask": "left", "mode": "train"}, adapter=adapter)
    assert found.verdict is Verdict.FAIL
    assert found.where == "logits"
    assert found.circumstance == {"dtype": ("bfloat16", "float16", "mixed")}
    assert (found.message or "").startswith("when dtype is bfloat16 or float16 or mixed: off by")


def test_what_takes_two_values_is_told_with_both(judge: Judge, bridge: Adapter) -> None:
    def mutate(_model: Any) -> Mutation:
        training = {"now": False}

        def train(modes: Modes, mode: bool) -> None:
            training["now"] = mode
            modes.train(mode)

        mutation = off_where(lambda inputs, _: training["now"] and is_left(inputs.attention_mask))
        return replace(mutation, parts={"modes": replacing(train=train)})

    circumstance = {"grad": "grad", "mask": "left", "mode": "train"}
    found = judge("forward.outputs", circumstance, adapter=MutantAdapter(bridge, mutate))
    assert found.circumstance == {"mode": ("train", "dropout"), "mask": ("left",)}
    assert (found.message or "").startswith("when mode is train or dropout and mask is left: ")


def wrong_after(*kinds: Callable[[Inputs], bool]) -> Callable[[Any], Mutation]:
    """Logits that are off once a call of each kind was met, in that order."""

    def mutate(_model: Any) -> Mutation:
        met: list[int] = []

        def follows(inputs: Inputs, _output: Output) -> bool:
            if len(met) == len(kinds):
                return True
            met.extend([1] * kinds[len(met)](inputs))
            return False

        return off_where(follows)

    return mutate


def test_what_takes_two_steps_of_a_history_is_told_with_these(judge: Judge, bridge: Adapter) -> None:
    adapter = MutantAdapter(
        bridge,
        wrong_after(
            lambda one: is_left(one.attention_mask),
            lambda one: one.input_ids is not None and one.input_ids.shape[1] > 60,
        ),
    )
    found = judge("forward.outputs", {"history": "masked+inference+longer", "rows": "one"}, adapter=adapter)
    assert found.circumstance == {"history": ("masked+longer",)}
    assert (found.message or "").startswith("when history is masked+longer: ")
    assert judge("forward.outputs", {"history": "longer+masked"}, adapter=adapter).verdict is Verdict.PASS


@pytest.mark.parametrize("history", ["longer+inference", "inference+edited", "backward+masked"])
def test_what_any_two_calls_spoil_is_one_failure(judge: Judge, bridge: Adapter, history: str) -> None:
    adapter = MutantAdapter(bridge, wrong_after(lambda _given: True, lambda _given: True))
    found = judge("forward.outputs", {"history": history}, adapter=adapter)
    assert found.circumstance == {"history": ("masked+masked",)}


@pytest.mark.parametrize("history", ["nested+interleaved", "interleaved+nested", "edited+raised+backward+generated"])
def test_a_right_adapter_is_right_after_several_steps(judge: Judge, history: str) -> None:
    for observable in ("forward.outputs", "hooks.shown", "intervene.effects"):
        found = judge(observable, {"history": history}, {"history": history, "grad": "grad"})
        assert found.verdict is Verdict.PASS, found


def test_an_exception_is_told_with_its_circumstance(judge: Judge, wrong: Callable[[Mutation], Adapter]) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("not here")
        return subject.forward(inputs)

    adapter = wrong(Mutation(forward=forward))
    found = judge("forward.outputs", {}, {"grad": "inference", "mask": "ones"}, adapter=adapter)
    assert found.verdict is Verdict.ERROR
    assert found.exception == "RuntimeError"
    assert found.circumstance == {"grad": ("inference",)}
    assert found.message == "when grad is inference: RuntimeError: not here"


def test_what_is_wrong_in_the_plainest_circumstance_takes_none(
    judge: Judge, wrong: Callable[[Mutation], Adapter]
) -> None:
    dropped = altered(forward=at("", edited_as(lambda _value, _edited: None)))
    found = judge(
        "intervene.effects",
        {"dtype": "float32", "mask": "left", "grad": "grad", "rows": "one", "tokens": "int32"},
        adapter=wrong(dropped),
    )
    assert found.verdict is Verdict.FAIL
    assert found.circumstance is None
    assert not (found.message or "").startswith("when")


def test_what_an_observable_needs_is_no_part_of_its_circumstance(
    judge: Judge, wrong: Callable[[Mutation], Adapter]
) -> None:
    doubled = altered(backward=at("hook_z", lambda edit: lambda gradient: edit(gradient * 2)))
    found = judge("backward.shown", {"grad": "grad", "mask": "left"}, adapter=wrong(doubled))
    assert found.verdict is Verdict.FAIL
    assert found.circumstance is None


def test_what_another_value_needs_goes_with_it(judge: Judge, wrong: Callable[[Mutation], Adapter]) -> None:
    """Given positions need a mask, and neither has a part in what is wrong here."""
    adapter = wrong(off_where(lambda *_: torch.is_inference_mode_enabled()))
    found = judge("forward.outputs", {"grad": "inference", "mask": "left", "positions": "given"}, adapter=adapter)
    assert found.circumstance == {"grad": ("inference",)}


def test_of_several_circumstances_that_fail_the_plainest_is_told(
    judge: Judge, wrong: Callable[[Mutation], Adapter], rows: list[Circumstance]
) -> None:
    adapter = wrong(off_where(lambda inputs, _: is_left(inputs.attention_mask)))
    circumstances = {"mask": "left", "mode": "train", "rows": "one"}, {"mask": "left"}
    found = judge("forward.outputs", *circumstances, adapter=adapter)
    assert found.circumstance == {"mask": ("left",)}
    assert all(row["mode"] == "eval" and row["rows"] == "several" for row in rows[2:])  # it starts from the plainest


# --- what was found before -------------------------------------------------------------------------------------------


def test_a_known_failure_is_not_minimised_again(
    judge: Judge, wrong: Callable[[Mutation], Adapter], rows: list[Circumstance]
) -> None:
    adapter = wrong(off_where(lambda inputs, _: is_left(inputs.attention_mask)))
    first = judge("forward.outputs", {"mask": "left"}, adapter=adapter)
    assert len(rows) > 1
    rows.clear()
    again = judge("forward.outputs", {"mask": "left", "mode": "train"}, adapter=adapter)
    assert len(rows) == 3  # the row, and the plainest one that has it, in which hooks say where it starts
    assert again.circumstance == first.circumstance == {"mask": ("left",)}


@pytest.mark.slow
def test_a_failure_is_the_same_whatever_circumstance_it_was_met_in_and_whatever_was_met_before(
    judge: Judge, wrong: Callable[[Mutation], Adapter]
) -> None:
    halves = (torch.bfloat16, torch.float16)
    dropped = altered(forward=at("", edited_as(lambda value, edited: None if value.dtype in halves else edited)))
    adapter = wrong(dropped)
    first = judge("intervene.layouts", {"dtype": "bfloat16"}, adapter=adapter)
    assert set(first.circumstance or ()) == {"dtype"}
    met = {"dtype": "mixed", "mask": "left"}
    assert judge("intervene.layouts", met, adapter=adapter).fingerprint == first.fingerprint
    assert judge("intervene.layouts", met, adapter=wrong(dropped)).fingerprint == first.fingerprint


@pytest.mark.slow
def test_what_was_told_before_is_looked_for_there_first(
    judge: Judge, wrong: Callable[[Mutation], Adapter], rows: list[Circumstance]
) -> None:
    half = off_where(lambda _, output: output.logits.dtype in (torch.bfloat16, torch.float16))
    met = {"dtype": "bfloat16", "mask": "left", "mode": "train"}
    told = judge("forward.outputs", met, adapter=wrong(half))
    minimised = len(rows)
    rows.clear()
    with covering.told_before({"forward.outputs": told}):
        again = judge("forward.outputs", met, adapter=wrong(half))
        looked = len(rows)
        # Where it is not found there, it is minimised as if nobody had told it.
        left = off_where(lambda inputs, _: is_left(inputs.attention_mask))
        other = judge("forward.outputs", met, adapter=wrong(left))
    assert again.fails_like(told)
    assert (again.where, again.circumstance, again.message) == (told.where, told.circumstance, told.message)
    assert looked < minimised / 2
    assert other.circumstance == {"mask": ("left",)}


def test_another_adapter_is_minimised_for_itself(
    judge: Judge, wrong: Callable[[Mutation], Adapter], rows: list[Circumstance]
) -> None:
    judge(
        "forward.outputs", {"mask": "left"}, adapter=wrong(off_where(lambda inputs, _: is_left(inputs.attention_mask)))
    )
    rows.clear()
    other = wrong(off_where(lambda inputs, _: inputs.attention_mask is not None))
    found = judge("forward.outputs", {"mask": "left"}, adapter=other)
    assert len(rows) > 1
    assert len((found.circumstance or {})["mask"]) > 1


# --- what is no failure ----------------------------------------------------------------------------------------------


def test_a_right_adapter_passes_and_nothing_else_is_run(judge: Judge, rows: list[Circumstance]) -> None:
    circumstances: list[Circumstance] = [{"grad": "grad"}, {"mask": "left"}]
    found = judge("forward.outputs", *circumstances)
    assert found.verdict is Verdict.PASS
    assert len(rows) == len(circumstances)


def test_a_row_is_run_once_for_all_its_observables(
    falcon: FalconFamily, bridge: Adapter, rows: list[Circumstance]
) -> None:
    chosen = checks.select(["forward.outputs", "hooks.shown", "state.caller"])
    outcomes = list(runner.run_case(spec(CONFIG, circumstances=({"grad": "grad"},)), falcon, bridge, chosen))
    assert {one.verdict for one in outcomes} == {Verdict.PASS}
    assert len(rows) == 1


def test_what_no_circumstance_shows_is_not_applicable(judge: Judge) -> None:
    found = judge("cache.generated", {"grad": "grad"})
    assert found.verdict is Verdict.SKIP
    assert found.message == "not applicable: no circumstance of this case shows it"


def test_what_follows_from_wrong_logits_is_blocked_by_them(judge: Judge, wrong: Callable[[Mutation], Adapter]) -> None:
    adapter = wrong(off_where(lambda inputs, _: is_left(inputs.attention_mask)))
    found = judge("intervene.effects", {"mask": "left", "grad": "grad"}, adapter=adapter)
    assert found.verdict is Verdict.SKIP
    assert (found.message or "").endswith("forward.outputs")


@pytest.mark.slow
def test_what_follows_from_a_wrong_row_is_judged_in_the_others(
    judge: Judge, wrong: Callable[[Mutation], Adapter]
) -> None:
    adapter = wrong(off_where(lambda inputs, _: is_left(inputs.attention_mask)))
    found = judge("intervene.effects", {"mask": "left"}, {"grad": "grad"}, adapter=adapter)
    assert found.verdict is Verdict.PASS


def test_what_an_adapter_lacks_is_no_failure(falcon: FalconFamily, bridge: Adapter, judge: Judge) -> None:
    class Fixed(MutantAdapter):
        """The bridge without what trains, casts and copies it."""

        def wrap(self, model: Any) -> Any:
            subject: Any = super().wrap(model)
            subject.modes = None
            return subject

    adapter = Fixed(bridge, lambda _model: Mutation())
    assert judge("forward.outputs", {"model": "copied"}, adapter=adapter).verdict is Verdict.SKIP
    assert judge("forward.outputs", {"model": "copied"}, {}, adapter=adapter).verdict is Verdict.PASS


@pytest.mark.slow
@pytest.mark.parametrize("observable", ["forward.outputs", "intervene.effects"])
@pytest.mark.parametrize(
    "circumstance",
    [{}, {"dtype": "float16", "mask": "right"}, {"grad": "grad", "past": "cropped"}, {"model": "moved", "rows": "one"}],
    ids=str,
)
def test_the_bridge_is_right(judge: Judge, observable: str, circumstance: Mapping[str, str]) -> None:
    assert judge(observable, circumstance).verdict in (Verdict.PASS, Verdict.REDUCED)


def test_what_a_call_leaves_behind_is_told_without_a_circumstance(
    judge: Judge, bridge: Adapter, falcon: FalconFamily
) -> None:
    _, adapter = switch_stays_on.plant(falcon, bridge)
    found = judge("hooks.gone", {"grad": "grad", "mask": "left"}, adapter=adapter)
    assert found.verdict is Verdict.FAIL
    assert found.circumstance is None


def test_what_a_call_spoils_does_not_follow_from_wrong_logits() -> None:
    failed = Finding(where="logits", verdict=Verdict.FAIL)
    result = RowResult(circumstance=PLAIN)
    for observable in ("forward.outputs", "intervene.effects", "state.caller", "hooks.gone"):
        result.add(observable, failed)
    assert set(not_resting_on_failures(result)) == {"forward.outputs", "state.caller", "hooks.gone"}
