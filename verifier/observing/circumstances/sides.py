"""The two sides of a comparison behind one interface: Hugging Face's tapped model, and a subject.

What is observed is written once, for both. A hook sees canonical axes on both sides. Contexts of hooks may be nested:
the outer one's hooks come first, and a hook of gradients is shown the gradient by what leaves its point, after edits.
"""

from __future__ import annotations

import contextlib
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from verifier.adapter import Edit, Inputs, Output, RunsWithCache, Subject, offered_points
from verifier.canonical import WEIGHTS, Point, template_of
from verifier.family import Family
from verifier.judging.outcome import NotApplicable
from verifier.observing.activations import order_of_axes, permuted
from verifier.observing.capabilities import require
from verifier.reference import models
from verifier.reference.weights import canonical_of, canonical_weights

EMBEDDING = "hook_embed"
_WEIGHTS = frozenset(one.template for one in WEIGHTS)

Hooks = Mapping[str, Edit]
"""Edits by canonical point."""

Around = Callable[[Callable[[], Any]], Any]
"""Makes the call that it is given, with something else before or within it."""


class Side(Protocol):
    """One of the two models in a circumstance.

    Attributes:
        dtype: of the model's matrices.
        points: the canonical points at which it can be looked, in causal order.
    """

    dtype: torch.dtype
    points: Sequence[Point]

    def hooked(self, forward: Hooks, backward: Hooks | None = None) -> contextlib.AbstractContextManager[None]:
        """Attach hooks until the context is left.

        Args:
            forward: edits of activations.
            backward: edits of gradients.
        """

    def forward(self, inputs: Inputs) -> Output:
        """Run the model."""

    def run_with_cache(self, inputs: Inputs, names: Sequence[str]) -> tuple[Output, Mapping[str, Tensor]]:
        """Run the model, and collect the activations at these points in canonical axes.

        Args:
            inputs: of the forward.
            names: of the points.
        """

    def twice_differentiable(self, inputs: Inputs) -> Output:
        """Run the model so that its gradients can be differentiated again."""

    def crop(self, cache: Any, length: int) -> Any:
        """Cut a cache to so many positions."""

    def continue_again(self, again: Callable[[], Any], cache: Any) -> Any:
        """Give a cache with the contents that it had before a forward used it.

        Args:
            again: makes the cache anew.
            cache: that was used.
        """

    def generate(self, ids: Tensor, count: int, mask: Tensor | None) -> Tensor:
        """Generate greedily: `[batch, pos + count]`.

        Args:
            ids: `[batch, pos]`.
            count: how many tokens are added.
            mask: `[batch, pos]`, or None.
        """

    def weights(self) -> Mapping[str, Tensor]:
        """Give the canonical weights."""

    def split(self, layer: int) -> Mapping[str, Tensor]:
        """Give the weights of a layer's query, key and value projections, as they are split."""

    def gradients(self) -> Mapping[str, Tensor]:
        """Give the gradients of the canonical weights that have one."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Give every parameter."""

    def embedding(self) -> nn.Parameter | None:
        """Give the parameter of the embedding."""

    def clear_gradients(self) -> None:
        """Clear the gradient of every parameter."""

    def component(self, name: str, x: Tensor) -> Tensor | None:
        """Run one component alone; None where the model has none of that name."""


