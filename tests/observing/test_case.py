"""A case builds what checks share once, and whatever goes wrong in one check is that check's outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import KINDS, REFUSED, spec
from torch import nn

from verifier import checks
from verifier.adapter import Adapter, AdapterRefusal, Inputs, Output, Subject
from verifier.cases.spec import Scenario
from verifier.checks import Check, check
from verifier.checks.runner import run_case
from verifier.errors import UserInterrupt
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import Delegate, MutantSubject, Mutation
from verifier.judging.outcome import Finding, NotApplicable, Outcome, Verdict
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.reference import models
from verifier.reference.snapshots import remember

SPEC = spec(KINDS["sequential-own-keys-alibi"])


class Counting(Delegate):
    """A family that counts what it builds."""

    def __init__(self, original: FalconFamily) -> None:
        super().__init__(original)
        self.built: Counter[tuple[str, str]] = Counter()

    def build(self, config: Any, **how: Any) -> Any:
        self.built[str(how["dtype"]).removeprefix("torch."), how["attention"]] += 1
        return self.original.build(config, **how)


class Bare(Subject):
    """HF's own model as a subject, without any capability; counts its forwards."""

    def __init__(self, model: nn.Module, log: list[str]) -> None:
        self.model = model
        self.log = log

    def forward(self, inputs: Inputs) -> Output:
        self.log.append("forward")
        return models.forward(self.model, inputs)

    def close(self) -> None:
        self.log.append("close")


class Wraps:
    """An adapter of a function, which keeps a log."""

    name = "wraps"
    version = "1"

    def __init__(self, wrap: Callable[[nn.Module, list[str]], Any] = Bare) -> None:
        self.log: list[str] = []
        self._wrap = wrap

    def wrap(self, model: nn.Module) -> Any:
        self.log.append("wrap")
        return self._wrap(model, self.log)


def raising(error: Exception) -> Wraps:
    def wrap(_model: nn.Module, _log: list[str]) -> Any:
        raise error

    return Wraps(wrap)


@pytest.fixture
def counting(falcon: FalconFamily) -> Any:
    return Counting(falcon)


@pytest.fixture
def case(counting: Any) -> Iterator[Case]:
    made = Case(SPEC, counting, Wraps())
    yield made
    made.close()


def outcomes(family: Any, adapter: Any, *ids: str, config: Any = SPEC) -> dict[str, Outcome]:
    return {one.check: one for one in run_case(config, family, adapter, checks.select(ids))}


# --- built once ------------------------------------------------------------------------------------------------------


def test_nothing_is_built_before_it_is_asked_for(case: Case, counting: Any) -> None:
    assert not counting.built
    assert isinstance(case.subject.adapter, Wraps)
    assert not case.subject.adapter.log


def test_each_reference_is_built_once(case: Case, counting: Any) -> None:
    for _ in range(3):
        case.reference.output()
        case.reference.output(Scenario.PADDED)
        case.noise.logits()
        case.noise.logits(Scenario.PLAIN, "float32")
        case.reference.output(Scenario.PLAIN, attention="eager")
        activations.reference_trace(case)
    # In float64 twice: once with the weights of a float32 model.
    assert counting.built == {("float64", "sdpa"): 2, ("float32", "sdpa"): 1, ("float64", "eager"): 1}


def test_the_model_is_wrapped_and_run_once_for_all(case: Case) -> None:
    for _ in range(3):
        case.subject.output()
        case.subject.output(Scenario.PADDED)
        case.subject.wrapped()
    assert isinstance(case.subject.adapter, Wraps)
    assert case.subject.adapter.log == ["wrap", "forward", "forward"]


def test_what_raised_once_is_not_tried_again(counting: Any) -> None:
    adapter = raising(KeyError("blocks"))
    outcomes(counting, adapter)
    assert adapter.log == ["wrap"]


def test_reference_and_subject_are_two_models_of_one_seed(case: Case) -> None:
    mine, theirs = case.subject.given, case.reference.model()
    assert isinstance(mine, nn.Module)
    assert mine is not theirs
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()


def test_the_truth_of_a_working_dtype_has_its_weights_in_float64(case: Case) -> None:
    truth, working = case.reference.rounded_model("bfloat16"), case.reference.model("bfloat16")
    for exact, rounded in zip(truth.parameters(), working.parameters(), strict=True):
        assert exact.dtype == torch.float64
        assert torch.equal(exact, rounded.double())


def test_every_subject_is_closed_with_the_case(counting: Any) -> None:
    adapter = Wraps()
    outcomes(counting, adapter)
    assert adapter.log.count("close") >= adapter.log.count("wrap") > 1


def test_subjects_are_closed_when_a_run_is_given_up(falcon: FalconFamily) -> None:
    adapter = Wraps()
    run = run_case(SPEC, falcon, adapter, checks.select(["build.forward", "forward.logits"]))
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert adapter.log == ["wrap", "forward", "close"]


