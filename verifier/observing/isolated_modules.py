"""Hugging Face's modules, each run alone: called as HF calls it in its place, on random hidden states.

How HF calls them is seen in one forward of the untouched model on padded rows, so that masks and positions are real
ones. What comes in is made random, because what a module does with the activations of one model says little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.cases.spec import SEMANTIC_DTYPE, Scenario
from verifier.family import Family
from verifier.judging.numerics import measured_noise
from verifier.judging.outcome import NotApplicable
from verifier.observing.case import Case
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, Perturbation
from verifier.reference.random_weights import generator
from verifier.reference.weights import n_layers_of

SCENARIO = Scenario.PADDED


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
    return _mapped(value, lambda tensor: tensor.detach().clone())


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same, with each tensor in it changed."""
    match value:
        case Tensor():
            return change(value)
        case tuple() | list():
            return type(value)(_mapped(one, change) for one in value)
        case dict():
            return {name: _mapped(one, change) for name, one in value.items()}
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleReference:
    """What HF's module gives alone.

    Attributes:
        call: how it is called.
        truth: its main output in float64.
        noise: of that output.
        defined: what is defined of it: real tokens; None where all is.
        dtype: of HF's own output.
    """

    call: Call
    truth: Tensor
    noise: float
    defined: Tensor | None
    dtype: torch.dtype


def parts(case: Case, dtype: str = SEMANTIC_DTYPE) -> Mapping[str, Part]:
    """HF's module for every canonical component of the model that has one: the projections of each layer, too."""
    return case.memo.memoize(("parts", dtype), lambda: _parts_of(case.family, case.reference.model(dtype)))


def _parts_of(family: Family, model: nn.Module) -> Mapping[str, Part]:
    found = {name: Part(module=module) for name, module in family.components(model).items()}
    for layer in range(n_layers_of(family, model)):
        rows = family.qkv_rows(model, layer)
        for letter in "qkv":
            projection = getattr(rows, letter)
            module = model.get_submodule(projection.module)
            found[f"blocks.{layer}.attn.{letter}"] = Part(module=module, rows=projection.rows.flatten())
    return found


def calls(case: Case, dtype: str = SEMANTIC_DTYPE) -> Mapping[str, Call]:
    """By component: how HF calls its module, with random hidden states; those that HF does not call are not there."""

    def make() -> Mapping[str, Call]:
        seen: dict[str, Call] = {}
        with contextlib.ExitStack() as stack:
            for name, part in parts(case, dtype).items():
                stack.enter_context(_watched(part.module, name, seen))
            with torch.no_grad():
                models.forward(case.reference.model(dtype), case.reference.inputs(SCENARIO, dtype))
        return {name: _with_random_input(case, name, call) for name, call in seen.items()}

    return case.shared_reference.memoize(("calls", dtype), make)


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


def module_reference(case: Case, name: str) -> ModuleReference:
    """What HF's module of that component gives on random hidden states.

    Raises:
        NotApplicable: HF has none, or does not call it.
    """
    call = calls(case).get(name)
    if call is None:
        raise NotApplicable(f"HF's model calls no {name}")
    found = case.shared_reference.memoize(("alone", name), lambda: measured(case, name, call))
    return case.memo.memoize(("alone here", name), lambda: _held(case, name, found))


def _held(case: Case, name: str, found: ModuleReference) -> ModuleReference:
    """The same, if it is what this case's own module gives, and else what that is.

    What a module gives may come to nothing in the whole model, which then does not tell it from another: positions
    are rotated in vain where there are no layers, or where the model has ALiBi.
    """
    given = _output(parts(case)[name], found.call)
    return found if torch.equal(given, found.truth) else measured(case, name, found.call)


def measured(case: Case, name: str, call: Call) -> ModuleReference:
    """What HF's module of that component gives for these arguments in float64, and the noise of that."""
    part = parts(case)[name]
    truth, moved = _output(part, call), _output(part, call, moved_in=torch.float64)
    defined = _defined(case, truth)
    total = measured_noise(truth, None, [moved], torch.float64, defined)
    return ModuleReference(call=call, truth=truth, noise=total, defined=defined, dtype=truth.dtype)


def each_in(case: Case, dtype: str) -> Mapping[str, ModuleReference]:
    """By component: what float64 makes of weights and arguments of a model in that dtype, and HF's noise in it."""

    def make() -> Mapping[str, ModuleReference]:
        true = _parts_of(case.family, case.reference.rounded_model(dtype))
        return {name: _in_dtype(case, name, dtype, true[name]) for name in calls(case, dtype)}

    return case.memo.memoize(("each alone", dtype), make)


def _in_dtype(case: Case, name: str, dtype: str, true: Part) -> ModuleReference:
    part, call, working = parts(case, dtype)[name], calls(case, dtype)[name], getattr(torch, dtype)
    truth = _output(true, Call(args=_widened(call.args), kwargs=_widened(dict(call.kwargs))))
    defined, own = _defined(case, truth), _output(part, call)
    total = measured_noise(truth, own, [_output(part, call, moved_in=working)], working, defined)
    return ModuleReference(call=call, truth=truth, noise=total, defined=defined, dtype=own.dtype)


def _output(part: Part, call: Call, *, moved_in: torch.dtype | None = None) -> Tensor:
    """The part's main output, a copy; with every result of that dtype moved by a unit in the last place."""
    args, kwargs = call.fresh()
    moving = Perturbation(moved_in, PERTURBATION_SEED) if moved_in is not None else contextlib.nullcontext()
    with torch.no_grad(), moving:
        output = part(*args, **kwargs)
    return output.detach().clone()


def _widened(value: Any) -> Any:
    return _mapped(value, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def _defined(case: Case, output: Tensor) -> Tensor | None:
    """Real tokens, where the output is one of tokens: `[batch, pos, …]`."""
    real = case.reference.scenario(SCENARIO).real
    return real.reshape(*real.shape, *[1] * (output.ndim - 2)) if output.shape[:2] == real.shape else None
