"""The checks of hook points: what they say of wrong ones, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import KINDS, SPREAD, mostly_slow, spec
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor, nn

from verifier.adapter import Edit, HookInfo, Inputs, Output, Subject
from verifier.canonical import KINDS as KINDS_OF_POINTS
from verifier.cases.circumstances import PLAIN
from verifier.errors import Unrunnable
from verifier.families.falcon import FalconFamily
from verifier.faults.altered_hooks import altered, at, shown_as
from verifier.faults.mutants import Mutation
from verifier.judging.outcome import Verdict
from verifier.observing.circumstances.row import Row

IDS = [one.id for one in of_area("hooks") if one.applies != "sampled"]
SEQUENTIAL = KINDS["sequential-own-keys-alibi"]
NOTHING_THERE = {
    "hooks.aliases": "not applicable: no hook point has a second name",
    "hooks.switches": "not applicable: no hook point has a switch",
}


@pytest.mark.parametrize("check", IDS)
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    found = among_all(kind)[check]
    if check == "hooks.aliases" or (kind, check) == ("no-layers", "hooks.switches"):
        assert (found.verdict, found.message) == (Verdict.SKIP, NOTHING_THERE[check])
    else:
        assert found.verdict is Verdict.PASS, found


# --- which are there -------------------------------------------------------------------------------------------------


def without(*ends: str) -> Mutation:
    return altered(names=lambda names: {name: info for name, info in names.items() if not name.endswith(ends)})


def test_missing_points_are_counted_and_each_kind_is_named_once(judge: Judge, broken: Broken) -> None:
    found = judge("hooks.present", adapter=broken(without("hook_z", "hook_k")))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.hook_k")
    assert found.message == "4 of 41 are missing: blocks.{i}.attn.hook_k, blocks.{i}.attn.hook_z"


class Declaring:
    """A right adapter without some points, whose hooks say which they have."""

    def __init__(self, adapter: Any, declared: set[str]) -> None:
        self.name, self.version = adapter.name, adapter.version
        self._adapter, self._declared = adapter, declared

    def wrap(self, model: Any) -> Any:
        subject, declared = self._adapter.wrap(model), self._declared

        class Hooks:
            def __getattr__(self, name: str) -> Any:
                return getattr(subject.hooks, name)

            def points(self) -> set[str]:
                return declared

        class Subject:
            hooks = Hooks()

            def __getattr__(self, name: str) -> Any:
                return getattr(subject, name)

        return Subject()


def test_a_point_that_an_adapter_does_not_declare_is_not_offered_and_no_failure(judge: Judge, broken: Broken) -> None:
    declared = {kind.template for kind in KINDS_OF_POINTS} - {"blocks.{i}.attn.hook_k"}
    found = judge("hooks.present", adapter=Declaring(broken(without("attn.hook_k")), declared))
    assert (found.verdict, found.message) == (Verdict.PASS, "not offered: blocks.{i}.attn.hook_k")


@pytest.mark.parametrize("declared", ["blocks.{i}.attn.hook_z", "blocks.1.attn.hook_z"])
def test_a_declared_point_that_is_missing_is_a_failure(judge: Judge, broken: Broken, declared: str) -> None:
    found = judge("hooks.present", adapter=Declaring(broken(without("hook_z", "hook_k")), {declared}))
    assert found.verdict is Verdict.FAIL
    assert found.where in ("blocks.0.attn.hook_z", "blocks.1.attn.hook_z")
    assert "blocks.{i}.attn.hook_k" not in found.message


def test_a_declared_point_that_is_no_canonical_one_is_a_failure(judge: Judge, broken: Broken) -> None:
    found = judge("hooks.present", adapter=Declaring(broken(without("hook_z")), {"blocks.{i}.attn.hook_y"}))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.{i}.attn.hook_y")
    assert found.message == "hooks.points() declares it, and it is no canonical hook point"


class Lacking:
    """A right adapter whose library refuses a switch of some points in this model; the adapter may say so."""

    def __init__(self, adapter: Any, *, reason: str | None) -> None:
        self.name, self.version = adapter.name, adapter.version
        self._adapter, self._reason = adapter, reason

    def wrap(self, model: Any) -> Any:
        subject, reason = self._adapter.wrap(model), self._reason

        class Hooks:
            def __getattr__(self, name: str) -> Any:
                return getattr(subject.hooks, name)

            def names(self) -> Mapping[str, HookInfo]:
                gated = {name: info for name, info in subject.hooks.names().items() if info.switch is not None}
                assert gated
                second = {f"{name}_too": replace(info, alias_of=name) for name, info in gated.items()}
                own = {"blocks.0.hook_own": replace(next(iter(gated.values())), not_offered=reason)}
                refused = {name: replace(info, not_offered=reason) for name, info in gated.items()}
                return {**subject.hooks.names(), **refused, **second, **own}

            def switched(self, names: Any) -> Any:
                raise NotImplementedError("this architecture has no such switch")

        class Lacks:
            hooks = Hooks()

            def __getattr__(self, name: str) -> Any:
                return getattr(subject, name)

        return Lacks()


REFUSED = "the library has no `result` for this architecture; ask there"


@pytest.mark.parametrize("check", IDS)
def test_a_point_that_a_library_lacks_in_a_model_is_not_offered_and_fails_nothing(
    judge: Judge, bridge: Any, check: str
) -> None:
    found = judge(check, adapter=Lacking(bridge, reason=REFUSED))
    assert found.verdict in (Verdict.PASS, Verdict.SKIP), found
    if check == "hooks.present":
        assert found.message == f"not offered: blocks.{{i}}.attn.hook_result, blocks.{{i}}.hook_own; {REFUSED}"


def test_a_point_that_an_adapter_promises_and_cannot_turn_on_is_an_error(judge: Judge, bridge: Any) -> None:
    assert judge("hooks.fires", adapter=Lacking(bridge, reason=None)).verdict is Verdict.ERROR


def test_circumstances_look_at_the_points_that_a_library_has_in_a_model(falcon: FalconFamily, bridge: Any) -> None:
    circumstance = PLAIN | {"grad": "grad", "history": "edited", "model": "copied"}
    result = Row(spec(SEQUENTIAL), falcon, circumstance).run(Lacking(bridge, reason=REFUSED))
    assert not result.errors
    assert result.refused is result.not_offered is None
    assert not any(map(result.is_wrong, result.findings))
    places = {one.where for one in result.findings["hooks.shown"]}
    assert "blocks.0.attn.hook_z" in places
    assert "blocks.0.attn.hook_result" not in places


@pytest.mark.parametrize("check", ["hooks.fires", "hooks.order", "hooks.axes", "hooks.values"])
def test_what_is_missing_is_told_once(judge: Judge, broken: Broken, check: str) -> None:
    assert judge(check, adapter=broken(without("hook_z", "hook_k"))).verdict is Verdict.PASS


def test_a_point_of_the_adapters_own_is_no_canonical_one(judge: Judge, broken: Broken) -> None:
    extra = altered(
        names=lambda names: {**names, "blocks.0.hook_own": HookInfo(native_name="hook_own")},
        target=lambda name: name.replace("hook_own", "hook_mlp_out"),
    )
    for check in ("hooks.present", "hooks.absent", "hooks.fires"):
        assert judge(check, adapter=broken(extra)).verdict is Verdict.PASS


def test_a_canonical_name_for_a_point_of_the_librarys_own_is_no_canonical_point(judge: Judge, broken: Broken) -> None:
    own, name = "blocks.0.hook_own", "blocks.0.mlp.hook_pre_linear"

    def named(alias_of: str | None) -> Mutation:
        more = {own: HookInfo(native_name="own"), name: HookInfo(native_name="own", alias_of=alias_of)}
        return altered(names=lambda names: {**names, **more})

    assert judge("hooks.absent", adapter=broken(named(own))).verdict is Verdict.PASS
    found = judge("hooks.absent", adapter=broken(named(None)))
    assert (found.verdict, found.where) == (Verdict.FAIL, name)


def test_a_point_of_the_adapters_own_must_fire_too(judge: Judge, broken: Broken) -> None:
    silent = altered(
        names=lambda names: {**names, "blocks.0.hook_own": HookInfo(native_name="hook_own")},
        target=lambda name: None if name.endswith("hook_own") else name,
    )
    found = judge("hooks.fires", adapter=broken(silent))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.hook_own")


def test_an_adapter_cannot_end_the_run_with_the_harness_own_words(judge: Judge, broken: Broken) -> None:
    def names(_given: dict[str, HookInfo]) -> dict[str, HookInfo]:
        raise Unrunnable("no checkpoint here")

    assert judge("hooks.present", adapter=broken(altered(names=names))).verdict is Verdict.ERROR


def test_a_gated_point_is_asked_with_its_switch_on(judge: Judge, broken: Broken) -> None:
    silent = altered(target=lambda name: None if name.endswith("hook_result") else name)
    found = judge("hooks.fires", adapter=broken(silent))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.hook_result")


# --- axes ------------------------------------------------------------------------------------------------------------


def turned(order: tuple[int, ...], axes: tuple[str, ...], end: str = "attn.hook_pattern") -> Mutation:
    """The points that end so have these axes, say so, and take edits in them."""
    back = tuple(order.index(axis) for axis in range(len(order)))

    def turn(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor | None:
            edited = edit(value.permute(order))
            return None if edited is None else edited.permute(back)

        return act

    return altered(
        names=lambda names: {
            name: replace(info, axes=axes) if name.endswith(end) else info for name, info in names.items()
        },
        forward=at(end, turn),
        backward=at(end, turn),
    )


QUERIES_FIRST = turned((0, 2, 1, 3), ("batch", "query", "head", "key"))


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "check",
    [
        *(check for check in IDS if check != "hooks.aliases"),
        "hooks.shown",
        "intervene.effects",
        "intervene.each_point",
        "backward.shown",
        "backward.effects",
    ],
)
def test_other_axes_that_are_said_are_as_good(judge: Judge, broken: Broken, check: str) -> None:
    found = judge(check, adapter=broken(QUERIES_FIRST), circumstances=({"grad": "grad"},))
    assert found.verdict is Verdict.PASS


def test_axes_that_are_none_of_the_points_are_wrong(judge: Judge, broken: Broken) -> None:
    found = judge("hooks.axes", adapter=broken(turned((0, 1, 2, 3), ("batch", "kv_head", "query", "key"))))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.hook_pattern")
    assert found.message == "its axes are batch, kv_head, query, key, not batch, head, query, key (1 more place)"


# --- values ----------------------------------------------------------------------------------------------------------


def shows(end: str, change: Callable[[Tensor], Tensor]) -> Mutation:
    return altered(forward=at(end, shown_as(change)))


@pytest.mark.parametrize(
    ("end", "inputs"),
    [
        ("blocks.1.attn.hook_q", "what flows into it agrees (blocks.1.ln1.hook_normalized)"),
        ("blocks.0.attn.hook_z", "what flows into it agrees (blocks.0.attn.hook_pattern, blocks.0.attn.hook_v)"),
        ("hook_embed", "what flows into it is the tokens alone"),
    ],
)
def test_a_wrong_value_is_placed_and_what_flows_into_it_is_looked_at(
    judge: Judge, broken: Broken, end: str, inputs: str
) -> None:
    found = judge("hooks.values", adapter=broken(shows(end, lambda value: value.flip(2))))
    assert (found.verdict, found.where) == (Verdict.FAIL, end)
    assert inputs in (found.message or "")


def test_what_flows_into_it_and_cannot_be_seen_is_said(judge: Judge, broken: Broken) -> None:
    hidden, shown = without("attn.hook_v"), shows("blocks.0.attn.hook_z", lambda value: value.flip(2))
    both = Mutation(parts={"hooks": lambda subject, hooks: _then(subject, hooks, hidden, shown)})
    found = judge("hooks.values", adapter=broken(both))
    assert "of what flows into it blocks.0.attn.hook_v cannot be seen" in (found.message or "")


def _then(subject: Any, hooks: Any, *each: Mutation) -> Any:
    for breaks in each:
        hooks = breaks.parts["hooks"](subject, hooks)
    return hooks


def test_masked_scores_may_be_any_low_number(judge: Judge, broken: Broken) -> None:
    def lowest(scores: Tensor) -> Tensor:
        length = scores.shape[-1]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        return scores.masked_fill(future, torch.finfo(scores.dtype).min)

    assert judge("hooks.values", adapter=broken(shows("hook_attn_scores", lowest))).verdict is Verdict.PASS


def test_values_are_not_judged_in_a_model_that_is_another_one(judge: Judge, broken: Broken) -> None:
    wrong = Mutation(edits={"attn.hook_v": lambda value: value * 2})
    found = judge("hooks.values", adapter=broken(wrong))
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.logits")


@pytest.mark.parametrize(
    ("config", "end"),
    [
        (KINDS["two-norms-grouped-rope"], "attn.hook_rot_q"),
        (SEQUENTIAL, "hook_resid_mid"),
        (SEQUENTIAL, "ln2.hook_scale"),
    ],
)
def test_points_that_only_some_models_have(judge: Judge, broken: Broken, config: Mapping[str, Any], end: str) -> None:
    found = judge("hooks.values", adapter=broken(shows(end, lambda value: value * 2)), config=config)
    assert (found.verdict, found.where) == (Verdict.FAIL, f"blocks.0.{end}")


# --- where a wrong forward starts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "circumstance"),
    [("forward.logits", {}), ("forward.outputs", {"mask": "left"}), ("forward.outputs", {"positions": "given"})],
    ids=["plain", "mask", "positions"],
)
def test_a_wrong_forward_says_where_it_starts(
    judge: Judge, broken: Broken, check: str, circumstance: Mapping[str, str]
) -> None:
    def mutate(_model: nn.Module) -> Mutation:
        now = {"wrong": False}

        def forward(subject: Subject, inputs: Inputs) -> Output:
            now["wrong"] = not circumstance or inputs.attention_mask is not None or inputs.position_ids is not None
            return subject.forward(inputs)

        doubled = Mutation(edits={"blocks.1.attn.hook_k": lambda value: value * 2 if now["wrong"] else value})
        return replace(doubled, forward=forward)

    found = judge(check, adapter=broken(mutate), circumstances=(circumstance,))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.attn.hook_k")
    assert "what flows into it agrees (blocks.1.ln1.hook_normalized)" in (found.message or "")


def test_what_follows_from_a_difference_is_not_its_start(judge: Judge, broken: Broken) -> None:
    wrong = Mutation(edits={"blocks.0.hook_mlp_out": lambda value: value * 2})
    assert judge("forward.logits", adapter=broken(wrong)).where == "blocks.0.hook_mlp_out"
