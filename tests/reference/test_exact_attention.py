"""The harness' own attention is HF's where HF's is right, and a number where HF's eager one is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from short_families import FAMILIES, Gemma2, Qwen3
from torch import Tensor
from torch.testing import assert_close

from verifier.reference.declared import DeclaredFamily
from verifier.reference.exact_attention import EXACT

IDS = torch.randint(3, 110, (3, 9), generator=torch.Generator().manual_seed(0))
LEFT = torch.ones_like(IDS)
LEFT[0, :4] = 0
GAPS = LEFT.clone()
GAPS[1, 4] = 0


def logits(family: DeclaredFamily, attention: str, dtype: torch.dtype, mask: Tensor | None, **config: Any) -> Tensor:
    dims = {**family.dims(), **config}
    model: Any = family.build(dims, dtype=dtype, device="cpu", attention=attention, seed=1)
    with torch.no_grad():
        found: Tensor = model(IDS, attention_mask=mask, use_cache=False).logits
    return found if mask is None else found[mask.bool()]


@pytest.mark.parametrize("mask", [None, LEFT, GAPS], ids=["plain", "left", "gaps"])
@pytest.mark.parametrize("name", ["qwen3", "neox", "gpt2", "opt", "granite"])
def test_it_is_sdpa_in_float64(name: str, mask: Tensor | None) -> None:
    family = FAMILIES[name]
    ours, theirs = (logits(family, attention, torch.float64, mask) for attention in (EXACT, "sdpa"))
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mask", [None, LEFT, GAPS], ids=["plain", "left", "gaps"])
@pytest.mark.parametrize("name", ["gemma2", "gpt-oss", "qwen3"])
def test_it_is_eager_to_float32s_rounding(name: str, mask: Tensor | None) -> None:
    family = FAMILIES[name]
    ours, theirs = (logits(family, attention, torch.float32, mask) for attention in (EXACT, "eager"))
    assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("flag", ["attn_logit_softcapping", "sliding_window", "query_pre_attn_scalar"])
def test_each_option_of_an_attention_acts(flag: str) -> None:
    other = {"attn_logit_softcapping": None, "sliding_window": 5, "query_pre_attn_scalar": 50}[flag]
    with_it, without = (logits(Gemma2(), EXACT, torch.float64, None, **one) for one in ({}, {flag: other}))
    assert float((with_it - without).abs().max()) > 1e-3
    assert_close(without.float(), logits(Gemma2(), "eager", torch.float32, None, **{flag: other}), rtol=1e-3, atol=1e-3)


def test_left_padding_in_float64_is_a_number_as_it_is_not_in_eager() -> None:
    ours, theirs = (logits(Gemma2(), attention, torch.float64, LEFT) for attention in (EXACT, "eager"))
    assert ours.isfinite().all()
    assert not theirs.isfinite().all()


def test_with_a_cache_it_gives_what_it_gives_at_once() -> None:
    family = Qwen3()
    model: Any = family.build(family.dims(), dtype=torch.float64, device="cpu", attention=EXACT, seed=1)
    with torch.no_grad():
        whole = model(IDS).logits
        start = model(IDS[:, :6], use_cache=True)
        pieces = [start.logits]
        for place in range(6, 9):
            step = model(IDS[:, place : place + 1], past_key_values=start.past_key_values, use_cache=True)
            pieces.append(step.logits)
    assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-12, atol=1e-12)
