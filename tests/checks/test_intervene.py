"""Interventions: an edit that does nothing is told where it is, and acts by every name of its point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from one_check import Broken, Judge
from torch import Tensor

from verifier.adapter import Edit, HookInfo
from verifier.faults.altered_hooks import altered, at
from verifier.faults.mutants import Mutation
from verifier.judging.outcome import Verdict

GRAD = ({"grad": "grad"},)


def dropped(edit: Edit) -> Edit:
    """The hook is called, and what it gives back is not used."""

    def act(value: Tensor) -> None:
        edit(value)

    return act


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "end", ["ln1.hook_normalized", "attn.hook_q", "attn.hook_attn_scores", "attn.hook_result", "mlp.hook_pre"]
)
def test_an_edit_that_is_ignored_is_found_where_it_is(judge: Judge, broken: Broken, end: str) -> None:
    adapter = broken(altered(forward=at(f"blocks.1.{end}", dropped)))
    found = judge("intervene.effects", adapter=adapter, circumstances=GRAD)
    assert (found.verdict, found.where) == (Verdict.FAIL, f"blocks.1.{end}")


def test_points_that_show_another_value_are_not_asked(judge: Judge, broken: Broken) -> None:
    wrong = altered(forward=at("attn.hook_z", lambda edit: lambda value: edit(value * 2)))
    for check in ("intervene.effects", "intervene.each_point"):
        assert judge(check, adapter=broken(wrong), circumstances=GRAD).verdict is Verdict.PASS


# --- other names -----------------------------------------------------------------------------------------------------

POINT, OTHER = "blocks.0.attn.hook_z", "blocks.0.attn.another_z"


def named_twice(**more: Any) -> Mutation:
    return altered(
        names=lambda names: {**names, OTHER: replace(names[POINT], native_name=OTHER, alias_of=POINT)},
        target=lambda name: POINT if name == OTHER else name,
        **more,
    )


@pytest.mark.parametrize("check", ["intervene.aliases", "hooks.aliases"])
def test_another_name_of_a_point_is_as_good(judge: Judge, broken: Broken, check: str) -> None:
    assert judge(check, adapter=broken(named_twice())).verdict is Verdict.PASS
    assert judge(check).verdict is Verdict.SKIP, "the bridge has none"


def test_an_edit_that_acts_by_one_name_alone_is_found(judge: Judge, broken: Broken) -> None:
    def only_read(name: str, edit: Any) -> Any:
        return (lambda value: [edit(value), None][1]) if name == OTHER else edit

    found = judge("intervene.aliases", adapter=broken(named_twice(forward=only_read)))
    assert (found.verdict, found.where) == (Verdict.FAIL, OTHER)
    assert (found.message or "").startswith(f"another name of {POINT}: ")


@pytest.mark.parametrize("check", ["intervene.aliases", "hooks.aliases"])
def test_another_name_has_the_axes_of_its_point(judge: Judge, broken: Broken, check: str) -> None:
    """A point that says that its axes stand in another order shows them so by both of its names."""
    order = ("batch", "head", "pos", "d_head")

    def names(given: dict[str, HookInfo]) -> dict[str, HookInfo]:
        said = replace(given[POINT], axes=order)
        return {**given, POINT: said, OTHER: HookInfo(native_name=OTHER, alias_of=POINT)}

    def turned(name: str, edit: Any) -> Any:
        def act(value: Tensor) -> Tensor | None:
            edited = edit(value.transpose(1, 2))
            return None if edited is None else edited.transpose(1, 2)

        return act if name in (POINT, OTHER) else edit

    adapter = broken(altered(names=names, target=lambda name: POINT if name == OTHER else name, forward=turned))
    assert judge(check, adapter=adapter).verdict is Verdict.PASS
    assert judge("hooks.values", adapter=adapter).verdict is Verdict.PASS


def test_what_cannot_be_edited_by_any_name_is_told_once(judge: Judge, broken: Broken) -> None:
    def read(_name: str, edit: Any) -> Any:
        return lambda value: [edit(value), None][1]

    adapter = broken(named_twice(forward=read))
    assert judge("intervene.aliases", adapter=adapter).verdict is Verdict.SKIP
    assert judge("intervene.effects", adapter=adapter, circumstances=GRAD).verdict is Verdict.FAIL
