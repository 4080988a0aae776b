"""The checks of the reference: they find what is wrong with Hugging Face and with a family, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from falcons import DIMS, KINDS, REFUSED, SPREAD, mostly_slow
from one_check import AmongAll, Judge, of_area

from verifier import checks
from verifier.canonical import Point
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import Delegate
from verifier.judging.outcome import Verdict

IDS = [one.id for one in of_area("reference")]
ROPE, ALIBI = KINDS["two-norms-grouped-rope"], KINDS["sequential-own-keys-alibi"]


class Family(Delegate):
    """A family of which some things are other ones."""

    def __init__(self, original: FalconFamily, **others: Any) -> None:
        super().__init__(original)
        vars(self).update(others)


@pytest.mark.parametrize("check", IDS)
@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_nothing_gates_on_the_untouched_model(among_all: AmongAll, kind: str, check: str) -> None:
    assert among_all(kind)[check].verdict in (Verdict.PASS, Verdict.UPSTREAM), among_all(kind)[check]


@pytest.mark.parametrize("check", IDS)
def test_its_documentation_says_what_a_failure_means(check: str) -> None:
    (found,) = checks.select([check])
    assert "A failure means" in found.doc or "Upstream means" in found.doc


def test_none_of_them_looks_at_the_adapter() -> None:
    assert not any(one.subject or one.needs for one in of_area("reference"))


# --- what is wrong with Hugging Face today ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_eager_attention_differs_with_alibi_and_only_there(among_all: AmongAll, kind: str) -> None:
    found = among_all(kind)["reference.attention"]
    assert (found.verdict is Verdict.UPSTREAM) == ("alibi" in kind)
    if "alibi" in kind:
        assert found.where == "attn_implementation=eager, plain"
        assert not found.verdict.gates


@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_asking_for_attentions_changes_the_logits_of_every_model_with_attention(among_all: AmongAll, kind: str) -> None:
    found = among_all(kind)["reference.attentions_on_request"]
    assert (found.verdict is Verdict.UPSTREAM) == (kind != "no-layers")
    assert not found.verdict.gates


@pytest.mark.parametrize("kind", mostly_slow(SPREAD))
def test_the_config_is_written_into_where_the_number_of_norms_is_left_open(among_all: AmongAll, kind: str) -> None:
    found = among_all(kind)["reference.config"]
    assert (found.verdict is Verdict.UPSTREAM) == kind.startswith("two-norms")
    if kind.startswith("two-norms"):
        assert found.where == "config.num_ln_in_parallel_attn"
        assert found.message == "num_ln_in_parallel_attn: None became 2"


# --- what may be wrong with a family ---------------------------------------------------------------------------------


def test_a_config_that_only_the_family_accepts_fails(judge: Judge) -> None:
    found = judge("reference.acceptance", config={**DIMS, "num_attention_heads": 5}, valid=True)
    assert (found.verdict, found.where) == (Verdict.FAIL, "accepted by the family")
    assert (found.message or "").startswith("HF refuses it: ")


def test_a_config_that_only_the_family_refuses_fails(judge: Judge) -> None:
    found = judge("reference.acceptance", config=ROPE, valid=False, reason="too grouped")
    assert (found.verdict, found.where) == (Verdict.FAIL, "refused by the family")
    assert found.message == "HF accepts it, but the family says: too grouped"


@pytest.mark.parametrize("refused", REFUSED)
def test_a_config_that_both_refuse_passes(judge: Judge, refused: str) -> None:
    assert judge("reference.acceptance", config=REFUSED[refused]).verdict is Verdict.PASS


def test_with_one_attention_implementation_there_is_nothing_to_compare(judge: Judge, falcon: FalconFamily) -> None:
    found = judge("reference.attention", family=Family(falcon, attentions=("sdpa",)))
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: HF has one attention implementation here")


def test_a_point_that_is_never_seen_is_named(judge: Judge, falcon: FalconFamily) -> None:
    more = next(point for point in falcon.points(KINDS["sequential-own-keys-rope"]) if point.name.endswith("resid_mid"))
    family = Family(falcon, points=lambda config: [*falcon.points(config), more])
    found = judge("reference.taps", family=family)
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.hook_resid_mid")
    assert (found.message or "").startswith("the taps never saw it")


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (("batch", "pos"), "it has 3 axes, not batch, pos"),
        (("batch", "pos", "1"), "its 1 axis is 24 long, not 1"),
        (("batch", "d_model", "pos"), "its pos axis is 24 long, not 7"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else "",
)
def test_a_point_with_other_axes_is_named(judge: Judge, falcon: FalconFamily, axes: tuple[str, ...], said: str) -> None:
    def points(config: Mapping[str, Any]) -> list[Point]:
        return [
            replace(point, kind=replace(point.kind, axes=axes)) if point.name == "hook_embed" else point
            for point in falcon.points(config)
        ]

    found = judge("reference.taps", family=Family(falcon, points=points))
    assert (found.verdict, found.where) == (Verdict.FAIL, "hook_embed")
    assert (found.message or "").startswith(said)


def test_models_that_share_their_memory_fail(judge: Judge, falcon: FalconFamily) -> None:
    model = falcon.build(ROPE, dtype=torch.float64, device="cpu", attention="sdpa", seed=0)
    found = judge("reference.seeds", family=Family(falcon, build=lambda *_, **__: model))
    assert (found.verdict, found.message) == (Verdict.FAIL, "two models of one seed share its memory")


def test_models_that_differ_under_one_seed_fail(judge: Judge, falcon: FalconFamily) -> None:
    seeds = iter(range(10))

    def build(config: Any, **how: Any) -> Any:
        return falcon.build(config, **{**how, "seed": next(seeds)})

    found = judge("reference.seeds", family=Family(falcon, build=build))
    assert (found.verdict, found.message) == (Verdict.FAIL, "it differs between two models of one seed")


def equal_norms(falcon: FalconFamily, *names: str) -> Any:
    """A family whose models have one value for several parameters."""

    def build(config: Any, **how: Any) -> Any:
        model = falcon.build(config, **how)
        first, *others = (model.get_parameter(name) for name in names)
        with torch.no_grad():
            for other in others:
                other.copy_(first)
        return model

    return Family(falcon, build=build)


def test_two_parameters_that_are_alike_fail(judge: Judge, falcon: FalconFamily) -> None:
    family = equal_norms(falcon, "transformer.h.0.ln_attn.weight", "transformer.h.0.ln_mlp.weight")
    assert judge("reference.seeds", family=family).verdict is Verdict.FAIL


def test_the_same_fault_of_two_layers_is_one_bug(judge: Judge, falcon: FalconFamily) -> None:
    def uniform(layer: int) -> Any:
        def build(config: Any, **how: Any) -> Any:
            model = falcon.build(config, **how)
            with torch.no_grad():
                model.get_parameter(f"transformer.h.{layer}.ln_mlp.bias").fill_(0.0)
            return model

        return Family(falcon, build=build)

    first, second = (judge("reference.seeds", family=uniform(layer)) for layer in (0, 1))
    assert first.verdict is second.verdict is Verdict.FAIL
    assert first.fingerprint == second.fingerprint


def test_a_chaotic_reference_fails(judge: Judge, falcon: FalconFamily) -> None:
    def build(config: Any, **how: Any) -> Any:
        model: Any = falcon.build(config, **how)

        def sharpen(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
            return (output * 2.0**60).sin()  # every bit of its argument matters

        model.transformer.ln_f.register_forward_hook(sharpen)
        return model

    assert judge("reference.noise", family=Family(falcon, build=build)).verdict is Verdict.FAIL


def test_decoding_that_forgets_is_upstream(judge: Judge, falcon: FalconFamily) -> None:
    def build(config: Any, **how: Any) -> Any:
        model = falcon.build(config, **how)

        def forget(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            past = kwargs.get("past_key_values")
            if past is not None and past.get_seq_length() > 4:
                for layer in past.layers:
                    layer.keys[:, :, 0] = 0
            return args, kwargs

        model.register_forward_pre_hook(forget, with_kwargs=True)
        return model

    found = judge("reference.cache", family=Family(falcon, build=build), config=ALIBI)
    assert (found.verdict, found.where) == (Verdict.UPSTREAM, "cached, plain")
