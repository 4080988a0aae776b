"""The checks of the split: each names the projection that is wrong, and lets a right adapter alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from falcons import KINDS, SPREAD, mostly_slow
from one_check import AmongAll, Broken, Judge, of_area
from torch import Tensor

from verifier.adapter import ProjectionLike, SplitQKV
from verifier.faults.altered_hooks import showing
from verifier.faults.mutants import Delegate, Mutation
from verifier.judging.outcome import Verdict

IDS = [one.id for one in of_area("qkv")]
GROUPED, UNBIASED = KINDS["two-norms-grouped-rope"], KINDS["one-norm-own-keys-rope"]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A projection of these rows."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def rows(projection: ProjectionLike) -> Rows:
    """A copy of the projection, to be changed."""
    bias = projection.bias
    return Rows(weight=projection.weight.detach().clone(), bias=None if bias is None else bias.detach().clone())


def only(layer: int, letter: str, change: Callable[[Rows], Rows]) -> Mutation:
    """Wrong in one projection of one layer."""

    def split(right: SplitQKV, at: int) -> SplitQKV:
        return replace(right, **{letter: change(rows(getattr(right, letter)))}) if at == layer else right

    return Mutation(split=split)


@pytest.mark.parametrize("check", IDS)
@pytest.mark.parametrize("kind", mostly_slow(kind for kind in SPREAD if kind != "no-layers"))
def test_a_right_adapter_passes(among_all: AmongAll, kind: str, check: str) -> None:
    assert among_all(kind)[check].verdict is Verdict.PASS, among_all(kind)[check]


@pytest.mark.parametrize("check", IDS)
def test_a_model_without_layers_has_nothing_to_split(among_all: AmongAll, check: str) -> None:
    found = among_all("no-layers")[check]
    assert (found.verdict, found.message) == (Verdict.SKIP, "not applicable: the model has no attention")


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("letter", ["q", "k", "v"])
def test_two_exchanged_rows_are_found_where_they_are(judge: Judge, broken: Broken, letter: str, layer: int) -> None:
    def exchange(one: Rows) -> Rows:
        one.weight[[0, 1]] = one.weight[[1, 0]]
        return one

    adapter = broken(only(layer, letter, exchange))
    found = judge("qkv.rows", adapter=adapter)
    assert (found.verdict, found.where) == (Verdict.FAIL, f"blocks.{layer}.attn.{letter}.weight")
    found = judge("qkv.projections", adapter=adapter)
    assert (found.verdict, found.where) == (Verdict.FAIL, f"blocks.{layer}.attn.{letter}")


def test_a_row_that_is_off_by_one_unit_is_not_hfs(judge: Judge, broken: Broken) -> None:
    def nudge(one: Rows) -> Rows:
        one.weight[0, 0] = torch.nextafter(one.weight[0, 0], torch.tensor(9.0, dtype=torch.float64))
        return one

    found = judge("qkv.rows", adapter=broken(only(0, "v", nudge)))
    assert (found.verdict, found.message) == (Verdict.FAIL, "1 of 288 values differ")


def test_a_wrong_bias_is_found(judge: Judge, broken: Broken) -> None:
    found = judge("qkv.rows", adapter=broken(only(1, "k", lambda one: replace(one, bias=-one.bias))))  # type: ignore[operator]
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.1.attn.k.bias")


def test_a_bias_that_hf_does_not_have_is_found_unless_it_is_zero(judge: Judge, broken: Broken) -> None:
    ones = broken(only(0, "q", lambda one: replace(one, bias=torch.ones_like(one.weight[:, 0]))))
    found = judge("qkv.rows", adapter=ones, config=UNBIASED)
    assert (found.where, found.message) == ("blocks.0.attn.q.bias", "there is one, and HF has none")
    zeros = broken(only(0, "q", lambda one: replace(one, bias=torch.zeros_like(one.weight[:, 0]))))
    assert judge("qkv.rows", adapter=zeros, config=UNBIASED).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("heads", "verdict", "said"),
    [(3, Verdict.PASS, None), (6, Verdict.FAIL, "6 heads of 4, not 3"), (1, Verdict.FAIL, "1 heads of 4, not 3")],
)
def test_key_value_heads_are_counted(
    judge: Judge, broken: Broken, heads: int, verdict: Verdict, said: str | None
) -> None:
    def resize(one: Rows) -> Rows:
        return replace(one, weight=one.weight.repeat(2, 1)[: 4 * heads])

    found = judge("qkv.heads", adapter=broken(only(0, "k", resize)))
    assert (found.verdict, found.message) == (verdict, said)


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (lambda weight: weight.float(), "dtype", "torch.float32 in a float64 model, not torch.float64"),
        (lambda weight: weight.to("meta"), "device", "meta in a float64 model, not cpu"),
    ],
    ids=["dtype", "device"],
)
def test_weights_elsewhere_or_of_another_dtype_are_found(
    judge: Judge, broken: Broken, change: Callable[[Tensor], Tensor], name: str, said: str
) -> None:
    found = judge("qkv.placement", adapter=broken(only(1, "v", lambda one: replace(one, weight=change(one.weight)))))
    assert (found.verdict, found.where) == (Verdict.FAIL, f"blocks.1.attn.v.weight.{name}")
    assert (found.message or "").startswith(said)


def test_a_split_that_is_right_in_float64_only_is_found(judge: Judge, broken: Broken) -> None:
    def in_single(one: Any) -> Any:
        return one if one.weight.dtype == torch.float64 else replace(one, weight=one.weight.float())

    found = judge("qkv.placement", adapter=broken(only(0, "q", in_single)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.q.weight.dtype")
    assert "in a bfloat16 model" in (found.message or "")


def test_a_point_that_takes_a_hook_and_never_fires_is_a_failure(judge: Judge, broken: Broken) -> None:
    class Silent(Delegate):
        def hooked(self, forward: Any, backward: Any) -> Any:
            return self.original.hooked({k: v for k, v in forward.items() if "hook_z" not in k}, backward)

    class Quiet(Delegate):
        def wrap(self, model: Any) -> Any:
            subject = self.original.wrap(model)
            subject.hooks = Silent(subject.hooks)
            return subject

    found = judge("qkv.reads", adapter=Quiet(broken(Mutation())))
    assert (found.verdict, found.message) == (Verdict.FAIL, "it takes a hook and does not fire (1 more place)")


def test_projections_that_share_memory_are_found(judge: Judge, broken: Broken) -> None:
    def split(right: SplitQKV, _layer: int) -> SplitQKV:
        fused = torch.cat([right.k.weight.detach(), right.v.weight.detach()])
        half = right.k.weight.shape[0]
        return replace(
            right,
            k=Rows(weight=fused[:half], bias=right.k.bias),
            v=Rows(weight=fused[half - 1 : -1], bias=right.v.bias),  # the first row is the key's last
        )

    found = judge("qkv.aliasing", adapter=broken(Mutation(split=split)))
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.k")
    assert found.message == "writing into it changes blocks.0.attn.v (3 more places)"


def test_the_weights_are_left_as_they_were_found(judge: Judge, broken: Broken) -> None:
    kept: list[tuple[Tensor, Tensor]] = []

    def split(right: SplitQKV, _layer: int) -> SplitQKV:
        mine = replace(right, q=rows(right.q), k=rows(right.k), v=rows(right.v))
        kept.extend((one.weight, one.weight.clone()) for one in (mine.q, mine.k, mine.v))
        return mine

    assert judge("qkv.aliasing", adapter=broken(Mutation(split=split))).verdict is Verdict.PASS
    assert kept
    assert all(torch.equal(now, before) for now, before in kept)


@pytest.mark.parametrize("kind", ["two-norms-grouped-rope", "one-norm-grouped-alibi"])
def test_key_value_heads_given_to_other_queries_are_found(judge: Judge, broken: Broken, kind: str) -> None:
    slots = torch.tensor([0, 2, 4, 1, 3, 5])  # tiled: query heads 0 and 3 read key/value head 0
    edits = {
        "attn.hook_q": lambda q: q[:, :, slots.argsort()],
        "attn.hook_z": lambda z: z[:, :, slots],
    }
    found = judge("qkv.reads", adapter=broken(Mutation(edits=edits)), config=KINDS[kind])
    assert (found.verdict, found.where) == (Verdict.FAIL, "blocks.0.attn.hook_z")


def test_a_head_that_reads_no_value_head_is_found(judge: Judge, broken: Broken) -> None:
    def deaf(z: Tensor) -> Tensor:  # [batch, pos, head, d_head]
        silent = z.clone()
        silent[:, :, 2] = 0
        return silent

    found = judge("qkv.reads", adapter=broken(showing("attn.hook_z", deaf)))
    assert (found.verdict, found.message) == (Verdict.FAIL, "1 of 6 values differ (1 more place)")
