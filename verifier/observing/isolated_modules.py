"""Run each module of Hugging Face's model alone: called as HF calls it in its place, on random hidden states.

The calls are recorded in one forward of the untouched model on padded rows, so that masks and positions are real
ones. The hidden states are replaced by random ones: the activations of one model use few of a module's directions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from verifier.cases.spec import SEMANTIC_DTYPE, Scenario
from verifier.family import Family
from verifier.judging.numerics import measured_noise
from verifier.judging.outcome import NotApplicable
from verifier.observing.case import Case
from verifier.observing.memo import memoized
from verifier.observing.reuse import memoized_for_equal_models
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, Perturbation
from verifier.reference.random_weights import generator
from verifier.reference.weights import attention_layers

SCENARIO = Scenario.PADDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A canonical component in Hugging Face's model: a module, and which of its outputs belong to the component.

    Attributes:
        module: HF's module.
        rows: `[n]`, the outputs of the component; None for all of them.
    """

    module: nn.Module
    rows: Tensor | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Call the module and select the component's part of its first output."""
        output = self.module(*args, **kwargs)
        main: Tensor = output[0] if isinstance(output, tuple) else output
        return main if self.rows is None else main[..., self.rows.to(main.device)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The arguments of one call of a module."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def convert(self, change: Callable[[Tensor], Tensor]) -> Call:
        """Make the call with every tensor changed, also inside tuples, lists and dicts."""
        args, kwargs = tree_map_only(Tensor, change, (self.args, dict(self.kwargs)))
        return Call(args=args, kwargs=kwargs)

    def copy(self) -> Call:
        """Copy the arguments, so that the module may write into them."""
        return self.convert(lambda tensor: tensor.detach().clone())

    @property
    def main_input(self) -> Tensor | None:
        """The first tensor among the arguments."""
        return next((value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor)), None)

    def with_main_input(self, main: Tensor) -> Call:
        """Make the call with another main input, which the call must have."""
        replaced = self.main_input
        return Call(
            args=tuple(main if value is replaced else value for value in self.args),
            kwargs={name: main if value is replaced else value for name, value in self.kwargs.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleReference:
    """What Hugging Face's module of one component gives when it is called alone.

    Attributes:
        call: the arguments.
        truth: its first output in float64.
        noise: of the output.
        defined: broadcasts to the output, true at real tokens; None where all of it is defined.
        dtype: of HF's own output.
    """

    call: Call
    truth: Tensor
    noise: float
    defined: Tensor | None
    dtype: torch.dtype


@memoized
def parts(case: Case, dtype: str = SEMANTIC_DTYPE) -> Mapping[str, Part]:
    """Find HF's module for every canonical component that has one, and for each layer's q, k and v projection.

    Args:
        case: whose HF model is read.
        dtype: of the model.

    Returns:
        The parts by the name of the component or projection.
    """
    return _parts_of(case.family, case.reference.model(dtype))


def _parts_of(family: Family, model: nn.Module) -> Mapping[str, Part]:
    found = {name: Part(module=module) for name, module in family.components(model).items()}
    for layer in attention_layers(family, model):
        rows = family.qkv_rows(model, layer)
        for letter in "qkv":
            projection = getattr(rows, letter)
            module = model.get_submodule(projection.module)
            found[f"blocks.{layer}.attn.{letter}"] = Part(module=module, rows=projection.rows.flatten())
    return found


@memoized_for_equal_models
def calls(case: Case, dtype: str = SEMANTIC_DTYPE) -> Mapping[str, Call]:
    """Record how HF calls the module of each component, and make the hidden states random.

    Args:
        case: whose HF model is run.
        dtype: of the model.

    Returns:
        By component, in the order of HF's calls; a component that HF does not call is left out.
    """
    recorded: dict[str, Call] = {}
    with contextlib.ExitStack() as stack:
        for name, part in parts(case, dtype).items():

            def record(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
                recorded.setdefault(name, Call(args=args, kwargs=kwargs).copy())

            stack.enter_context(part.module.register_forward_pre_hook(record, with_kwargs=True))
        with torch.no_grad():
            models.forward(case.reference.model(dtype), case.reference.inputs(SCENARIO))
    return {name: _with_random_input(case, name, call) for name, call in recorded.items()}


def _with_random_input(case: Case, name: str, call: Call) -> Call:
    recorded = call.main_input
    if recorded is None or not recorded.is_floating_point():
        return call
    draw = torch.randn(recorded.shape, generator=generator("alone", case.spec.seed, name), dtype=torch.float64)
    return call.with_main_input(draw.to(recorded.device, recorded.dtype))


@memoized
def module_reference(case: Case, name: str) -> ModuleReference:
    """Run HF's module of a component on random hidden states, in float64.

    Args:
        case: the case.
        name: of the component, or of the projection, as in `parts`.

    Raises:
        NotApplicable: HF has no such module, or does not call it.
    """
    call = calls(case).get(name)
    if call is None:
        raise NotApplicable(f"HF's model calls no {name}")
    shared = case.shared_reference.memoize(("isolated module", name), lambda: measured(case, name, call))
    # Two modules may differ although their whole models agree: rotated positions have no effect where there are
    # no layers, or where the model has ALiBi. So each case's own module is run too.
    own = _output(parts(case)[name], shared.call)
    return shared if torch.equal(own, shared.truth) else measured(case, name, shared.call)


def measured(case: Case, name: str, call: Call) -> ModuleReference:
    """Run HF's module of a component with these arguments in float64, and measure the noise of its output.

    Args:
        case: the case.
        name: of the component, or of the projection, as in `parts`.
        call: the arguments that HF's module gets.
    """
    part = parts(case)[name]
    return _measure(case, part, call, _output(part, call), torch.float64)


@memoized
def each_in(case: Case, dtype: str) -> Mapping[str, ModuleReference]:
    """Run the module of each component in a working dtype.

    Args:
        case: the case.
        dtype: the working dtype.

    Returns:
        By component: the float64 output of the same rounded weights and arguments, and HF's noise in that dtype.
    """
    exact, working = _parts_of(case.family, case.reference.rounded_model(dtype)), parts(case, dtype)
    references = {}
    for name, call in calls(case, dtype).items():
        truth = _output(exact[name], call.convert(lambda value: value.double() if value.is_floating_point() else value))
        own = _output(working[name], call)
        references[name] = _measure(case, working[name], call, truth, getattr(torch, dtype), own)
    return references


def _measure(
    case: Case, part: Part, call: Call, truth: Tensor, dtype: torch.dtype, own: Tensor | None = None
) -> ModuleReference:
    """Measure the noise of a part's output in a dtype; `own` is that output, None in float64, where it is the truth."""
    real = case.reference.scenario(SCENARIO).real
    # Only an output with positions `[batch, pos, …]` has padding.
    defined = real.reshape(*real.shape, *[1] * (truth.ndim - 2)) if truth.shape[:2] == real.shape else None
    noise = measured_noise(truth, own, [_output(part, call, perturbed_in=dtype)], dtype, defined)
    given_dtype = truth.dtype if own is None else own.dtype  # HF computes rotary tables in float32 in any model
    return ModuleReference(call=call, truth=truth, noise=noise, defined=defined, dtype=given_dtype)


def _output(part: Part, call: Call, *, perturbed_in: torch.dtype | None = None) -> Tensor:
    """Run a part and copy its output; with `perturbed_in`, every result of that dtype is moved by a unit."""
    copy = call.copy()
    perturbation = Perturbation(perturbed_in, PERTURBATION_SEED) if perturbed_in else contextlib.nullcontext()
    with torch.no_grad(), perturbation:
        output = part(*copy.args, **copy.kwargs)
    return output.detach().clone()
