"""The checks of what a subject keeps: each says whose it is and where it is kept, and lets a right adapter alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import KINDS, SPREAD, mostly_slow, spec
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from verifier import checks
from verifier.adapter import Adapter, Inputs, Output, Subject
from verifier.checks.runner import run_case
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import Delegate, MutantSubject, Mutation, replacing
from verifier.judging.outcome import Verdict
from verifier.reference.process_state import random_states

ALL = of_area("state")
IDS = [one.id for one in ALL]
SAMPLED = [one.id for one in ALL if one.applies == "sampled"]
OF_SUBJECTS = [one.id for one in ALL if one.subject]  # what is said of the process alone is blocked by nothing
ROPE, ALIBI = KINDS["two-norms-grouped-rope"], KINDS["sequential-own-keys-alibi"]


@pytest.mark.parametrize("check", [one for one in IDS if one not in SAMPLED])
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    assert among_all(kind)[check].verdict is Verdict.PASS, among_all(kind)[check]


@pytest.mark.slow
@pytest.mark.parametrize("check", SAMPLED)
@pytest.mark.parametrize("config", [ROPE, ALIBI, SPREAD["no-layers"]], ids=["rope", "alibi", "no-layers"])
def test_a_right_adapter_passes_on_a_sampled_case(judge: Judge, check: str, config: Any) -> None:
    found = judge(check, config=config, depth="sampled")
    assert found.verdict is Verdict.PASS, found


@pytest.mark.thinned(3)
@pytest.mark.parametrize("check", OF_SUBJECTS)
def test_wrong_logits_are_not_told_again(judge: Judge, broken: Broken, check: str) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return replace(output, logits=output.logits * 1.01)

    found = judge(check, adapter=broken(Mutation(forward=forward)), depth="sampled")
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.logits")


@pytest.mark.slow
@pytest.mark.parametrize("check", OF_SUBJECTS)
def test_a_subject_that_is_right_once_is_not_told_again(judge: Judge, broken: Broken, check: str) -> None:
    def drifting(_model: nn.Module) -> Mutation:
        calls: list[int] = []

        def forward(subject: Subject, inputs: Inputs) -> Output:
            calls.append(1)
            output = subject.forward(inputs)
            return replace(output, logits=output.logits * len(calls))

        return Mutation(forward=forward)

    found = judge(check, adapter=broken(drifting), depth="sampled")
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.repeated")


# --- beside others ---------------------------------------------------------------------------------------------------


class Sharing(Delegate):
    """An adapter whose later subjects answer by the first one's model, or the first by the newest one's."""

    def __init__(self, original: Any, which: int) -> None:
        super().__init__(original)
        self.name, self.version = original.name, original.version
        self.which = which
        self.made: list[Subject] = []

    def wrap(self, model: Any) -> Any:
        self.made.append(self.original.wrap(model))
        return MutantSubject(
            self.made[-1], Mutation(forward=lambda _subject, inputs: self.made[self.which].forward(inputs))
        )


@pytest.mark.parametrize(
    ("which", "place"), [(0, "the second model"), (-1, "the first model, after the second")], ids=["first", "newest"]
)
def test_the_model_that_another_one_answers_for_is_named(judge: Judge, bridge: Any, which: int, place: str) -> None:
    found = judge("state.interleaved", adapter=Sharing(bridge, which))
    assert (found.verdict, found.where) == (Verdict.FAIL, place)


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(2e-15, Verdict.PASS), (5e-15, Verdict.PASS), (1e-8, Verdict.REDUCED)],
    ids=["unit", "noise", "single"],
)
def test_another_models_noise_is_measured_where_its_unit_does_not_explain_it(
    judge: Judge, broken: Broken, factor: float, verdict: Verdict
) -> None:
    def nudged(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return replace(output, logits=output.logits * (1 + factor))

    assert judge("state.interleaved", adapter=broken(Mutation(forward=nudged))).verdict is verdict


@pytest.mark.parametrize(
    ("hooked", "reached", "place"),
    [
        (0, 1, "hooks on a model, another model beside it"),
        (0, 2, "hooks on a model, its twin beside it"),
        (2, 0, "hooks on a twin, the model beside it"),
    ],
)
def test_the_bystander_that_a_hook_reaches_is_named(
    judge: Judge, bridge: Any, hooked: int, reached: int, place: str
) -> None:
    made: list[Any] = []

    class Reaching(Delegate):
        def wrap(self, model: Any) -> Any:
            mine = len(made)
            made.append(self.original.wrap(model))

            @contextlib.contextmanager
            def attach(hooks: Any, forward: Any, backward: Any) -> Iterator[None]:
                with contextlib.ExitStack() as stack:
                    stack.enter_context(hooks.hooked(forward, backward))
                    if mine == hooked:
                        stack.enter_context(made[reached].hooks.hooked(forward, backward))
                    yield

            return MutantSubject(made[mine], Mutation(parts={"hooks": replacing(hooked=attach)}))

    found = judge("state.hooks", adapter=Reaching(bridge), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, place)
    assert "runs in it too" in (found.message or "")


# --- copies ----------------------------------------------------------------------------------------------------------


def copying(change: Callable[[Subject, Subject], Any]) -> Mutation:
    """A copy that something was done to, beside the original."""

    def broken(subject: Subject, modes: Any) -> Any:
        def copied(right: Any) -> Any:
            made = right.copy()
            return change(subject, made) or made

        return replacing(copy=copied)(subject, modes)

    return Mutation(parts={"modes": broken})


def test_a_copy_that_is_off_by_a_bit_is_found(judge: Judge, broken: Broken) -> None:
    def nudge(_original: Any, made: Any) -> None:
        weight = made.components.modules()["ln_final"].original.weight.data
        weight.copy_(torch.nextafter(weight, torch.tensor(9.0, dtype=torch.float64)))

    found = judge("state.copy", adapter=broken(copying(nudge)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "the copy")


def test_the_memory_that_a_copy_shares_is_named(judge: Judge, broken: Broken) -> None:
    def share(original: Any, made: Any) -> None:
        theirs = original.components.modules()["blocks.1.ln2"].original
        made.components.modules()["blocks.1.ln2"].original.bias.data = theirs.bias.data

    found = judge("state.copy_weights", adapter=broken(copying(share)), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "the copy's blocks.1.ln2: original.bias")
    assert (found.message or "").startswith("it is in the memory of the original's blocks.1.ln2: original.bias")


@pytest.mark.parametrize(
    ("follows", "place"),
    [
        ("copy", "the copy, when the original is written into"),
        ("original", "the original, when the copy is written into"),
    ],
)
def test_what_is_shared_outside_of_the_weights_is_found(judge: Judge, broken: Broken, follows: str, place: str) -> None:
    def listening(_model: nn.Module) -> Mutation:
        heard: list[Subject] = []

        def total(subject: Any) -> Tensor:
            return sum((one.double().sum() for one in subject.modes.state_dict().values()), torch.tensor(0.0))

        def forward(subject: Subject, inputs: Inputs) -> Output:
            output = subject.forward(inputs)
            if follows == "copy" or not heard:
                return output
            return replace(output, logits=output.logits + (total(heard[0]) - heard_first[0]))

        heard_first: list[Tensor] = []

        def listen(original: Any, made: Any) -> Any:
            if follows == "original":
                heard.append(made)
                heard_first.append(total(made))
                return None
            before = total(original)

            def follow(subject: Subject, inputs: Inputs) -> Output:
                output = subject.forward(inputs)
                return replace(output, logits=output.logits + (total(original) - before))

            return MutantSubject(made, Mutation(forward=follow))

        return replace(copying(listen), forward=forward)

    found = judge("state.copy_weights", adapter=broken(listening), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, place)


def test_weights_that_are_not_what_it_computes_with_prove_nothing(judge: Judge, broken: Broken) -> None:
    breaks = Mutation(
        parts={
            "modes": replacing(
                state_dict=lambda modes: {name: one.clone() for name, one in modes.state_dict().items()}
            ),
            "components": replacing(modules=lambda _components: {}),
        }
    )
    found = judge("state.copy_weights", adapter=broken(breaks), depth="sampled")
    assert (found.verdict, found.message) == (
        Verdict.SKIP,
        "not applicable: nothing of what it gives out as its weights is what it computes with",
    )


def test_weights_are_left_as_they_were(judge: Judge, broken: Broken) -> None:
    kept: list[tuple[nn.Module, dict[str, Tensor]]] = []

    def remember(model: nn.Module) -> Mutation:
        kept.append((model, {name: one.clone() for name, one in model.state_dict().items()}))
        return Mutation()

    assert judge("state.copy_weights", adapter=broken(remember), depth="sampled").verdict is Verdict.PASS
    assert len(kept) > 1
    assert all(torch.equal(one, before[name]) for model, before in kept for name, one in model.state_dict().items())


def test_a_hook_of_a_copy_that_runs_in_the_original_is_found(judge: Judge, broken: Broken) -> None:
    def reach(original: Any, made: Any) -> Any:
        @contextlib.contextmanager
        def hooked(hooks: Any, forward: Any, backward: Any) -> Iterator[None]:
            with hooks.hooked(forward, backward), original.hooks.hooked(forward, backward):
                yield

        return MutantSubject(made, Mutation(parts={"hooks": replacing(hooked=hooked)}))

    found = judge("state.copy_hooks", adapter=broken(copying(reach)), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "hooks on a copy, the original beside it")


# --- what is left ----------------------------------------------------------------------------------------------------


def in_forward(condition: Callable[[Inputs], bool], change: Callable[[Any], None]) -> Callable[[nn.Module], Mutation]:
    """Something is done to the model in some forwards."""

    def breaks(model: nn.Module) -> Mutation:
        def forward(subject: Subject, inputs: Inputs) -> Output:
            if condition(inputs):
                change(model)
            return subject.forward(inputs)

        return Mutation(forward=forward)

    return breaks


def moves(model: Any) -> None:
    model.transformer.ln_f.weight.data[0] += 1e-3


@pytest.mark.parametrize(
    ("condition", "change", "place"),
    [
        (lambda _: torch.is_grad_enabled(), moves, "parameters"),
        (lambda one: one.cache is not None, moves, "parameters"),
        (lambda one: one.use_cache, lambda model: model.register_buffer("seen", torch.ones(1)), None),
        (lambda one: one.use_cache, lambda model: model.register_forward_hook(lambda *_: None), "hooks"),
        (lambda _: torch.is_grad_enabled(), lambda model: setattr(model.config, "use_cache", False), "config"),
    ],
    ids=["backward", "cache", "buffer", "hook", "config"],
)
def test_what_using_it_changes_is_named(
    judge: Judge, broken: Broken, condition: Any, change: Any, place: str | None
) -> None:
    found = judge("state.changes", adapter=broken(in_forward(condition, change)), depth="sampled")
    # A buffer that is added is no change of what was there.
    assert (found.verdict, found.where) == ((Verdict.PASS, None) if place is None else (Verdict.FAIL, place))


def test_what_the_first_forward_changes_is_told_elsewhere(judge: Judge, broken: Broken) -> None:
    hook = in_forward(lambda _: True, lambda model: model.register_forward_hook(lambda *_: None))
    assert judge("build.changes", adapter=broken(hook)).verdict is Verdict.FAIL
    assert judge("state.changes", adapter=broken(hook), depth="sampled").verdict is Verdict.PASS


def test_what_is_declared_may_change(judge: Judge, bridge: Any) -> None:
    class Declared(Delegate):
        def wrap(self, model: Any) -> Any:
            breaks = in_forward(lambda one: one.use_cache, lambda one: one.register_forward_hook(lambda *_: None))
            subject = MutantSubject(self.original.wrap(model), breaks(model))
            subject.declared_mutations = frozenset({"hooks"})
            return subject

    assert judge("state.changes", adapter=Declared(bridge), depth="sampled").verdict is Verdict.PASS


def test_a_weight_that_moves_where_parameters_may_change_is_found(judge: Judge, bridge: Any) -> None:
    class Declared(Delegate):
        def wrap(self, model: Any) -> Any:
            breaks = in_forward(lambda one: one.use_cache, moves)
            subject = MutantSubject(self.original.wrap(model), breaks(model))
            subject.declared_mutations = frozenset({"parameters"})
            return subject

    found = judge("state.changes", adapter=Declared(bridge), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "weights: ln_final.w")


class Keeping(Delegate):
    """An adapter that keeps something of each subject, and lets go of it when it is dropped itself."""

    def __init__(self, original: Any, keep: Callable[[Any, list[Any]], None]) -> None:
        super().__init__(original)
        self.name, self.version = original.name, original.version
        self.kept: list[Any] = []
        self.keep = keep

    def wrap(self, model: Any) -> Any:
        subject = self.original.wrap(model)
        self.keep(model, self.kept)
        return subject


@pytest.mark.parametrize(
    ("keep", "place", "said"),
    [
        (lambda model, kept: kept.append(model), "models", "4 of 4 are still there after they were dropped"),
        (lambda model, kept: kept.append(model.lm_head.weight), "tensors", "there are 4 more after 4 more models"),
        (lambda model, kept: kept.append(torch.ones(1)), "tensors", "there are 4 more after 4 more models"),
    ],
    ids=["model", "weight", "tensor"],
)
def test_what_is_kept_of_dropped_subjects_is_counted(
    judge: Judge, bridge: Any, keep: Any, place: str, said: str
) -> None:
    found = judge("state.memory", adapter=Keeping(bridge, keep), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, place)
    assert (found.message or "").startswith(said)


def test_what_is_kept_of_the_newest_only_does_not_grow(judge: Judge, bridge: Any) -> None:
    def newest(model: Any, kept: list[Any]) -> None:
        kept[:] = [torch.ones(1)]

    assert judge("state.memory", adapter=Keeping(bridge, newest), depth="sampled").verdict is Verdict.PASS


def test_a_hook_for_all_modules_that_stays_is_found(judge: Judge, broken: Broken) -> None:
    left: list[Any] = []

    def leave() -> None:
        left.append(torch_module.register_module_forward_hook(lambda *_: None))

    try:
        found = judge("state.memory", adapter=broken(Mutation(close=leave)), depth="sampled")
    finally:
        for handle in left:
            handle.remove()
    assert (found.verdict, found.where) == (Verdict.FAIL, "surroundings")
    assert "torch: module hooks for all" in (found.message or "")


# --- what a case leaves behind ---------------------------------------------------------------------------------------


class Seeding(Delegate):
    """An adapter that seeds as it wraps."""

    name, version = "seeding", "1"

    def wrap(self, model: Any) -> Any:
        torch.manual_seed(7)
        return self.original.wrap(model)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["state.process"], ["state.process"]),
        (["state.process", "state.random"], ["state.random"]),
        (["state.process", "state.random"], ["state.process"]),
        ([], []),
    ],
    ids=["alone", "in-a-row", "in-no-row", "not-asked-for"],
)
def test_seeding_is_told_once_and_the_next_case_begins_as_this_one_did(
    request: pytest.FixtureRequest, falcon: FalconFamily, bridge: Adapter, asked: list[str], told: list[str]
) -> None:
    rows = () if "in-no-row" in request.node.name else ({"mask": "left"},)
    chosen = [one for one in checks.registered() if one.id in [*asked, "build.adapter"]]
    before = random_states()
    outcomes = list(run_case(spec(ROPE, circumstances=rows), falcon, Seeding(bridge), chosen))
    assert random_states() == before
    assert [one.check for one in outcomes if one.verdict.gates] == told
