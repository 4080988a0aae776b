"""Models as they are used: in half precision, far into a text, in inference mode, from embeddings, by other names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from falcons import KINDS
from one_check import Broken, Judge
from torch import Tensor

from verifier.adapter import HookInfo, Inputs, Output, Subject
from verifier.errors import Unrunnable
from verifier.faults.altered_hooks import altered, at, shown_as
from verifier.faults.mutants import Mutation, in_eight_bits
from verifier.judging.outcome import Verdict
from verifier.reference import models

SAMPLED = ("hooks.precision", "cache.precision", "cache.long")
PAIRWISE = ("backward.inputs_embeds", "backward.interleaved", "forward.inference_mode", "forward.loss")


def called(change: Callable[[Inputs, Output], Output] | None = None, *, refusing: str | None = None) -> Mutation:
    """A subject whose output is changed, or that raises where it is given that input."""

    def forward(subject: Subject, inputs: Inputs) -> Output:
        if refusing is not None and getattr(inputs, refusing) is not None:
            raise TypeError(f"no {refusing} here")
        output = subject.forward(inputs)
        return output if change is None else change(inputs, output)

    return Mutation(forward=forward)


def coarse_logits(_inputs: Inputs, output: Output) -> Output:
    return replace(output, logits=in_eight_bits(output.logits))


def twice_the_loss(_inputs: Inputs, output: Output) -> Output:
    return output if output.loss is None else replace(output, loss=output.loss * 2)


def twice_the_loss_under_a_mask(inputs: Inputs, output: Output) -> Output:
    return output if inputs.attention_mask is None else twice_the_loss(inputs, output)


@pytest.mark.parametrize("kind", ["sequential-own-keys-alibi", "two-norms-grouped-rope"])
@pytest.mark.parametrize("check", [*SAMPLED, *PAIRWISE])
def test_a_right_adapter_passes(judge: Judge, check: str, kind: str) -> None:
    assert judge(check, config=KINDS[kind], depth="sampled").verdict is Verdict.PASS


@pytest.mark.slow
def test_what_a_hook_shows_more_coarsely_than_the_model_is_named_with_the_dtype(judge: Judge, broken: Broken) -> None:
    coarse = broken(altered(forward=at("attn.hook_z", shown_as(in_eight_bits))))
    found = judge("hooks.precision", adapter=coarse, depth="sampled", dtypes=("float32", "float16"))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.hook_z")
    assert (found.message or "").startswith("float16: off by ")
    assert judge("hooks.precision", adapter=coarse, depth="sampled", dtypes=("float32",)).verdict is Verdict.PASS


@pytest.mark.slow
@pytest.mark.parametrize("check", ["hooks.precision", "cache.precision"])
def test_logits_that_are_coarse_anyway_are_told_elsewhere(judge: Judge, broken: Broken, check: str) -> None:
    found = judge(check, adapter=broken(called(coarse_logits)), depth="sampled", dtypes=("float16",))
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.float16")


@pytest.mark.parametrize("check", ["hooks.precision", "cache.precision"])
def test_where_no_dtype_is_asked_for_nothing_is_judged(judge: Judge, check: str) -> None:
    found = judge(check, depth="sampled", dtypes=())
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: no working dtype was asked for")


def test_a_text_that_is_no_longer_than_the_others_is_not_long(judge: Judge) -> None:
    assert judge("cache.long", depth="sampled", long=5).verdict is Verdict.SKIP


def test_a_loss_beside_padding_is_judged_where_there_is_one(judge: Judge, broken: Broken) -> None:
    found = judge("forward.loss", adapter=broken(called(twice_the_loss_under_a_mask)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "loss beside padding")


def test_embeddings_that_no_gradient_reaches_have_none(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        embeds = inputs.inputs_embeds
        return subject.forward(inputs if embeds is None else replace(inputs, inputs_embeds=embeds.detach()))

    found = judge("backward.inputs_embeds", adapter=broken(Mutation(forward=forward)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "inputs_embeds")


def test_a_gradient_that_is_wrong_anyway_is_told_elsewhere(judge: Judge, broken: Broken) -> None:
    halved = broken(altered(backward=lambda _, edit: lambda gradient: edit(gradient / 2)))
    found = judge("backward.interleaved", adapter=halved)
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by backward.hooks")


@pytest.mark.slow
def test_a_difference_is_told_though_something_raises_after_it(judge: Judge, broken: Broken) -> None:
    adapter = broken(called(coarse_logits, refusing="inputs_embeds"))
    found = judge("forward.float16", adapter=adapter, depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "float16, plain")


def test_what_cannot_be_called_so_in_any_dtype_is_told_once(judge: Judge, broken: Broken) -> None:
    adapter = broken(called(refusing="inputs_embeds"))
    assert judge("forward.float16", adapter=adapter, depth="sampled").verdict is Verdict.PASS
    assert judge("forward.inputs_embeds", adapter=adapter).verdict is Verdict.ERROR


def test_a_loss_that_is_wrong_anyway_is_told_once(judge: Judge, broken: Broken) -> None:
    adapter = broken(called(twice_the_loss))
    assert judge("forward.float32", adapter=adapter, depth="sampled").verdict is Verdict.PASS
    assert judge("forward.loss", adapter=adapter).verdict is Verdict.FAIL


def test_an_adapter_that_takes_no_labels_is_told_of_once(judge: Judge, broken: Broken) -> None:
    adapter = broken(called(refusing="labels"))
    assert judge("forward.float32", adapter=adapter, depth="sampled").verdict is Verdict.PASS
    assert judge("forward.loss", adapter=adapter).verdict is Verdict.ERROR


def test_a_loss_is_judged_where_no_mask_can_be_given(judge: Judge, broken: Broken) -> None:
    assert judge("forward.loss", adapter=broken(called(refusing="attention_mask"))).verdict is Verdict.PASS


def test_what_hf_does_not_decode_is_not_judged_in_half_precision(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    right = models.forward

    def forward(model: Any, inputs: Inputs, **more: Any) -> Output:
        output = right(model, inputs, **more)
        return output if inputs.cache is None else replace(output, logits=output.logits * 2)

    monkeypatch.setattr(models, "forward", forward)
    found = judge("cache.precision", depth="sampled")
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by reference.cache")


def test_a_cache_that_is_wrong_anyway_is_told_elsewhere(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        return output if inputs.cache is None else replace(output, logits=output.logits * 2)

    found = judge("cache.precision", adapter=broken(Mutation(forward=forward)), depth="sampled")
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by cache.stepwise")


def test_a_forward_of_one_token_that_raises_is_no_hooks_fault(judge: Judge, broken: Broken) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        if inputs.input_ids is not None and inputs.input_ids.shape[1] == 1:
            raise TypeError("one token is none")
        return subject.forward(inputs)

    found = judge("backward.interleaved", adapter=broken(Mutation(forward=forward)))
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.lengths")


def test_an_adapter_cannot_end_the_run_with_the_harness_own_words(judge: Judge, broken: Broken) -> None:
    def names(_given: dict[str, HookInfo]) -> dict[str, HookInfo]:
        raise Unrunnable("no checkpoint here")

    assert judge("hooks.present", adapter=broken(altered(names=names))).verdict is Verdict.ERROR


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
    assert found.message == f"another name of {POINT}: the edit changes nothing"


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
    assert judge("intervene.replace", adapter=adapter).verdict is Verdict.FAIL