# --- what is defined -------------------------------------------------------------------------------------------------


def test_of_residuals_the_real_tokens_are_defined(case: Case) -> None:
    defined, real = (
        case.reference.defined(("batch", "pos", "d_model"), Scenario.PADDED),
        case.reference.scenario(Scenario.PADDED).real,
    )
    assert defined.shape == (*real.shape, 1)
    assert torch.equal(defined[..., 0], real)


def test_of_attention_is_defined_what_real_queries_may_see(case: Case) -> None:
    defined, real = (
        case.reference.defined(("batch", "head", "query", "key"), Scenario.PADDED),
        case.reference.scenario(Scenario.PADDED).real,
    )
    for row, query, key in torch.cartesian_prod(*(torch.arange(size) for size in (*real.shape, real.shape[1]))):
        wanted = bool(real[row, query] & real[row, key] & (key <= query))
        assert bool(defined[row, 0, query, key]) == wanted


# --- what goes wrong -------------------------------------------------------------------------------------------------


def gating(found: dict[str, Outcome]) -> list[str]:
    return [one.check for one in found.values() if one.verdict.gates]


def test_a_wrap_that_raises_is_one_failure_and_blocks_the_rest(falcon: FalconFamily) -> None:
    found = outcomes(falcon, raising(KeyError("blocks")))
    assert gating(found) == ["build.adapter"]
    broken = found["build.adapter"]
    assert (broken.verdict, broken.exception, broken.message) == (Verdict.ERROR, "KeyError", "KeyError: 'blocks'")
    assert (broken.site or "").endswith("test_case.py:wrap")
    on_subjects = [one.id for one in checks.registered() if one.subject and one.applies == "valid"]
    assert {found[one].message for one in on_subjects} == {"blocked by build.adapter"}
    assert {found[one].verdict for one in on_subjects} == {Verdict.SKIP}


def test_the_reference_is_judged_whatever_the_adapter_does(falcon: FalconFamily) -> None:
    found = outcomes(falcon, raising(KeyError("blocks")), "reference")
    assert {one.verdict for one in found.values()} <= {Verdict.PASS, Verdict.UPSTREAM}


def test_a_refusal_of_what_hf_accepts_is_one_failure(falcon: FalconFamily) -> None:
    found = outcomes(falcon, raising(AdapterRefusal("no ALiBi here")))
    assert gating(found) == ["build.adapter"]
    assert found["build.adapter"].verdict is Verdict.FAIL
    assert "no ALiBi here" in (found["build.adapter"].message or "")


def test_what_is_no_subject_is_one_failure(falcon: FalconFamily) -> None:
    found = outcomes(falcon, Wraps(lambda model, _log: model))
    assert gating(found) == ["build.adapter"]


def test_a_forward_that_raises_is_one_failure_and_blocks_the_rest(falcon: FalconFamily) -> None:
    class Broken(Bare):
        def forward(self, inputs: Inputs) -> Output:
            raise IndexError("head 7")

    found = outcomes(falcon, Wraps(Broken))
    assert gating(found) == ["build.forward"]
    assert found["build.forward"].message == "IndexError: head 7"
    assert found["forward.causality"].message == "blocked by build.forward"


def test_what_an_adapter_does_not_offer_is_not_applicable(falcon: FalconFamily) -> None:
    found = outcomes(falcon, Wraps())
    for one in checks.registered():
        if one.applies == "valid" and one.needs:
            assert found[one.id].verdict is Verdict.SKIP
            assert (found[one.id].message or "").startswith("not applicable: the adapter offers no ")


def test_an_adapter_that_shows_hfs_own_model_is_right(falcon: FalconFamily) -> None:
    assert gating(outcomes(falcon, Wraps())) == []


def run_one(function: Callable[[Case], Finding], falcon: FalconFamily) -> Outcome:
    made: Check = check("area.mine")(function)
    return next(run_case(SPEC, falcon, Wraps(), [made]))


def test_a_check_that_has_nothing_to_look_at_is_skipped_with_its_reason(falcon: FalconFamily) -> None:
    def mine(_case: Case) -> Finding:
        raise NotApplicable("there is no cache")

    found = run_one(mine, falcon)
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: there is no cache")
    assert found.fingerprint is None


def test_an_exception_is_an_error_with_type_place_and_traceback(falcon: FalconFamily) -> None:
    def mine(_case: Case) -> Finding:
        raise LookupError("no head\n7")

    found = run_one(mine, falcon)
    assert (found.verdict, found.exception, found.message) == (Verdict.ERROR, "LookupError", "LookupError: no head 7")
    assert (found.site or "").endswith("test_case.py:mine")
    assert "raise LookupError" in (found.detail or "")


