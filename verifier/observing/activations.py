"""Observe a model at its canonical points in one run: activations, gradients, and the order in which hooks fire.

`reference_trace` reads Hugging Face's model through its taps. `subject_activations` and `subject_gradients` read the
subject through its hooks. Each runs once a case.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from verifier.adapter import Edit, HookInfo, Inputs, Subject, offered_points
from verifier.canonical import Point, template_of
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, Scenario
from verifier.judging.numerics import noise_from_float32
from verifier.judging.outcome import NotApplicable
from verifier.observing.capabilities import listed, require
from verifier.observing.case import Case
from verifier.observing.memo import memoized
from verifier.observing.reuse import memoized_for_equal_models
from verifier.reference import models

Value = TypeVar("Value", Tensor, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(Generic[Value]):
    """Every tensor of one run of Hugging Face's model, or the noise of each.

    Attributes:
        values: by canonical point, its activation; a trace of tensors has the `logits` too.
        gradients: by canonical point, the gradient of the logits' product with `CaseReference.cotangent`.
        weights: by canonical weight, the gradient of that product in the weight's canonical shape.
    """

    values: Mapping[str, Value]
    gradients: Mapping[str, Value]
    weights: Mapping[str, Value]


@memoized_for_equal_models
def reference_trace(case: Case, scenario: Scenario = Scenario.PLAIN) -> Trace[Tensor]:
    """Trace HF's activations and gradients at every canonical point, in float64.

    Args:
        case: the case.
        scenario: of the inputs that the model gets.
    """
    return _tapped(case, scenario, SEMANTIC_DTYPE)


def _tapped(case: Case, scenario: Scenario, dtype: str) -> Trace[Tensor]:
    model = case.reference.model(dtype)
    with torch.enable_grad(), case.family.taps(model) as taps:
        logits = models.forward(model, case.reference.inputs(scenario)).logits
    gradients, weights = case.reference.gradients(model, logits, taps.values, scenario)
    return Trace(
        values={**{name: value.detach() for name, value in taps.values.items()}, "logits": logits.detach()},
        gradients=gradients,
        weights=weights,
    )


@memoized_for_equal_models
def noise(case: Case, scenario: Scenario = Scenario.PLAIN) -> Trace[float]:
    """Measure the float64 noise of HF's activations and gradients.

    Args:
        case: the case.
        scenario: of the inputs that the model gets.

    Returns:
        The noise of each value and gradient by its canonical point, and of each weight's gradient by its name.
    """
    truth, single = reference_trace(case, scenario), _tapped(case, scenario, SINGLE)
    defined = {point.name: case.reference.defined(point.axes, scenario) for point in case.reference.points}

    def each(exact: Mapping[str, Tensor], rounded: Mapping[str, Tensor]) -> dict[str, float]:
        return {name: noise_from_float32(exact[name], value, defined.get(name)) for name, value in rounded.items()}

    return Trace(
        values=each(truth.values, {name: value for name, value in single.values.items() if name != "logits"}),
        gradients=each(truth.gradients, single.gradients),
        weights=each(truth.weights, single.weights),
    )


# --- the subject -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Seen:
    """What hooks read in one run.

    Attributes:
        fired: the points in the order in which they fired, each as often as it fired.
        values: by point, a copy of its first value in canonical axes.
        kept: by point, that value itself and no copy, as a cache of activations keeps it.
        gradients: by point, a copy of its first gradient in canonical axes.
        gradients_fired: the points in the order in which their gradients fired.
        logits: `[batch, pos, d_vocab]`.
    """

    fired: list[str] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    gradients_fired: list[str] = field(default_factory=list)
    logits: Tensor | None = None


@memoized
def hook_points(case: Case) -> Mapping[str, HookInfo]:
    """List the points that the subject offers by canonical name, or by the adapter's own if there is no canonical one.

    Raises:
        Blocked: listing them raises; `hooks.present` reports it.
    """
    hooks = require(case.subject.wrapped().hooks)
    return listed(lambda: offered_points(hooks), "hooks.present")


def shared_points(case: Case) -> list[Point]:
    """List the canonical points of the model that the subject has, in causal order.

    Raises:
        NotApplicable: the subject has none.
    """
    names = hook_points(case)
    found = [point for point in case.reference.points if point.name in names]
    if not found:
        raise NotApplicable("the adapter has none of the model's canonical hook points")
    return found


def by_switch(case: Case, names: Iterable[str]) -> Mapping[str | None, list[str]]:
    """Group points by the switch that must be on for them; points without a switch come first.

    A run turns on one switch, because switches may exclude each other.

    Args:
        case: whose subject offers the points.
        names: of the points.

    Returns:
        The names by switch; under None those that need no switch.
    """
    infos, found = hook_points(case), dict[str | None, list[str]]()
    for name in sorted(names, key=lambda name: infos[name].switch is not None):
        found.setdefault(infos[name].switch, []).append(name)
    return found


def order_of_axes(given: Sequence[str] | None, axes: Sequence[str]) -> tuple[int, ...] | None:
    """Find the permutation from an adapter's axes to canonical ones; None where they are canonical, or others.

    Args:
        given: the names of the adapter's axes; None where it names none.
        axes: the canonical axes.

    Returns:
        For each canonical axis the place of the adapter's axis; or None.
    """
    if given is None or tuple(given) == tuple(axes) or sorted(given) != sorted(axes):
        return None
    return tuple(given.index(axis) for axis in axes)


@contextlib.contextmanager
def hooked(
    case: Case,
    subject: Subject,
    *,
    forward: Mapping[str, Edit] | None = None,
    backward: Mapping[str, Edit] | None = None,
) -> Iterator[None]:
    """Hook the subject with these edits, in canonical axes, and turn on the switches of their points.

    Args:
        case: of the points and their axes.
        subject: to hook.
        forward: by point, the edits of its values.
        backward: by point, the edits of its gradients.
    """
    orders = _axis_orders(case)

    def canonical(edits: Mapping[str, Edit] | None) -> dict[str, Edit]:
        return {name: permuted(edit, orders.get(name)) for name, edit in (edits or {}).items()}

    hooks = require(subject.hooks)
    there, back = canonical(forward), canonical(backward)
    gated = frozenset(name for name in {**there, **back} if hook_points(case)[name].switch is not None)
    with hooks.switched(gated) if gated else contextlib.nullcontext(), hooks.hooked(there, back):
        yield


@memoized
def _axis_orders(case: Case) -> Mapping[str, tuple[int, ...]]:
    axes, infos = {point.name: point.axes for point in case.reference.points}, hook_points(case)
    orders = {name: order_of_axes(info.axes, axes[name]) for name, info in infos.items() if name in axes}
    # An alias of a point has the point's values and, unless it says otherwise, its axes.
    for name, info in infos.items():
        target = info.alias_of
        if name not in axes and target in axes and target in infos:
            orders[name] = order_of_axes(info.axes or infos[target].axes, axes[target])
    return {name: order for name, order in orders.items() if order is not None}


def permuted(edit: Edit, order: tuple[int, ...] | None) -> Edit:
    """Make an edit in canonical axes one in an adapter's.

    Args:
        edit: of a tensor in canonical axes.
        order: as `order_of_axes` gives it; None where the axes are alike.
    """
    if order is None:
        return edit
    back = tuple(order.index(axis) for axis in range(len(order)))

    def act(value: Tensor) -> Tensor | None:
        edited = edit(value.permute(order))
        return None if edited is None else edited.permute(back)

    return act


def observe(
    case: Case,
    subject: Subject,
    names: Iterable[str],
    inputs: Inputs,
    *,
    along: Tensor | None = None,
    gradients_of: Iterable[str] | None = None,
) -> Seen:
    """Run the subject and read its activations, and its gradients where `along` is given.

    Args:
        case: of the subject.
        subject: the wrapped model.
        names: the points whose values are read.
        inputs: of the forward.
        along: `[batch, pos, d_vocab]`, what the logits are multiplied with; None for a forward without gradients.
        gradients_of: the points whose gradients are read; all of `names` if not given.
    """
    seen = Seen()
    wanted = list(names)

    def reader(name: str) -> Edit:
        def read(value: Tensor) -> None:
            seen.fired.append(name)
            if name not in seen.values:
                seen.kept[name] = value.detach()
                seen.values[name] = value.detach().clone()

        return read

    def grad_hook(name: str) -> Edit:
        def keep(gradient: Tensor) -> None:
            seen.gradients_fired.append(name)
            seen.gradients.setdefault(name, gradient.detach().clone())

        return keep

    forward = {name: reader(name) for name in wanted}
    differentiated = () if along is None else wanted if gradients_of is None else gradients_of
    backward = {name: grad_hook(name) for name in differentiated}
    with torch.set_grad_enabled(along is not None), hooked(case, subject, forward=forward, backward=backward):
        seen.logits = logits = subject.forward(inputs).logits
        if along is not None:
            logits.backward(along.to(logits))
            seen.logits = logits.detach()
    return seen


@memoized
def subject_activations(case: Case, scenario: Scenario = Scenario.PLAIN, switch: str | None = None) -> Seen:
    """Read the subject's points with that switch, aliases too, in a forward without gradients.

    Args:
        case: the case.
        scenario: of the inputs that the model gets.
        switch: the one that the points need; None for points that need no switch.
    """
    case.subject.require_forward()
    names = [name for name, info in hook_points(case).items() if info.switch == switch]
    return observe(case, case.subject.wrapped(), names, case.reference.inputs(scenario))


@memoized
def subject_gradients(case: Case, scenario: Scenario = Scenario.PLAIN, switch: str | None = None) -> Seen:
    """Read the values and gradients of the subject's canonical points with that switch.

    Args:
        case: the case.
        scenario: of the inputs that the model gets.
        switch: the one that the points need; None for points that need no switch.
    """
    case.subject.require_forward()
    shared = [point for point in shared_points(case) if hook_points(case)[point.name].switch == switch]
    names = [point.name for point in shared]
    differentiable = [point.name for point in shared if not point.kind.is_discrete]
    inputs, along = case.reference.inputs(scenario), case.reference.cotangent(scenario)
    return observe(case, case.subject.wrapped(), names, inputs, along=along, gradients_of=differentiable)


def all_values(case: Case, scenario: Scenario = Scenario.PLAIN) -> Mapping[str, Tensor]:
    """Read the subject's values at all of the model's canonical points, switch by switch.

    Args:
        case: the case.
        scenario: of the inputs that the model gets.

    Returns:
        The values `[batch, …]` by point; a point that showed none is left out.
    """
    found: dict[str, Tensor] = {}
    for switch, names in by_switch(case, [point.name for point in shared_points(case)]).items():
        values = subject_activations(case, scenario, switch).values
        found |= {name: values[name] for name in names if name in values}
    return found


def by_template(names: Iterable[str], most: int = 4) -> str:
    """List points for people, each layer's under one name: `blocks.{i}.attn.hook_q, … and 3 more`.

    Args:
        names: of the points.
        most: how many templates are written out; the others are counted.
    """
    templates = list(dict.fromkeys(template_of(name) for name in names))
    more = f" and {len(templates) - most} more" if len(templates) > most else ""
    return ", ".join(templates[:most]) + more
