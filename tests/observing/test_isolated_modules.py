"""HF's modules run alone: called as in their places, on random hidden states, with what of the output is defined."""

from __future__ import annotations

import pytest
import torch
from falcons import KINDS, SPREAD, spec
from torch import nn

from verifier.adapter import Adapter
from verifier.families.falcon import FalconFamily
from verifier.judging.outcome import NotApplicable
from verifier.observing import isolated_modules
from verifier.observing.case import Case
from verifier.observing.isolated_modules import Call, Part

ROPE, ALIBI = KINDS["two-norms-grouped-rope"], KINDS["sequential-own-keys-alibi"]


def case_of(family: FalconFamily, adapter: Adapter, kind: str = "two-norms-grouped-rope") -> Case:
    return Case(spec({**KINDS, **SPREAD}[kind]), family, adapter)


def test_every_canonical_component_is_called(falcon: FalconFamily, bridge: Adapter) -> None:
    calls = isolated_modules.calls(case_of(falcon, bridge))
    inner = {"ln1", "ln2", "attn", "attn.qkv", "attn.q", "attn.k", "attn.v", "attn.o", "mlp", "mlp.in", "mlp.out"}
    expected = {f"blocks.{layer}.{name}" for layer in (0, 1) for name in inner} | {"blocks.0", "blocks.1"}
    assert calls.keys() == expected | {"embed", "rotary_emb", "ln_final", "unembed"}


def test_hidden_states_are_random_and_all_else_is_as_hf_has_it(falcon: FalconFamily, bridge: Adapter) -> None:
    case = case_of(falcon, bridge)
    calls, mask = isolated_modules.calls(case), case.reference.inputs(isolated_modules.SCENARIO).attention_mask
    assert mask is not None
    read = [calls[f"blocks.{layer}.attn"].main_input for layer in (0, 1)]
    assert all(one is not None and one.shape == (*mask.shape, 24) for one in read)
    assert not torch.equal(*read)  # type: ignore[arg-type]
    allowed = calls["blocks.0.attn"].kwargs["attention_mask"]  # [batch, 1, query, key]
    assert torch.equal(allowed[:, 0, -1], mask.bool())
    assert calls["embed"].main_input is not None
    assert torch.equal(calls["embed"].main_input, case.reference.inputs(isolated_modules.SCENARIO).input_ids)  # type: ignore[arg-type]


def test_it_is_the_same_every_time(falcon: FalconFamily, bridge: Adapter) -> None:
    one, other = (isolated_modules.module_reference(case_of(falcon, bridge), "blocks.1.mlp") for _ in range(2))
    assert torch.equal(one.truth, other.truth)
    assert one.noise == other.noise


def test_a_part_of_a_fused_module_is_its_rows(falcon: FalconFamily, bridge: Adapter) -> None:
    case = case_of(falcon, bridge)
    rows = falcon.qkv_rows(case.reference.model(), 1).k.rows
    lone = isolated_modules.module_reference(case, "blocks.1.attn.k")
    fused = case.reference.model().transformer.h[1].self_attention.query_key_value
    assert torch.equal(lone.truth, fused(lone.call.main_input)[..., rows.flatten()])


@pytest.mark.parametrize("name", ["blocks.0", "blocks.0.attn", "blocks.1.mlp", "unembed"])
def test_padding_is_nobodys_business(falcon: FalconFamily, bridge: Adapter, name: str) -> None:
    case = case_of(falcon, bridge)
    defined = isolated_modules.module_reference(case, name).defined
    assert defined is not None
    assert torch.equal(defined[..., 0], case.reference.scenario(isolated_modules.SCENARIO).real)


@pytest.mark.parametrize("name", ["embed", "blocks.0", "blocks.0.ln1", "blocks.1.attn", "blocks.0.attn.q", "unembed"])
def test_noise_is_what_rounding_does(falcon: FalconFamily, bridge: Adapter, name: str) -> None:
    lone = isolated_modules.module_reference(case_of(falcon, bridge), name)
    assert 1e-17 < lone.noise < 1e-13


def test_whoever_is_called_may_write_into_what_it_is_given(falcon: FalconFamily, bridge: Adapter) -> None:
    call = isolated_modules.calls(case_of(falcon, bridge))["blocks.0"]
    copy = call.copy()
    copy.args[0].zero_()
    copy.kwargs["position_embeddings"][0].zero_()
    assert call.args[0].any()
    assert call.kwargs["position_embeddings"][0].any()


def test_what_hf_does_not_call_is_not_there(falcon: FalconFamily, bridge: Adapter) -> None:
    with pytest.raises(NotApplicable, match=r"HF's model calls no blocks\.0\.mlp\.gate"):
        isolated_modules.module_reference(case_of(falcon, bridge), "blocks.0.mlp.gate")


def test_what_comes_in_may_be_named_or_not() -> None:
    x, y = torch.zeros(2), torch.ones(2)
    positional = Call(args=(None, x), kwargs={"mask": y})
    assert positional.main_input is x
    assert positional.with_main_input(y).args[1] is y
    named = Call(args=(), kwargs={"use_cache": False, "hidden_states": x})
    assert named.main_input is x
    assert named.with_main_input(y).kwargs["hidden_states"] is y
    assert Call(args=(), kwargs={}).main_input is None


def test_the_main_output_is_the_first() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
            return 2 * x, None

    x = torch.arange(4.0)
    assert torch.equal(Part(module=Two())(x), 2 * x)
    assert torch.equal(Part(module=Two(), rows=torch.tensor([3, 0]))(x), torch.tensor([6.0, 0.0]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_a_working_dtype_the_truth_is_float64s(falcon: FalconFamily, bridge: Adapter, dtype: str) -> None:
    case = case_of(falcon, bridge)
    found, name = isolated_modules.each_in(case, dtype), "blocks.1.mlp"
    assert found.keys() == isolated_modules.calls(case).keys()
    lone, eps = found[name], torch.finfo(getattr(torch, dtype)).eps
    assert (lone.truth.dtype, lone.dtype) == (torch.float64, getattr(torch, dtype))
    copy = lone.call.copy()
    with torch.no_grad():
        theirs = isolated_modules.parts(case, dtype)[name](*copy.args, **copy.kwargs)
    error = (theirs.double() - lone.truth).square().mean().sqrt()
    assert 0 < error < lone.noise < 64 * eps
