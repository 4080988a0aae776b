"""The checks of components: the one that is wrong when it is run alone is named, and what holds it is not blamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from falcons import KINDS, SPREAD, mostly_slow
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor

from verifier import checks
from verifier.canonical import COMPONENTS, template_of
from verifier.checks import component
from verifier.faults.mutants import Mutation, replacing
from verifier.judging.outcome import Verdict

ALL = [one.id for one in of_area("component")]
IDS = [one for one in ALL if one != "component.dtypes"]
IN_BLOCKS = ("component.projections", "component.attention", "component.mlp", "component.blocks")
ALIBI = KINDS["sequential-own-keys-alibi"]


def running(name: str, change: Callable[[Tensor], Any]) -> Mutation:
    """Wrong in what one component gives alone."""

    def run(right: Any, which: str, args: Any, kwargs: Any) -> Any:
        output = right.run(which, args, kwargs)
        return change(output) if which == name else output

    return Mutation(parts={"components": replacing(run=run)})


def louder(output: Tensor) -> Tensor:
    return output * 1.001


@pytest.mark.parametrize("check", IDS)
@pytest.mark.parametrize("kind", mostly_slow(kind for kind in SPREAD if kind != "no-layers"))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    assert among_all(kind)[check].verdict is Verdict.PASS, among_all(kind)[check]


@pytest.mark.parametrize("check", IDS)
def test_a_model_without_layers_has_what_is_around_them(among_all: AmongAll, check: str) -> None:
    found = among_all("no-layers")[check]
    if check in IN_BLOCKS:
        assert found.verdict is Verdict.SKIP
        assert "that HF's model calls" in (found.message or "")
    else:
        assert found.verdict is Verdict.PASS, found


def test_every_canonical_component_is_of_one_kind() -> None:
    templates = [template for kind in component._KINDS.values() for template in kind]
    assert sorted(templates) == sorted(COMPONENTS)
    assert component._KINDS["positions"] == ("rotary_emb",)


@pytest.mark.parametrize("check", ALL)
def test_its_documentation_says_what_a_failure_means(check: str) -> None:
    (found,) = checks.select([check])
    assert "A failure" in found.doc


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("component.embeddings", "embed"),
        ("component.embeddings", "unembed"),
        ("component.positions", "rotary_emb"),
        ("component.norms", "blocks.1.ln1"),
        ("component.norms", "blocks.0.ln2"),
        ("component.norms", "ln_final"),
        ("component.projections", "blocks.1.attn.qkv"),
        ("component.projections", "blocks.0.attn.q"),
        ("component.projections", "blocks.1.attn.v"),
        ("component.projections", "blocks.0.attn.o"),
        ("component.projections", "blocks.1.mlp.in"),
        ("component.projections", "blocks.0.mlp.out"),
        ("component.attention", "blocks.1.attn"),
        ("component.mlp", "blocks.0.mlp"),
        ("component.blocks", "blocks.1"),
    ],
)
def test_the_wrong_component_is_named(judge: Judge, broken: Broken, check: str, name: str) -> None:
    found = judge(check, adapter=broken(running(name, louder)))
    assert (found.verdict, found.where) == (Verdict.FAIL, name)
    assert (found.message or "").startswith("off by")


@pytest.mark.parametrize(
    ("inner", "holders", "told"),
    [
        ("blocks.{i}.attn.o", ["component.attention", "component.blocks"], "component.projections"),
        ("blocks.{i}.attn", ["component.blocks"], "component.attention"),
        ("blocks.{i}.ln2", ["component.blocks"], "component.norms"),
    ],
)
def test_what_is_wrong_inside_is_told_once(
    judge: Judge, broken: Broken, inner: str, holders: list[str], told: str
) -> None:
    def run(right: Any, name: str, args: Any, kwargs: Any) -> Any:
        output = right.run(name, args, kwargs)
        return output * 1.001 if name.startswith("blocks") and inner.startswith(template_of(name)) else output

    adapter = broken(Mutation(parts={"components": replacing(run=run)}))
    assert judge(told, adapter=adapter).verdict is Verdict.FAIL
    for check in holders:
        found = judge(check, adapter=adapter)
        assert found.verdict is Verdict.SKIP, found
        assert (found.message or "").startswith("blocked by component.")


def test_a_layer_that_is_right_is_still_looked_at(judge: Judge, broken: Broken) -> None:
    def run(right: Any, name: str, args: Any, kwargs: Any) -> Any:
        output = right.run(name, args, kwargs)
        return output * 1.001 if name in ("blocks.0.attn.o", "blocks.1.attn") else output

    found = judge("component.attention", adapter=broken(Mutation(parts={"components": replacing(run=run)})))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.attn")


def test_a_wrong_split_is_told_by_the_split(judge: Judge, broken: Broken) -> None:
    def flipped(right: Any) -> Any:
        return SimpleNamespace(weight=right.weight.detach().flip(0), bias=right.bias)

    breaks = replace(
        running("blocks.0.attn.q", lambda output: output.flip(-1)),
        split=lambda split, layer: replace(split, q=flipped(split.q)) if layer == 0 else split,
    )
    found = judge("component.projections", adapter=broken(breaks))
    assert found.verdict is Verdict.PASS, found


def test_only_real_tokens_count(judge: Judge, broken: Broken) -> None:
    """What an attention gives for a padding row is nobody's business."""

    def run(right: Any, name: str, args: Any, kwargs: Any) -> Any:
        output = right.run(name, args, kwargs)
        if name != "blocks.0.attn":
            return output
        blind = ~kwargs["attention_mask"].any(-1)[:, 0]  # [batch, query]: those that may read nothing
        assert bool(blind.any())
        return output.masked_fill(blind[..., None], 7.0)

    adapter = broken(Mutation(parts={"components": replacing(run=run)}))
    assert judge("component.attention", adapter=adapter).verdict is Verdict.PASS