class ReferenceSide:
    """Hugging Face's model, read and edited by the family's taps.

    Args:
        family: of the model.
        model: untouched, and nobody else's.
        points: at which it is looked.
        own_kernels: whether its own attention runs where that may have no second derivative.
    """

    def __init__(self, family: Family, model: Any, points: Sequence[Point], *, own_kernels: bool = False) -> None:
        self._family = family
        self._own_kernels = own_kernels
        self._model = model
        self._contexts: list[tuple[Hooks, Hooks]] = []
        self.points = points
        self.dtype = models.dtype_of(model)

    @contextlib.contextmanager
    def hooked(self, forward: Hooks, backward: Hooks | None = None) -> Iterator[None]:
        """Attach hooks until the context is left.

        Args:
            forward: edits of activations.
            backward: edits of gradients.
        """
        self._contexts.append((forward, backward or {}))
        try:
            yield
        finally:
            self._contexts.pop()

    def forward(self, inputs: Inputs) -> Output:
        """Run the model under the hooks of every open context."""
        names = dict.fromkeys(name for hooks in self._contexts for one in hooks for name in one)
        edits = {name: self._edit(name) for name in names}
        if inputs.inputs_embeds is not None and EMBEDDING in edits:
            # The tap stands at the embedding module, which given embeddings do not pass.
            inputs = replace(inputs, inputs_embeds=edits.pop(EMBEDDING)(inputs.inputs_embeds))
        if not edits:
            return models.forward(self._model, inputs)
        with self._family.taps(self._model, names=[], edits=edits):
            return models.forward(self._model, inputs)

    def run_with_cache(self, inputs: Inputs, names: Sequence[str]) -> tuple[Output, Mapping[str, Tensor]]:
        """Run the model, and collect what hooks are shown at these points."""
        found: dict[str, Tensor] = {}
        with self.hooked({name: _collector(found, name) for name in names}):
            return self.forward(inputs), found

    def _edit(self, name: str) -> Edit:
        forward = [there[name] for there, _ in self._contexts if name in there]
        backward = [back[name] for _, back in self._contexts if name in back]

        def act(value: Tensor) -> Tensor:
            value = value.clone()
            for edit in forward:
                given = edit(value)
                value = value if given is None else given.to(value.dtype)
            if backward and torch.is_grad_enabled():
                value = value.clone() if value.requires_grad else value.detach().clone().requires_grad_()
                value.register_hook(_in_turn(backward))
            return value.clone(memory_format=torch.contiguous_format)  # Hugging Face adds into what a module gives

        return act

    def twice_differentiable(self, inputs: Inputs) -> Output:
        """Run the model with the taps' own attention: torch's kernels on the CPU have no second derivative."""
        if self._own_kernels:
            return self.forward(inputs)
        points = self._family.points(vars(self._model.config))
        patterns = {point.name: torch.clone for point in points if {"query", "key"} <= set(point.axes)}
        with self.hooked(patterns):
            return self.forward(inputs)

    def crop(self, cache: Any, length: int) -> Any:
        """Cut Hugging Face's cache, in place, to so many positions."""
        cache.crop(length - cache.get_seq_length())  # as a number of positions to take away
        return cache

    def continue_again(self, again: Callable[[], Any], cache: Any) -> Any:
        """Make the cache anew: Hugging Face's forward adds to the one that it is given."""
        return again()

    def generate(self, ids: Tensor, count: int, mask: Tensor | None) -> Tensor:
        """Generate greedily, by Hugging Face's own loop, or where there are hooks token by token as that does."""
        if not self._contexts:
            return models.greedy(self._model, ids.long(), max_new_tokens=count, attention_mask=mask)[0]
        tokens, new, cache = ids, ids, None
        positions = None if mask is None else (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)
        for _ in range(count):
            given = Inputs(input_ids=new, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True)
            output = self.forward(given)
            cache, new = output.cache, output.logits[:, -1:].argmax(-1)
            tokens = torch.cat((tokens, new), dim=1)
            if mask is not None and positions is not None:
                mask = torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
                positions = positions[:, -1:] + 1
        return tokens

    def weights(self) -> Mapping[str, Tensor]:
        """Give the canonical weights."""
        return canonical_weights(self._family, self._model, lambda parameter: parameter)

    def split(self, layer: int) -> Mapping[str, Tensor]:
        """Give Hugging Face's rows of a layer's query, key and value projections."""
        rows = self._family.qkv_rows(self._model, layer)
        found: dict[str, Tensor] = {}
        for letter in "qkv":
            projection = getattr(rows, letter)
            weight = self._model.get_submodule(projection.module).weight
            found[f"split.{letter}"] = weight[projection.rows.flatten().to(weight.device)]
        return found

    def gradients(self) -> Mapping[str, Tensor]:
        """Give the gradients of the canonical weights that have one."""
        return canonical_of(self._family, self._model, lambda parameter: parameter.grad)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Give every parameter."""
        return list(self._model.parameters())

    def embedding(self) -> nn.Parameter | None:
        """Give the parameter of the embedding."""
        found: nn.Parameter = self._model.get_input_embeddings().weight
        return found

    def clear_gradients(self) -> None:
        """Clear the gradient of every parameter."""
        self._model.zero_grad()

    def component(self, name: str, x: Tensor) -> Tensor | None:
        """Run one of Hugging Face's modules alone; None where the model has none of that name."""
        components = self._family.components(self._model)
        return components[name](x) if name in components else None


