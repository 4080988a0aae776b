"""What is kept of a forward is what was there, although Hugging Face writes into it afterwards.

Llama4 adds what its experts give to its shared expert's output in place, and Falcon what attention gives to its MLP's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from falcons import KINDS, build, tokens
from tiny_models import build_tiny, draw_tokens
from torch import Tensor
from torch.testing import assert_close

from verifier.adapter import Adapter, Edit, Inputs
from verifier.families.falcon import FalconFamily
from verifier.family import Family
from verifier.observing.circumstances.sides import ReferenceSide
from verifier.reference import models
from verifier.reference.taps import TapRecorder, tap_input, tap_output

MIXTURE = "model.layers.1.feed_forward"
SHARED = f"{MIXTURE}.shared_expert"
INPUTS = Inputs(input_ids=draw_tokens())


def first(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def watch(model: Any, path: str, act: Callable[[Tensor], Tensor | None]) -> None:
    """Do something with a module's output when the module gives it, and before Hugging Face writes into it."""
    model.get_submodule(path).register_forward_hook(lambda _module, _args, output: act(first(output)))


@contextlib.contextmanager
def tapped(model: Any, edits: Mapping[str, Edit] | None = None) -> Iterator[TapRecorder]:
    with TapRecorder([SHARED, MIXTURE, f"{SHARED}.down_proj", "its input"], edits or {}) as taps:
        for path in (f"{SHARED}.down_proj", SHARED, MIXTURE):
            tap_output(taps, path, model.get_submodule(path))
        tap_input(taps, "its input", model.get_submodule(SHARED))
        yield taps


def test_hugging_face_writes_into_what_the_shared_expert_gave() -> None:
    model, kept = build_tiny("Llama4ForCausalLM"), []
    watch(model, SHARED, lambda value: kept.append((value, value.clone())))
    models.forward(model, INPUTS)
    [(now, then)] = kept
    assert not torch.allclose(now, then)


@pytest.mark.parametrize("path", [SHARED, f"{SHARED}.down_proj", MIXTURE])
def test_a_tap_keeps_what_a_module_gave(path: str) -> None:
    model, untouched, seen = build_tiny("Llama4ForCausalLM"), build_tiny("Llama4ForCausalLM"), list[Tensor]()
    watch(untouched, path, lambda value: seen.append(value.detach().clone()))
    theirs = models.forward(untouched, INPUTS).logits
    with tapped(model) as taps:
        logits = models.forward(model, INPUTS).logits
    [truth] = seen
    assert torch.equal(taps.values[path], truth)
    assert torch.equal(logits, theirs)


def test_a_tap_keeps_what_a_module_was_given() -> None:
    model, untouched, seen = build_tiny("Llama4ForCausalLM"), build_tiny("Llama4ForCausalLM"), list[Tensor]()
    untouched.get_submodule(SHARED).register_forward_pre_hook(lambda _module, args: seen.append(args[0].clone()))
    models.forward(untouched, INPUTS)
    with tapped(model) as taps:
        models.forward(model, INPUTS)
    assert torch.equal(taps.values["its input"], seen[0])


def test_the_gradient_of_what_a_tap_keeps_is_that_of_what_the_module_gave() -> None:
    model, other = build_tiny("Llama4ForCausalLM"), build_tiny("Llama4ForCausalLM")
    with tapped(model) as taps:
        logits = models.forward(model, INPUTS).logits
    (ours,) = torch.autograd.grad(logits.square().sum(), taps.values[SHARED])
    added = torch.zeros_like(taps.values[SHARED], requires_grad=True)
    watch(other, SHARED, lambda value: value + added)
    (theirs,) = torch.autograd.grad(models.forward(other, INPUTS).logits.square().sum(), added)
    assert_close(ours, theirs)


def test_an_edit_replaces_what_a_module_gave() -> None:
    model, other = build_tiny("Llama4ForCausalLM"), build_tiny("Llama4ForCausalLM")
    with torch.no_grad(), tapped(model, {SHARED: lambda value: value * 0.5}):
        ours = models.forward(model, INPUTS).logits
    watch(other, SHARED, lambda value: value * 0.5)
    assert_close(ours, models.forward(other, INPUTS).logits)


@contextlib.contextmanager
def _taps(model: Any, *, names: Any = None, edits: Mapping[str, Edit] | None = None) -> Iterator[TapRecorder]:
    with tapped(model, edits) as taps:
        yield taps


def test_what_the_harness_shows_a_hook_is_not_written_into() -> None:
    model, kept = build_tiny("Llama4ForCausalLM"), list[tuple[Tensor, Tensor]]()
    side = ReferenceSide(cast("Family", SimpleNamespace(taps=_taps)), model, ())
    plain = side.forward(INPUTS).logits

    def keep(value: Tensor) -> None:
        kept.append((value, value.detach().clone()))

    def give_back(value: Tensor) -> Tensor:
        keep(given := value * 1.0)
        return given

    for edit in (keep, give_back):
        with side.hooked({SHARED: edit}):
            assert_close(side.forward(INPUTS).logits, plain)
    assert len(kept) == 2
    for now, then in kept:
        assert torch.equal(now, then)


@pytest.mark.parametrize("kind", ["one-norm-multi-query-rope", "two-norms-grouped-rope"])
def test_what_the_bridge_shows_a_hook_is_not_written_into(falcon: FalconFamily, bridge: Adapter, kind: str) -> None:
    subject, kept = bridge.wrap(build(falcon, KINDS[kind])), dict[str, tuple[Tensor, Tensor]]()
    assert subject.hooks is not None

    def keep(name: str) -> Edit:
        return lambda value: kept.update({name: (value, value.detach().clone())})

    names = subject.hooks.names()
    with subject.hooks.switched(names.keys()), subject.hooks.hooked({name: keep(name) for name in names}, {}):
        subject.forward(Inputs(input_ids=tokens()))
    assert kept.keys() == names.keys()
    assert [name for name, (now, then) in kept.items() if not torch.equal(now, then)] == []


@pytest.mark.parametrize("kind", ["one-norm-multi-query-rope", "two-norms-grouped-rope"])
def test_a_family_keeps_what_falcons_modules_gave(falcon: FalconFamily, kind: str) -> None:
    model, untouched, seen = build(falcon, KINDS[kind]), build(falcon, KINDS[kind]), dict[str, Tensor]()
    for layer in range(2):
        watch(untouched, f"transformer.h.{layer}.mlp", lambda value, layer=layer: _put(seen, layer, value))
    models.forward(untouched, Inputs(input_ids=tokens()))
    with falcon.taps(model) as taps:
        models.forward(model, Inputs(input_ids=tokens()))
    for layer in range(2):
        assert_close(taps.values[f"blocks.{layer}.hook_mlp_out"], seen[str(layer)])


class WritesIntoWhatItGave(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x * 2
        return h.add_(self.inner(h))


def test_an_input_that_is_written_into_later_is_told_and_not_shown() -> None:
    model, taps = WritesIntoWhatItGave(), TapRecorder(["input"], {})
    tap_input(taps, "input", model.inner)
    with torch.no_grad(), pytest.raises(RuntimeError, match="the value of input was written into"), taps:
        model(torch.ones(1, 2, 4))
    assert not model.inner._forward_pre_hooks


def _put(seen: dict[str, Tensor], layer: int, value: Tensor) -> None:
    seen[str(layer)] = value.detach().clone()