def test_an_attention_without_its_position_bias_is_found(judge: Judge, broken: Broken) -> None:
    def run(right: Any, name: str, args: Any, kwargs: Any) -> Any:
        if template_of(name) != "blocks.{i}.attn":
            return right.run(name, args, kwargs)
        mask = kwargs["attention_mask"]
        unbiased = torch.zeros_like(mask).masked_fill(mask < -1e300, torch.finfo(mask.dtype).min)
        return right.run(name, args, {**kwargs, "attention_mask": unbiased})

    found = judge(
        "component.attention", adapter=broken(Mutation(parts={"components": replacing(run=run)})), config=ALIBI
    )
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn")


def test_a_wrong_model_is_told_as_such(judge: Judge, broken: Broken) -> None:
    breaks = replace(running("blocks.0.mlp", louder), edits={"hook_mlp_out": louder})
    assert judge("forward.logits", adapter=broken(breaks)).verdict is Verdict.FAIL
    found = judge("component.mlp", adapter=broken(breaks))
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.logits")
    assert judge("component.norms", adapter=broken(breaks)).verdict is Verdict.PASS


def test_a_model_that_does_not_run_is_told_as_such(judge: Judge, broken: Broken) -> None:
    def raises(_subject: Any, _inputs: Any) -> Any:
        raise LookupError("no forward")

    found = judge("component.mlp", adapter=broken(Mutation(forward=raises)))
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by build.forward")


def test_a_component_that_raises_is_an_error_and_blocks_what_holds_it(judge: Judge, broken: Broken) -> None:
    def boom(_output: Tensor) -> Any:
        raise LookupError("no weights")

    adapter = broken(running("blocks.0.mlp.in", boom))
    assert judge("component.projections", adapter=adapter).exception == "LookupError"
    found = judge("component.mlp", adapter=adapter)
    assert found.verdict is Verdict.PASS, found  # the other layer's


def test_a_component_that_gives_no_tensor_is_found(judge: Judge, broken: Broken) -> None:
    found = judge("component.embeddings", adapter=broken(running("unembed", lambda output: (output,))))
    assert (found.verdict, found.message) == (Verdict.FAIL, "it is tuple, not a tensor")


# --- working dtypes --------------------------------------------------------------------------------------------------