class SubjectSide:
    """A subject, through the adapter protocol.

    Args:
        subject: the wrapped model.
        points: the canonical points of the model, in causal order.
        dtype: of the model's matrices.
        wrapped: the parameters of the model that was wrapped, which the subject may use or may have copied.

    Attributes:
        subject: the wrapped model; a copy may take its place.
    """

    def __init__(
        self, subject: Subject, points: Sequence[Point], dtype: torch.dtype, wrapped: Sequence[nn.Parameter] = ()
    ) -> None:
        self.subject = subject
        self.dtype = dtype
        self._wrapped = wrapped
        self._adds_up_gradients = False
        infos = offered_points(subject.hooks)
        self.points: Sequence[Point] = [point for point in points if point.name in infos]
        self._orders = {point.name: order_of_axes(infos[point.name].axes, point.axes) for point in self.points}
        self.gated = frozenset(point.name for point in self.points if infos[point.name].switch is not None)
        self._silent = False
        self._around: Around | None = None
        self._nests = False

    @contextlib.contextmanager
    def hooked(self, forward: Hooks, backward: Hooks | None = None) -> Iterator[None]:
        """Attach hooks, and turn on the switches of their points, until the context is left.

        Args:
            forward: edits of activations.
            backward: edits of gradients.
        """
        hooks, back = require(self.subject.hooks), backward or {}
        gated = self.gated & ChainMap(dict(forward), dict(back)).keys()
        switched = hooks.switched(gated) if gated else contextlib.nullcontext()
        with switched, hooks.hooked(self._permuted(forward), self._permuted(back)):
            yield

    def _permuted(self, edits: Hooks) -> dict[str, Edit]:
        return {name: permuted(self._loud(edit), self._orders.get(name)) for name, edit in edits.items()}

    def _loud(self, edit: Edit) -> Edit:
        return lambda value: None if self._silent else edit(value)

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        """Let no hook act inside the context: for a forward inside another one."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def surround(self, around: Around, *, nests: bool = False) -> None:
        """Give each call of the subject from now on to a function too, which runs something else beside it.

        Args:
            around: the function.
            nests: whether what it runs is a call of the same subject, within the call.
        """
        inner = self._around
        self._around = around if inner is None else lambda call: around(lambda: inner(call))
        self._nests = self._nests or nests

    def _run(self, call: Callable[[], Any]) -> Any:
        return call() if self._around is None else self._around(call)

    def forward(self, inputs: Inputs) -> Output:
        """Run the subject."""
        output: Output = self._run(lambda: self.subject.forward(inputs))
        return output

    @property
    def runs_with_cache(self) -> bool:
        """Whether the adapter has a way of its own to collect activations."""
        return bool(self.points) and isinstance(self.subject.hooks, RunsWithCache)

    def run_with_cache(self, inputs: Inputs, names: Sequence[str]) -> tuple[Output, Mapping[str, Tensor]]:
        """Run the subject, and collect activations as its library does."""
        hooks = self.subject.hooks
        assert isinstance(hooks, RunsWithCache)
        chosen = frozenset(names)
        gated = self.gated & chosen

        def run() -> tuple[Output, Mapping[str, Tensor]]:
            return hooks.run_with_cache(inputs, chosen)

        with hooks.switched(gated) if gated else contextlib.nullcontext():
            # Which of two nested forwards is collected is a library's own convention.
            output, collected = run() if self._nests else self._run(run)
        found: dict[str, Tensor] = {}
        for name in names:
            if name in collected:
                permuted(_collector(found, name), self._orders.get(name))(collected[name])
        return output, found

    def twice_differentiable(self, inputs: Inputs) -> Output:
        """Run the subject; its gradients are to be differentiable again as they are."""
        return self.forward(inputs)

    def crop(self, cache: Any, length: int) -> Any:
        """Cut a cache, where the adapter offers it.

        Raises:
            NotApplicable: it does not.
        """
        crop = getattr(require(self.subject.cache), "crop", None)
        if crop is None:
            raise NotApplicable("the adapter does not crop caches")
        return crop(cache, length)

    def continue_again(self, again: Callable[[], Any], cache: Any) -> Any:
        """Give the same cache: a forward leaves the one that it is given as it is."""
        return cache

    def generate(self, ids: Tensor, count: int, mask: Tensor | None) -> Tensor:
        """Generate greedily."""
        cache = require(self.subject.cache)
        tokens: Tensor = self._run(lambda: cache.generate(ids, max_new_tokens=count, attention_mask=mask))
        return tokens

    def weights(self) -> Mapping[str, Tensor]:
        """Give the canonical weights; none where the adapter offers none."""
        return {} if self.subject.weights is None else self.subject.weights.canonical()

    def split(self, layer: int) -> Mapping[str, Tensor]:
        """Give the weights of a layer's split projections; none where the adapter offers none."""
        if self.subject.weights is None:
            return {}
        split = self.subject.weights.split(layer)
        return {f"split.{letter}": getattr(split, letter).weight for letter in "qkv"}

    def gradients(self) -> Mapping[str, Tensor]:
        """Give the gradients of the canonical weights; none where the adapter offers none."""
        return {} if self.subject.weights is None else self.subject.weights.gradients()

    def parameters(self) -> Iterable[nn.Parameter]:
        """Give every parameter of the components, once; none where the adapter offers none."""
        if self.subject.components is None:
            return []
        modules = self.subject.components.modules().values()
        return list({id(one): one for module in modules for one in module.parameters()}.values())

    def embedding(self) -> nn.Parameter | None:
        """Give the parameter of the embedding; None where the adapter has no such component."""
        modules = {} if self.subject.components is None else self.subject.components.modules()
        return next(modules["embed"].parameters(), None) if "embed" in modules else None

    def clear_gradients(self) -> None:
        """Clear the gradient of every parameter that is known.

        The parameters of an adapter without components may be others than those of the model that it was given. Then
        its gradients add up from now on, and are not looked at.
        """
        for one in (*self.parameters(), *self._wrapped):
            one.grad = None
        if self.subject.components is None and self.gradients():
            self._adds_up_gradients = True

    def shows(self, observable: str, place: str) -> bool:
        """Whether the adapter offers what a function observes: it may lack weights, and some components.

        Args:
            observable: the id.
            place: of the observation.
        """
        name = place.partition(":")[0]
        if observable == "component.current":
            return self.subject.components is not None and name in self.subject.components.modules()
        if template_of(name) not in _WEIGHTS and observable != "weights.current":
            return True
        return self.subject.weights is not None and not (self._adds_up_gradients and observable != "weights.current")

    def component(self, name: str, x: Tensor) -> Tensor | None:
        """Run one component alone; None where the adapter offers none of that name."""
        components = self.subject.components
        if components is None or name not in components.modules():
            return None
        return components.run(name, (x,), {})


def _collector(found: dict[str, Tensor], name: str) -> Edit:
    return lambda value: found.__setitem__(name, value.detach().clone())


def _in_turn(edits: Sequence[Edit]) -> Callable[[Tensor], Tensor | None]:
    def act(gradient: Tensor) -> Tensor | None:
        found = gradient
        for edit in edits:
            given = edit(found)
            found = found if given is None else given.to(found.dtype)
        return None if found is gradient else found

    return act
