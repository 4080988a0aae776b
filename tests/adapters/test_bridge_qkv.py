"""The one QKV layout against HF's own splitting code, and the projections that are split off it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, build, gap, pair
from verifier_bridge import QKVLayout
from verifier_bridge.falcon import layout_of
from verifier_bridge.verifier_adapter import BridgeAdapter

LAYOUTS: list[dict[str, Any]] = [
    {"multi_query": True},
    {"multi_query": True, "num_kv_heads": 71},
    {"multi_query": False},
    *({"new_decoder_architecture": True, "num_kv_heads": groups} for groups in (1, 2, 3, 4, 6, 12)),
]


@pytest.mark.parametrize("flags", LAYOUTS, ids=str)
def test_rows_are_those_of_hugging_face(flags: dict[str, Any]) -> None:
    model = build(**flags)
    attention, layout = model.transformer.h[0].self_attention, layout_of(model.config)
    rows = torch.arange(attention.query_key_value.out_features)
    theirs = [part[0, 0] for part in attention._split_heads(rows[None, None])]
    ours = layout.split(rows)
    read_by = torch.arange(12) // layout.queries_per_group
    assert layout.rows == len(rows)
    assert torch.equal(ours.q, theirs[0])
    assert torch.equal(ours.k[read_by], theirs[1].expand(12, -1))
    assert torch.equal(ours.v[read_by], theirs[2].expand(12, -1))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_fusing_undoes_splitting_along_any_axis(dim: int) -> None:
    layout = QKVLayout(n_groups=3, queries_per_group=2, d_head=5)
    shape = [4, 4, 4]
    shape[dim] = layout.rows
    fused = torch.randn(shape)
    assert torch.equal(layout.fuse(layout.split(fused, dim), dim % 3), fused)


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_split_projections_make_what_the_fused_one_makes(flags: dict[str, Any]) -> None:
    model = build(**flags)
    subject = BridgeAdapter().wrap(model)
    fused = model.transformer.h[1].self_attention.query_key_value
    split, x = subject.weights.split(1), torch.randn(2, 3, 72, dtype=torch.float64)
    for projection, part in zip((split.q, split.k, split.v), layout_of(model.config).split(fused(x)), strict=True):
        assert gap(projection(x), part.flatten(2)) < 1e-14
        assert projection.weight.shape == (part.shape[2] * part.shape[3], 72)
        assert (projection.bias is None) == (fused.bias is None)


def test_split_weights_show_a_changed_fused_weight_and_do_not_overlap() -> None:
    model = build(**KINDS["7b"])
    split = BridgeAdapter().wrap(model).weights.split(0)
    starts = [split.q.weight.data_ptr(), split.k.weight.data_ptr(), split.v.weight.data_ptr()]
    weights = [split.q.weight, split.k.weight, split.v.weight]
    spans = [range(w.data_ptr(), w.data_ptr() + w.nbytes) for w in weights]
    assert len(set(starts)) == 3
    assert all(a.stop <= b.start or b.stop <= a.start for a, b in combinations(spans, 2))
    model.transformer.h[0].self_attention.query_key_value.weight.data.fill_(7.0)
    assert bool((split.k.weight == 7.0).all())


def test_a_split_weight_is_in_the_graph_of_the_fused_one() -> None:
    _, bridge = pair(**KINDS["40b"])
    key = bridge.get_submodule("blocks.0.attn.k")
    key(torch.ones(1, 72, dtype=torch.float64)).sum().backward()
    gradient = bridge.model.get_parameter("transformer.h.0.self_attention.query_key_value.weight").grad
    assert gradient is not None
    assert torch.equal(gradient.sum(1).nonzero().flatten(), layout_of(bridge.model.config).rows_of("k"))
