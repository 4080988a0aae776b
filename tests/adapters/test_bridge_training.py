"""Training: dropout drawn as HF draws it, and gradient checkpointing, under which hooks run once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, gap, pair, tokens
from torch import Tensor
from verifier_bridge import Bridge

DROPOUT = {"hidden_dropout": 0.3, "attention_dropout": 0.2}


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_the_same_random_state_gives_the_same_dropout(flags: dict[str, Any]) -> None:
    model, bridge = pair(**flags, **DROPOUT)
    still = bridge(tokens()).logits
    model.train()
    bridge.train()
    torch.manual_seed(5)
    theirs = model(tokens()).logits
    torch.manual_seed(5)
    ours = bridge(tokens()).logits
    assert gap(ours, theirs) < 1e-13
    assert gap(ours, still) > 1e-2
    bridge.eval()
    assert torch.equal(bridge(tokens()).logits, still)


def test_the_same_dropout_in_half_precision() -> None:
    model, bridge = pair(**KINDS["rw"], **DROPOUT, dtype=torch.bfloat16)
    model.train()
    bridge.train()
    torch.manual_seed(5)
    theirs = model(tokens()).logits
    torch.manual_seed(5)
    assert gap(bridge(tokens()).logits, theirs) < 0.05


def test_wrapping_keeps_the_mode_that_each_part_is_in() -> None:
    model, _ = pair(**KINDS["rw"], **DROPOUT)
    model.train()
    model.transformer.h[1].eval()
    bridge = Bridge(model)
    torch.manual_seed(5)
    theirs = model(tokens()).logits
    torch.manual_seed(5)
    assert gap(bridge(tokens()).logits, theirs) < 1e-13
    bridge.eval()
    assert not any(module.training for module in model.modules())


def _loss_and_gradients(bridge: Bridge, seed: int) -> tuple[Tensor, list[Tensor | None]]:
    bridge.zero_grad()
    torch.manual_seed(seed)
    loss = bridge(tokens(), labels=tokens()).loss
    assert loss is not None
    loss.backward()
    return loss.detach(), [one.grad for one in bridge.parameters()]


def _same(ours: list[Tensor | None], theirs: list[Tensor | None]) -> bool:
    # A constant cuts off what is upstream of it: no gradient there, either time.
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _noisy(value: Tensor) -> Tensor:
    return value * 1.5 + 0.1 * torch.randn_like(value)


EDITS: dict[str, dict[str, Any]] = {
    "none": {},
    "reading": {"blocks.0.attn.hook_q": lambda value: None},
    "a product": {"blocks.0.attn.hook_q": lambda value: value * value, "blocks.1.hook_resid_pre": lambda v: v.tanh()},
    "a constant": {"blocks.1.attn.hook_z": torch.ones_like, "blocks.0.mlp.hook_post": torch.zeros_like},
    "noise": {"blocks.0.ln1.hook_normalized": _noisy, "blocks.1.attn.hook_pattern": _noisy},
    "writing": {"blocks.1.mlp.hook_pre": lambda value: value.mul_(0.5)},
    "scale": {"blocks.0.ln1.hook_scale": lambda value: value.detach(), "blocks.1.hook_resid_post": lambda v: 2 * v},
}


@pytest.mark.parametrize("kind", ["40b", "rw"])
@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
def test_checkpointing_changes_nothing(kind: str, edits: dict[str, Any]) -> None:
    _, bridge = pair(**KINDS[kind], **DROPOUT)
    bridge.train()
    backward = {"blocks.0.hook_mlp_out": lambda gradient: 3 * gradient, "blocks.1.attn.hook_v": lambda g: g.clone()}
    with bridge.hooked(edits, backward):
        plain = _loss_and_gradients(bridge, 7)
        bridge.gradient_checkpointing = True
        again = _loss_and_gradients(bridge, 7)
    assert torch.equal(again[0], plain[0])
    assert _same(again[1], plain[1])


def test_under_checkpointing_each_hook_runs_once() -> None:
    _, bridge = pair(**KINDS["40b"])
    bridge.gradient_checkpointing = True
    values: list[str] = []
    gradients: list[str] = []

    def note(name: str, where: list[str]) -> Any:
        return lambda value: where.append(name)

    names = list(bridge.hook_points)
    with (
        bridge.switched(names),
        bridge.hooked({n: note(n, values) for n in names}, {n: note(n, gradients) for n in names}),
    ):
        bridge(tokens(), labels=tokens()).loss.backward()
    assert values == names[:1] + sorted(values[1:], key=names.index)
    assert len(values) == len(set(values)) == len(names)
    assert sorted(gradients) == sorted(names)


def test_a_recompute_does_what_the_forward_did_whatever_is_attached_by_then() -> None:
    _, bridge = pair(**KINDS["rw"])
    edits = {"blocks.0.attn.hook_v": lambda value: value * value}
    with bridge.hooked(edits):
        _, expected = _loss_and_gradients(bridge, 0)
    bridge.zero_grad()
    bridge.gradient_checkpointing = True
    with bridge.hooked(edits):
        loss = bridge(tokens(), labels=tokens()).loss
    with bridge.hooked({"blocks.1.attn.hook_k": torch.zeros_like}, {"hook_embed": torch.zeros_like}):
        loss.backward()
    assert _same([one.grad for one in bridge.parameters()], expected)


def test_checkpointing_recomputes_the_blocks() -> None:
    _, bridge = pair(**KINDS["7b"])
    calls: list[int] = []
    handle = bridge.model.get_submodule("transformer.h.0.mlp.act").register_forward_hook(lambda *_: calls.append(1))
    bridge.gradient_checkpointing = True
    loss = bridge(tokens(), labels=tokens()).loss
    assert len(calls) == 1
    loss.backward()
    handle.remove()
    assert len(calls) == 2


def test_checkpointing_gives_a_cache_too() -> None:
    _, bridge = pair(**KINDS["40b"])
    bridge.gradient_checkpointing = True
    first = bridge(tokens(2, 5), use_cache=True)
    rest = bridge(tokens(2, 7)[:, 5:], cache=bridge(tokens(2, 7)[:, :5], use_cache=True).cache)
    assert first.cache is not None
    assert gap(rest.logits, bridge(tokens(2, 7)).logits[:, 5:]) < 1e-13
    rest.logits.sum().backward()
