"""Tiny Falcons that the harness's tests share: one for each way in which its blocks, positions and heads are made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytest
import torch

from verifier.cases.spec import CaseSpec
from verifier.families.falcon_refusals import refusal
from verifier.family import Family

# No two alike, and unlike the inputs' [5, 7]; six heads in three groups of two.
DIMS: Mapping[str, Any] = {
    "hidden_size": 24,
    "num_attention_heads": 6,
    "num_hidden_layers": 2,
    "ffn_hidden_size": 40,
    "vocab_size": 31,
    "max_position_embeddings": 64,
}
BATCH, LENGTH, LONG = 5, 7, 43

_NEW = {"new_decoder_architecture": True}
# What a block is made of and how its heads are grouped; half of them with biases.
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "sequential-multi-query": {"parallel_attn": False, "multi_query": True},
    "sequential-own-keys": {"parallel_attn": False, "multi_query": False, "bias": True},
    "one-norm-multi-query": {"multi_query": True, "bias": True},
    "one-norm-own-keys": {"multi_query": False},
    "one-norm-grouped": {**_NEW, "num_ln_in_parallel_attn": 1, "num_kv_heads": 3, "bias": True},
    "two-norms-multi-query": {**_NEW, "num_kv_heads": 1},
    "two-norms-grouped": {**_NEW, "num_kv_heads": 3, "bias": True},
    "two-norms-own-keys": {**_NEW, "num_kv_heads": 6},
}
KINDS: Mapping[str, Mapping[str, Any]] = {
    f"{name}-{position}": {**DIMS, **layout, "alibi": position == "alibi"}
    for name, layout in LAYOUTS.items()
    for position in ("rope", "alibi")
}
# Eight of them in which every layout occurs once and each position four times, and one without blocks.
SPREAD: Mapping[str, Mapping[str, Any]] = {
    **dict(item for number, item in enumerate(KINDS.items()) if number % 4 in (0, 3)),
    "no-layers": {**DIMS, "num_hidden_layers": 0},
}
# The default run's kinds: sequential, parallel under one norm and under two, each position, and no blocks.
FEWER = ("sequential-own-keys-alibi", "one-norm-multi-query-rope", "two-norms-grouped-rope", "no-layers")


def mostly_slow(kinds: Iterable[str], *, few: Collection[str] = FEWER) -> list[Any]:
    """Parametrize a test by kinds of block, each of which takes many seconds: the default run has a few of them."""
    return [kind if kind in few else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


# Models that HF builds, and refuses to run.
REFUSED: Mapping[str, Mapping[str, Any]] = {
    "old-parallel-two-norms": {**DIMS, "num_ln_in_parallel_attn": 2},
    "keys-shared-without-multi-query": {**DIMS, "multi_query": False, "num_kv_heads": 3},
    "new-sequential": {**DIMS, **_NEW, "parallel_attn": False},
}


def spec(config: Mapping[str, Any], **more: Any) -> CaseSpec:
    """The case of that config, with inputs as tiny as it is."""
    reason = refusal(config)
    usual = {
        "valid": reason is None,
        "reason": reason,
        "batch": BATCH,
        "length": LENGTH,
        "long": LONG,
        "depth": "pairwise",
    }
    return CaseSpec(family="falcon", config=config, **{**usual, **more})


def build(family: Family, config: Mapping[str, Any], *, attention: str = "sdpa", seed: int = 0) -> Any:
    """HF's model of that config in float64."""
    return family.build(config, dtype=torch.float64, device="cpu", attention=attention, seed=seed)


def tokens(batch: int = 3, length: int = LENGTH) -> torch.Tensor:
    """Token ids `[batch, length]`, the same ones every time."""
    drawn = torch.randint(0, DIMS["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(0))
    return drawn.clone()
