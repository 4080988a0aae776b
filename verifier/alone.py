"""Hugging Face's modules, each run alone: called as HF calls it in its place, on random hidden states.

How HF calls them is seen in one forward of the untouched model on padded rows, so that masks and positions are real
ones. What comes in is made random, because what a module does with the activations of one model says little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from verifier import reference
from verifier.hf_weights import n_layers_of
from verifier.numerics import Noise, rms, unit
from verifier.outcome import NotApplicable
from verifier.perturbation import PERTURBATION_SEED, Perturbation
from verifier.random_weights import generator

if TYPE_CHECKING:
    from verifier.case import Case

SCENARIO = "padded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A canonical component as Hugging Face has it: a module, and of its output the rows that are the component's.

    Attributes:
        module: HF's.
        rows: `[n]`: which of its outputs are meant; None for all of them.
    """

    module: nn.Module
    rows: Tensor | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The main output."""
        output = self.module(*args, **kwargs)
        main: Tensor = output[0] if isinstance(output, tuple) else output
        return main if self.rows is None else main[..., self.rows.to(main.device)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The arguments of one call; `fresh` gives copies, which whoever is called may write into."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def fresh(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return _copied(self.args), _copied(dict(self.kwargs))

    @property
    def main(self) -> Tensor | None:
        """What comes in: the first tensor of the arguments."""
        return next((value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor)), None)

    def given(self, main: Tensor) -> Call:
        """The same with another tensor coming in."""
        for place, value in enumerate(self.args):
            if isinstance(value, Tensor):
                return replace(self, args=(*self.args[:place], main, *self.args[place + 1 :]))
        name = next(name for name, value in self.kwargs.items() if isinstance(value, Tensor))
        return replace(self, kwargs={**self.kwargs, name: main})


def _copied(value: Any) -> Any:
    match value:
        case Tensor():
            return value.detach().clone()
        case tuple() | list():
            return type(value)(_copied(one) for one in value)
        case dict():
            return {name: _copied(one) for name, one in value.items()}
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What HF's module gives alone.

    Attributes:
        call: how it is called.
        truth: its main output, in float64.
        noise: of that output.
        defined: what is defined of it: real tokens; None where all is.
    """

    call: Call
    truth: Tensor
    noise: float
    defined: Tensor | None


def parts(case: Case) -> Mapping[str, Part]:
    """HF's module for every canonical component of the model that has one: the projections of each layer, too."""

    def make() -> Mapping[str, Part]:
        model = case.reference()
        found = {name: Part(module=module) for name, module in case.family.components(model).items()}
        for layer in range(n_layers_of(case.family, model)):
            rows = case.family.qkv_rows(model, layer)
            for letter in "qkv":
                projection = getattr(rows, letter)
                module = model.get_submodule(projection.module)
                found[f"blocks.{layer}.attn.{letter}"] = Part(module=module, rows=projection.rows.flatten())
        return found

    return case.once(("parts",), make)


def calls(case: Case) -> Mapping[str, Call]:
    """By component: how HF calls its module, with random hidden states; those that HF does not call are not there."""

    def make() -> Mapping[str, Call]:
        seen: dict[str, Call] = {}
        with contextlib.ExitStack() as stack:
            for name, part in parts(case).items():
                stack.enter_context(_watched(part.module, name, seen))
            with torch.no_grad():
                reference.forward(case.reference(), case.inputs(SCENARIO))
        return {name: _with_random_input(case, name, call) for name, call in seen.items()}

    return case.once(("calls",), make)


@contextlib.contextmanager
def _watched(module: nn.Module, name: str, seen: dict[str, Call]) -> Iterator[None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.setdefault(name, Call(args=_copied(args), kwargs=_copied(kwargs)))

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _with_random_input(case: Case, name: str, call: Call) -> Call:
    came = call.main
    if came is None or not came.is_floating_point():
        return call
    draw = torch.randn(came.shape, generator=generator("alone", case.spec.seed, name), dtype=torch.float64)
    return call.given(draw.to(came.device, came.dtype))


def alone(case: Case, name: str) -> Alone:
    """What HF's module of that component gives on random hidden states.

    Raises:
        NotApplicable: HF has none, or does not call it.
    """
    call = calls(case).get(name)
    if call is None:
        raise NotApplicable(f"HF's model calls no {name}")
    return case.once(("alone", name), lambda: measured(case, name, call))


def measured(case: Case, name: str, call: Call) -> Alone:
    """What HF's module of that component gives for these arguments, and the noise of that."""
    part, real = parts(case)[name], case.scenario(SCENARIO).real
    args, kwargs = call.fresh()
    with torch.no_grad():
        truth = part(*args, **kwargs).detach().clone()
    args, kwargs = call.fresh()
    with torch.no_grad(), Perturbation(torch.float64, PERTURBATION_SEED):
        moved = part(*args, **kwargs)
    of_tokens = truth.shape[:2] == real.shape
    defined = real.reshape(*real.shape, *[1] * (truth.ndim - 2)) if of_tokens else None
    total = Noise(own=0.0, perturbed=rms(moved - truth, defined), unit=unit(truth, torch.float64, defined)).total
    return Alone(call=call, truth=truth, noise=total, defined=defined)