def in_dtype(name: str, dtype: torch.dtype, change: Callable[[Tensor], Tensor]) -> Mutation:
    """Wrong in one component and one dtype."""
    return running(name, lambda output: change(output) if output.dtype == dtype else output)


@pytest.mark.parametrize("kind", ["two-norms-grouped-rope", "sequential-own-keys-alibi"])
def test_a_right_adapter_is_as_exact_as_hf(judge: Judge, kind: str) -> None:
    found = judge("component.dtypes", config=KINDS[kind], depth="sampled")
    assert found.verdict is Verdict.PASS, found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_component_that_is_less_exact_in_one_dtype_is_found(judge: Judge, broken: Broken, dtype: str) -> None:
    coarse = {"float32": torch.bfloat16, "bfloat16": torch.float8_e4m3fn, "float16": torch.bfloat16}[dtype]
    breaks = in_dtype("blocks.1.mlp.in", getattr(torch, dtype), lambda output: output.to(coarse).to(output.dtype))
    found = judge("component.dtypes", adapter=broken(breaks), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.mlp.in")
    assert f"in a {dtype} model" in (found.message or "")


def test_another_dtype_than_hfs_is_found(judge: Judge, broken: Broken) -> None:
    breaks = in_dtype("ln_final", torch.float16, lambda output: output.float())
    found = judge("component.dtypes", adapter=broken(breaks), depth="sampled")
    assert (found.verdict, found.where) == (Verdict.FAIL, "ln_final")
    assert found.message == "it gives torch.float32 in a float16 model, where HF's module gives torch.float16"


def test_what_is_wrong_in_every_dtype_is_told_once(judge: Judge, broken: Broken) -> None:
    found = judge("component.dtypes", adapter=broken(running("blocks.1.mlp", lambda output: -output)), depth="sampled")
    assert found.verdict is Verdict.PASS, found


@pytest.mark.slow
def test_a_model_that_is_less_exact_is_told_as_such(judge: Judge, broken: Broken) -> None:
    def coarse(output: Tensor) -> Tensor:
        return output.to(torch.bfloat16).to(output.dtype) if output.dtype == torch.float32 else output

    breaks = replace(in_dtype("blocks.0.mlp", torch.float32, coarse), edits={"hook_mlp_out": coarse})
    found = judge("component.dtypes", adapter=broken(breaks), depth="sampled")
    assert (found.verdict, found.message) == (Verdict.SKIP, "blocked by forward.outputs")


# --- names -----------------------------------------------------------------------------------------------------------


def lacking(*names: str) -> Mutation:
    def modules(right: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: module for name, module in right.items() if name not in names}

    return Mutation(modules=modules)


def test_a_part_that_is_hidden_in_another_is_found(judge: Judge, broken: Broken) -> None:
    found = judge("component.names", adapter=broken(lacking("blocks.1.mlp.in")))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.mlp.in")
    assert (found.message or "").endswith("they are inside blocks.1.mlp")


def test_what_holds_no_parameter_or_is_the_adapters_own_split_may_be_missing(judge: Judge, broken: Broken) -> None:
    adapter = broken(lacking("rotary_emb", *(f"blocks.{layer}.attn.{letter}" for layer in (0, 1) for letter in "qkv")))
    assert judge("component.names", adapter=adapter).verdict is Verdict.PASS


def test_parameters_that_are_in_no_component_are_told_by_build(judge: Judge, broken: Broken) -> None:
    adapter = broken(lacking("ln_final"))
    assert judge("build.parameters", adapter=adapter).verdict is Verdict.FAIL
    assert judge("component.names", adapter=adapter).verdict is Verdict.PASS


def test_a_norm_that_is_no_canonical_weight_either_is_told_by_the_weights(judge: Judge, broken: Broken) -> None:
    def canonical(right: Any) -> Any:
        return {name: weight for name, weight in right.canonical().items() if ".ln2." not in name}

    breaks = replace(lacking("blocks.0.ln2", "blocks.1.ln2"), parts={"weights": replacing(canonical=canonical)})
    assert judge("weights.names", adapter=broken(breaks)).verdict is Verdict.FAIL
    assert judge("component.names", adapter=broken(breaks)).verdict is Verdict.PASS
