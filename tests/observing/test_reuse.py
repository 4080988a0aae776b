"""What Hugging Face makes of one case stands for another only where nothing tells their models apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from falcons import DIMS, spec
from torch import nn

from verifier import checks
from verifier.adapter import Adapter
from verifier.cases import matrix
from verifier.cases.spec import Scenario
from verifier.checks.runner import run_case
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import Delegate
from verifier.judging.outcome import Verdict
from verifier.observing import activations, reuse
from verifier.observing.case import Case

NEW = {**DIMS, "new_decoder_architecture": True, "num_kv_heads": 3, "bias": True}
# HF's new decoder architecture looks at `num_kv_heads` alone.
FIRST, SECOND = (spec({**NEW, "multi_query": shared}, depth="all") for shared in (True, False))


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    reuse.forget()
    yield
    reuse.forget()


@pytest.fixture
def made(falcon: FalconFamily, bridge: Adapter) -> Iterator[Callable[..., Case]]:
    """Makes cases, and closes them."""
    cases: list[Case] = []

    def make(of: Any = FIRST, family: Any = falcon) -> Case:
        cases.append(Case(of, family, bridge))
        return cases[-1]

    yield make
    for case in cases:
        case.close()


def shared(first: Case, second: Case) -> bool:
    """Whether the second takes what was made for the first."""
    return activations.reference_trace(second, Scenario.PLAIN) is activations.reference_trace(first, Scenario.PLAIN)


def test_what_hf_makes_of_one_model_is_made_once(made: Callable[..., Case]) -> None:
    first, second = made(FIRST), made(SECOND)
    assert shared(first, second)
    # What each must do by itself: build its model and run it.
    assert second.reference.model() is not first.reference.model()
    assert second.reference.output() is not first.reference.output()


def test_a_closed_case_leaves_it_to_others(made: Callable[..., Case]) -> None:
    first = made(FIRST)
    theirs = activations.reference_trace(first, Scenario.PLAIN)
    first.close()
    assert activations.reference_trace(made(SECOND), Scenario.PLAIN) is theirs


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(spec({**NEW, "num_kv_heads": 6}, depth="all"), id="other heads"),
        pytest.param(spec({**NEW, "bias": False}, depth="all"), id="no biases"),
        pytest.param(spec({**NEW, "layer_norm_epsilon": 2e-5}, depth="all"), id="another epsilon"),
        pytest.param(replace(FIRST, seed=1), id="another seed"),
        pytest.param(replace(FIRST, length=FIRST.length + 1), id="longer"),
        pytest.param(replace(FIRST, padding=1), id="other padding"),
        pytest.param(replace(FIRST, scale=2.0), id="larger weights"),
    ],
)
def test_what_hf_or_the_case_tells_apart_is_made_anew(made: Callable[..., Case], other: Any) -> None:
    assert not shared(made(FIRST), made(other))


class Changed(Delegate):
    """The same family for every config; whose model of an old one, told by `multi_query`, is another in some way."""

    def __init__(self, original: FalconFamily, change: Callable[[Any], None]) -> None:
        super().__init__(original)
        self._change = change

    def build(self, config: Any, **how: Any) -> Any:
        model = self.original.build(config, **how)
        if not config["multi_query"]:
            self._change(model)
        return model


def _other_weight(model: Any) -> None:
    with torch.no_grad():
        model.transformer.h[1].mlp.dense_4h_to_h.bias[3] += 1


def _other_module(model: Any) -> None:
    model.transformer.h[1].mlp.__class__ = type("Another", (type(model.transformer.h[1].mlp),), {})


def _on_padding_alone(model: Any) -> None:
    def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if kwargs.get("attention_mask") is not None:
            output.logits = output.logits * 2
        return output

    model.register_forward_hook(hook, with_kwargs=True)


def _in_gradients_alone(model: Any) -> None:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        return output + (output - output.detach())

    model.transformer.h[0].mlp.register_forward_hook(hook)


@pytest.mark.parametrize("change", [_other_weight, _other_module, _on_padding_alone, _in_gradients_alone])
def test_one_difference_tells_two_models_apart(
    made: Callable[..., Case], falcon: FalconFamily, change: Callable[[Any], None]
) -> None:
    family = Changed(falcon, change)
    assert not shared(made(FIRST, family), made(SECOND, family))


class Describing(Delegate):
    """The same family for every config, which describes the model of one of them otherwise."""

    def points(self, config: Any) -> Any:
        found = self.original.points(config)
        return found if config["multi_query"] else found[:-1]


class Splitting(Delegate):
    """The same of the split of the fused weight."""

    def qkv_rows(self, model: Any, layer: int) -> Any:
        rows = self.original.qkv_rows(model, layer)
        if model.config.multi_query:
            return rows
        return replace(rows, k=replace(rows.k, rows=rows.k.rows.flip(0)))


class Naming(Delegate):
    """The same of which module is which component."""

    def components(self, model: Any) -> Any:
        found = dict(self.original.components(model))
        if not model.config.multi_query:
            found["blocks.0.ln1"], found["blocks.1.ln1"] = found["blocks.1.ln1"], found["blocks.0.ln1"]
        return found


@pytest.mark.parametrize("describe", [Describing, Splitting, Naming])
def test_what_the_family_says_of_a_model_tells_it_apart(
    made: Callable[..., Case], falcon: FalconFamily, describe: Callable[[FalconFamily], Any]
) -> None:
    family = describe(falcon)
    assert not shared(made(FIRST, family), made(SECOND, family))


def test_another_family_takes_nothing(made: Callable[..., Case], falcon: FalconFamily) -> None:
    assert not shared(made(FIRST, falcon), made(FIRST, Delegate(falcon)))


class Failing(Delegate):
    """Its model runs once on plain tokens."""

    def build(self, config: Any, **how: Any) -> Any:
        model = self.original.build(config, **how)
        calls: list[None] = []

        def hook(*_: Any) -> None:
            calls.append(None)
            if len(calls) > 1:
                raise RuntimeError("no more")

        model.register_forward_hook(hook)
        return model


def test_what_hf_cannot_do_is_each_cases_own_failure(made: Callable[..., Case], falcon: FalconFamily) -> None:
    family = Failing(falcon)
    for one in (FIRST, SECOND):
        case = made(one, family)
        case.reference.output()
        with pytest.raises(RuntimeError, match="no more"):
            activations.reference_trace(case)


def test_no_more_is_kept_than_is_said(made: Callable[..., Case], monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(FIRST)
    model = 8 * sum(parameter.numel() for parameter in one.reference.model().parameters())
    # Twice each, weights and gradients; and some logits, of five rows.
    monkeypatch.setattr(
        reuse, "KEPT_BYTES", 2 * (2 * model + 2 * 8 * one.reference.output(Scenario.PADDED).logits.numel()) + model
    )
    first, second, third = (made(replace(FIRST, seed=seed)) for seed in range(3))
    assert not shared(first, second)
    assert shared(first, made(FIRST))  # and so it is the one that was asked for last
    activations.reference_trace(third, Scenario.PLAIN)
    assert shared(first, made(SECOND))
    assert not shared(second, made(second.spec))


class NoRows(Delegate):
    """The same family, which cannot tell which fused row is whose."""

    def qkv_rows(self, model: Any, layer: int) -> Any:
        raise RuntimeError("no rows")


def _fails_on_padding(model: Any) -> None:
    def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("attention_mask") is not None:
            raise RuntimeError("no padding")

    model.register_forward_pre_hook(hook, with_kwargs=True)


@pytest.mark.parametrize(
    ("of", "family"),
    [
        pytest.param(spec({**NEW, "num_kv_heads": 5}, depth="all"), FalconFamily(), id="HF does not build it"),
        pytest.param(replace(FIRST, checkpoint="nowhere"), FalconFamily(), id="there is no such checkpoint"),
        pytest.param(SECOND, Changed(FalconFamily(), _fails_on_padding), id="HF's forward raises"),
        pytest.param(FIRST, NoRows(FalconFamily()), id="the family raises"),
    ],
)
def test_a_model_that_cannot_be_built_or_run_is_for_itself(made: Callable[..., Case], of: Any, family: Any) -> None:
    assert reuse.cache_for(made(of, family).reference) is not reuse.cache_for(made(of, family).reference)


def test_a_mistake_of_the_harness_is_raised(made: Callable[..., Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse.models, "differentiate", lambda logits, along, of: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reuse.cache_for(made().reference)


def test_a_model_that_is_too_large_is_for_itself(made: Callable[..., Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "KEPT_BYTES", 1000)
    assert not shared(made(FIRST), made(SECOND))


@pytest.mark.slow
@pytest.mark.parametrize("one", [FIRST, SECOND], ids=["first", "second"])
def test_what_is_found_does_not_hang_on_who_came_before(falcon: FalconFamily, bridge: Adapter, one: Any) -> None:
    wanted = [found for found in checks.select(()) if not found.id.startswith("reference.")]

    def found(*before: Any) -> list[tuple[str, Verdict, float | None, float | None, str | None]]:
        reuse.forget()
        for spec_ in (*before, one):
            outcomes = list(run_case(spec_, falcon, bridge, wanted))
        return [(each.check, each.verdict, each.measured, each.bound, each.where) for each in outcomes]

    alone = found()
    assert len(alone) > 40
    assert found(SECOND if one is FIRST else FIRST) == alone


PLAIN = {"rope_type": "default", "rope_theta": 1e4}
SCALED = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}
# Models whose logits do not hang on how positions are rotated, and the frequencies neither: heads of two have one.
TWO = {"hidden_size": 2 * DIMS["num_attention_heads"]}
IN_VAIN = {"no layers": {**DIMS, **TWO, "num_hidden_layers": 0}, "alibi": {**NEW, **TWO, "alibi": True}}


@pytest.mark.parametrize("config", IN_VAIN.values(), ids=IN_VAIN)
@pytest.mark.parametrize("ropes", [(PLAIN, SCALED), (SCALED, PLAIN)], ids=["scaled", "plain"])
def test_a_module_that_comes_to_nothing_is_each_models_own(
    falcon: FalconFamily, bridge: Adapter, config: Any, ropes: Any
) -> None:
    wanted = checks.select(("component",))
    before, one = (spec({**config, "rope_parameters": rope}, depth="all") for rope in ropes)
    for spec_ in (before, one):
        found = {outcome.check: outcome for outcome in run_case(spec_, falcon, bridge, wanted)}
        assert found["component.positions"].verdict is Verdict.PASS, found["component.positions"].message
        assert not any(outcome.verdict.gates for outcome in found.values())


class Looks:
    """An adapter that reads a value which HF does not look at: wrong for the second case alone."""

    name, version = "looks", "1"

    def __init__(self, original: Adapter) -> None:
        self.original = original

    def wrap(self, model: Any) -> Any:
        if not model.config.multi_query:
            with torch.no_grad():
                model.transformer.h[0].self_attention.dense.weight.mul_(1.5)
        return self.original.wrap(model)


def test_an_adapter_that_looks_where_hf_does_not_is_found(falcon: FalconFamily, bridge: Adapter) -> None:
    wanted = checks.select(("forward.logits", "hooks.values"))
    right, wrong = (
        {outcome.check: outcome.verdict for outcome in run_case(one, falcon, Looks(bridge), wanted)}
        for one in (FIRST, SECOND)
    )
    assert set(right.values()) == {Verdict.PASS}
    assert wrong == {"forward.logits": Verdict.FAIL, "hooks.values": Verdict.SKIP}  # a difference is told once


@pytest.mark.slow
def test_to_hf_falcons_matrix_is_as_many_models_as_the_readme_says(
    falcon: FalconFamily, bridge: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "KEPT_BYTES", 2**30)
    product = [one for one in matrix.cases(falcon, "falcon") if one.valid and one.label is None]
    models = set()
    for one in product:
        case = Case(replace(one, depth="all"), falcon, bridge)
        models.add(id(reuse.cache_for(case.reference)))
        case.close()
    said = f"to it the {len(product)} valid combinations are {len(models)} models"
    assert said in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