def test_the_evidence_of_a_finding_is_kept(falcon: FalconFamily) -> None:
    finding = Finding(verdict=Verdict.FAIL, measured=2.0, bound=1.0, where="blocks.0.hook_z", message="wrong")
    found = run_one(lambda _case: finding, falcon)
    assert (found.verdict, found.measured, found.bound, found.where, found.message) == (
        Verdict.FAIL,
        2.0,
        1.0,
        "blocks.0.hook_z",
        "wrong",
    )


def test_an_interrupt_is_not_an_outcome(falcon: FalconFamily) -> None:
    def mine(_case: Case) -> Finding:
        raise UserInterrupt

    with pytest.raises(UserInterrupt):
        run_one(mine, falcon)


# --- which checks run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", REFUSED)
def test_a_refused_config_is_only_seen_by_checks_of_it(falcon: FalconFamily, bridge: Adapter, refused: str) -> None:
    found = outcomes(falcon, bridge, config=spec(REFUSED[refused]))
    assert found.keys() == {one.id for one in checks.registered() if one.applies in ("always", "invalid")}


def test_a_valid_config_is_not_seen_by_checks_of_refused_ones(falcon: FalconFamily, bridge: Adapter) -> None:
    found = outcomes(falcon, bridge, "build.refusal", "build.adapter", "reference.acceptance")
    assert found.keys() == {"build.adapter", "reference.acceptance"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sequential-own-keys-alibi", "two-norms-grouped-rope"])
def test_a_check_alone_says_what_it_says_among_all(falcon: FalconFamily, bridge: Adapter, kind: str) -> None:
    *every, at_the_end = checks.registered()  # which is run last whatever is asked for
    together = list(run_case(spec(KINDS[kind]), falcon, bridge, [at_the_end, *every]))
    backwards = list(run_case(spec(KINDS[kind]), falcon, bridge, every[::-1]))[::-1]
    alone = [outcome for one in every for outcome in run_case(spec(KINDS[kind]), falcon, bridge, [one])]
    assert together.pop().check == at_the_end.id
    assert len(together) > 30
    for found in (alone, backwards):
        assert [replace(one, seconds=0.0) for one in found] == [replace(one, seconds=0.0) for one in together]


class Excuses(Wraps):
    """An adapter that says of itself that nothing can be judged."""

    def wrap(self, model: nn.Module) -> Subject:
        raise NotApplicable("sorry")


class ExcusesLater(Wraps):
    def wrap(self, model: nn.Module) -> Subject:
        return Excusing(super().wrap(model), Mutation())


class Excusing(MutantSubject):
    def forward(self, inputs: Inputs) -> Output:
        raise NotApplicable("sorry")


@pytest.mark.parametrize(("adapter", "identity"), [(Excuses(), "build.adapter"), (ExcusesLater(), "build.forward")])
def test_an_adapter_cannot_excuse_itself(falcon: FalconFamily, adapter: Adapter, identity: str) -> None:
    found = outcomes(falcon, adapter)
    assert found[identity].verdict is Verdict.ERROR
    assert "sorry" in (found[identity].message or "")


class PatchesAtImport(Wraps):
    """Changes what the reference is made of too, once, and for good."""

    def wrap(self, model: Any) -> Subject:
        forward = type(model.transformer.h[0].mlp).forward
        if not hasattr(forward, "wrong"):

            def wrong(self: Any, x: torch.Tensor) -> torch.Tensor:
                return 1.5 * forward(self, x)

            wrong.wrong = True  # type: ignore[attr-defined]
            type(model.transformer.h[0].mlp).forward = wrong
        return super().wrap(model)


def test_what_changes_the_reference_too_is_green_nowhere(falcon: FalconFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.falcon.modeling_falcon import FalconMLP

    remember(falcon)
    monkeypatch.setattr(FalconMLP, "forward", FalconMLP.forward)  # put back at the end
    for _ in range(2):
        found = outcomes(falcon, PatchesAtImport())
        assert found["build.surroundings"].verdict is Verdict.FAIL
        assert found["forward.logits"].verdict is Verdict.SKIP
        assert "build.surroundings" in (found["forward.logits"].message or "")


def test_a_subject_that_writes_into_its_inputs_cannot_bend_the_truth(falcon: FalconFamily) -> None:
    class Writes(MutantSubject):
        def forward(self, inputs: Inputs) -> Output:
            if inputs.inputs_embeds is not None:
                inputs.inputs_embeds.mul_(1.5)
            return super().forward(inputs)

    class Adapts(Wraps):
        def wrap(self, model: nn.Module) -> Subject:
            return Writes(super().wrap(model), Mutation())

    config = replace(SPEC, circumstances=({"tokens": "embeddings"},))
    found = outcomes(falcon, Adapts(), "forward.outputs", config=config)
    assert found["forward.outputs"].verdict is Verdict.FAIL
