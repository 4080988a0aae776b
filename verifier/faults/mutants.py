"""Mutants: a right adapter, or a right family, is made wrong in one place. Planted faults are built from this.

A mutant passes on to the original whatever it does not change, so it can be planted in any adapter.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Capability, Edit, Inputs, Output, SplitQKV, Subject
from verifier.cases.circumstances import Circumstance, differences
from verifier.cases.dealing import WITH_GRADIENTS
from verifier.family import Family

# A relative error that no plot would show, and beyond what float32 rounding explains (which is `reduced`, no failure).
SLIGHTLY = 1e-4


def rounding_to(coarse: torch.dtype, *dtypes: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Make a function that rounds tensors of these dtypes to a coarser one, and leaves others alone."""
    return lambda value: value.to(coarse).to(value.dtype) if value.dtype in dtypes else value


in_eight_bits = rounding_to(torch.float8_e4m3fn, torch.bfloat16, torch.float16)


def slightly_scaled(output: Output) -> Output:
    """Scale the logits of an output slightly."""
    return replace(output, logits=output.logits * (1 + SLIGHTLY))


class Delegate:
    """An object that passes on to the original every attribute that it does not override."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


def replaced(original: Any, **methods: Callable[..., Any]) -> Any:
    """Replace methods of an object, which stays as it is; each replacement gets the object as its first argument."""
    mutant = Delegate(original)
    vars(mutant).update({name: functools.partial(method, original) for name, method in methods.items()})
    return mutant


PartChange = Callable[[Subject, Any], Any]


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """How a subject is wrong; what is None is right.

    Attributes:
        model: changes HF's model before the right adapter wraps it.
        forward: stands in the place of the subject's forward, which it is given.
        edits: by the end of a canonical name (`attn.hook_q`): acts at that point in every layer, always.
        split: changes what `weights.split(layer)` gives.
        modules: changes what `components.modules()` gives.
        close: runs when the subject is closed.
        parts: by capability: makes a wrong one, of the right subject and the right one (`replacing`).
    """

    model: Callable[[nn.Module], None] | None = None
    forward: Callable[[Subject, Inputs], Output] | None = None
    edits: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    split: Callable[[SplitQKV, int], SplitQKV] | None = None
    modules: Callable[[Mapping[str, nn.Module]], Mapping[str, nn.Module]] | None = None
    close: Callable[[], None] | None = None
    parts: Mapping[Capability, PartChange] = field(default_factory=dict)


def replacing(**methods: Callable[..., Any]) -> PartChange:
    """Replace methods of a capability; each replacement gets the right capability as its first argument."""
    return lambda _subject, part: replaced(part, **methods)


def with_methods(capability: Capability, **methods: Callable[..., Any]) -> Mutation:
    """Make the mutation of a subject that has other methods in one capability, as `replacing` makes them."""
    return Mutation(parts={capability: replacing(**methods)})


def noting_generation() -> tuple[Callable[[], bool], PartChange]:
    """Make a cache that notes when it generates.

    Returns:
        Whether it generates at the moment, and the change of a subject's cache that makes that known.
    """
    generating = False

    def generate(cache: Any, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal generating
        generating = True
        try:
            tokens: Tensor = cache.generate(*args, **kwargs)
            return tokens
        finally:
            generating = False

    return lambda: generating, replacing(generate=generate)


def in_turn(first: Edit, second: Edit) -> Edit:
    """Make one edit of two: the second gets what the first made.

    Args:
        first: the edit that gets the original value.
        second: the edit that gets the result; the original value where the first changes nothing.

    Returns:
        An edit that gives None where neither of the two changes anything.
    """

    def act(value: Tensor) -> Tensor | None:
        edited = first(value)
        again = second(value if edited is None else edited)
        return edited if again is None else again

    return act


class _EditedHooks(Delegate):
    """Hooks behind which the mutant's own edits always act, whether anything is hooked or not."""

    def __init__(self, original: Any, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        super().__init__(original)
        self._edits = edits
        self._acting = False

    def _always(self) -> dict[str, Edit]:
        return {
            name: edit
            for name, info in self.names().items()
            for end, edit in self._edits.items()
            if name.endswith(end) and info.alias_of is None
        }

    @contextlib.contextmanager
    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
        always = {} if self._acting else self._always()
        both = {name: in_turn(always[name], edit) for name, edit in forward.items() if name in always}
        before, self._acting = self._acting, True
        try:
            with self.original.hooked({**always, **forward, **both}, backward):
                yield
        finally:
            self._acting = before

    def acting(self) -> contextlib.AbstractContextManager[None]:
        """Inside it the mutant's own edits act in a forward that nobody hooks."""
        return contextlib.nullcontext() if self._acting else self.hooked({}, {})


def _wrong_parts(mutation: Mutation) -> Iterator[tuple[Capability, PartChange]]:
    """Give the changes of a subject's capabilities, in the order in which they are made."""
    if mutation.edits:
        yield "hooks", lambda _subject, hooks: _EditedHooks(hooks, mutation.edits)
    if (split := mutation.split) is not None:
        yield "weights", replacing(split=lambda weights, layer: split(weights.split(layer), layer))
    if (modules := mutation.modules) is not None:
        yield "components", replacing(modules=lambda components: modules(components.modules()))
    yield from mutation.parts.items()


class MutantSubject(Delegate):
    """A right subject with one thing wrong."""

    def __init__(self, original: Subject, mutation: Mutation) -> None:
        super().__init__(original)
        self._mutation = mutation
        for capability, change in _wrong_parts(mutation):
            right = getattr(self, capability)
            if right is not None:
                setattr(self, capability, change(original, right))

    def forward(self, inputs: Inputs) -> Output:
        """Run the right subject's forward, or the mutation's in its place, with the mutant's own edits acting."""
        edits = self._mutation.edits and self.hooks is not None
        with self.hooks.acting() if edits else contextlib.nullcontext():
            if self._mutation.forward is not None:
                return self._mutation.forward(self.original, inputs)
            output: Output = self.original.forward(inputs)
            return output

    def close(self) -> None:
        """Close the right subject, after what the mutation does at its end."""
        if self._mutation.close is not None:
            self._mutation.close()
        self.original.close()


class MutantAdapter(Delegate):
    """A right adapter whose subjects have one thing wrong."""

    def __init__(self, original: Adapter, mutate: Callable[[nn.Module], Mutation]) -> None:
        super().__init__(original)
        self.name = f"{original.name}, broken on purpose"
        self.version = original.version
        self._mutate = mutate

    def wrap(self, model: nn.Module) -> Subject:
        """Wrap a model, which the mutation may change first, in a subject with one thing wrong."""
        mutation = self._mutate(model)
        if mutation.model is not None:
            mutation.model(model)
        return cast("Subject", MutantSubject(self.original.wrap(model), mutation))


PLAINEST: Sequence[Circumstance] = (differences(WITH_GRADIENTS),)
"""Where most faults show: a plain call, and a backward."""

Plant = Callable[[Family, Adapter], tuple[Family, Adapter]]
WrongFunction = TypeVar("WrongFunction", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A small wrong adapter or family, and the checks that must catch it.

    Attributes:
        name: short, for the kill table.
        what: what is wrong, in a sentence.
        caught_by: every one of these must catch it, on some case.
        raises: whether an exception counts as catching it; for other faults an exception proves nothing.
        plant: takes a family and an adapter, makes one of them wrong, and gives back both. Where a model has nothing
            that could be wrong like this, wrapping it raises `NotApplicable`.
        circumstances: where it shows, each as what is not plain in it; a self-test looks nowhere else.
    """

    name: str
    what: str
    caught_by: Sequence[str]
    plant: Plant
    raises: bool = False
    circumstances: Sequence[Circumstance] = PLAINEST


@overload
def fault(
    *caught_by: str, raises: bool = False, circumstances: Sequence[Circumstance] = PLAINEST
) -> Callable[[Callable[[], Mutation]], Fault]: ...
@overload
def fault(
    *caught_by: str,
    raises: bool = False,
    circumstances: Sequence[Circumstance] = PLAINEST,
    plant: Callable[[WrongFunction], Plant],
) -> Callable[[WrongFunction], Fault]: ...
def fault(
    *caught_by: str,
    raises: bool = False,
    circumstances: Sequence[Circumstance] = PLAINEST,
    plant: Callable[[Any], Plant] = lambda mutate: in_adapter(lambda _model: mutate()),
) -> Callable[[Callable[..., Any]], Fault]:
    """Make a fault of a function: the fault is named as the function, and the function's docstring says what is wrong.

    Args:
        caught_by: the ids of the checks that must catch it.
        raises: whether it shows as an exception.
        circumstances: where it shows, each as what is not plain in it.
        plant: how the function is planted, such as `in_adapter`, `in_output` or `in_method(…)`: what stands in its
            place is wrong. Without it the function makes the mutation of each subject, and takes no argument.
    """

    def decorate(wrong: Callable[..., Any]) -> Fault:
        sentence = " ".join((wrong.__doc__ or "").split()).removesuffix(".")
        if sentence[1:2] == " " or sentence[1:2].islower():  # a plain word, and not HF or W_O
            sentence = sentence[:1].lower() + sentence[1:]
        name = wrong.__name__.replace("_", "-")
        return Fault(
            name=name,
            what=sentence,
            caught_by=caught_by,
            plant=plant(wrong),
            raises=raises,
            circumstances=tuple(circumstances),
        )

    return decorate


def collect_faults(module: ModuleType) -> tuple[Fault, ...]:
    """Collect the faults that a module defines, in the order of their definitions."""
    return tuple(value for value in vars(module).values() if isinstance(value, Fault))


# --- where a wrong function is planted -------------------------------------------------------------------------------


def in_either(plant: Plant) -> Plant:
    """Plant with the function itself, which gets the family and the adapter, and gives back both."""
    return plant


def in_adapter(mutation: Mutation | Callable[[nn.Module], Mutation]) -> Plant:
    """Plant a mutation in the subjects of an adapter; a function makes the mutation for one model."""

    def plant(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
        return family, MutantAdapter(adapter, mutation if callable(mutation) else lambda _model: mutation)

    return plant


def in_family(mutate: Callable[[Family, Any], Mutation]) -> Plant:
    """Plant a mutation in the subjects; the function makes it for one model, by what the family knows of that model."""
    return lambda family, adapter: (family, MutantAdapter(adapter, functools.partial(mutate, family)))


def in_wrap(wrap: Callable[[Adapter, Any], Any]) -> Plant:
    """Plant the `wrap` of an adapter: the function gets the right adapter and a model."""
    return lambda family, adapter: (family, replaced(adapter, wrap=wrap))


def in_model(change: Callable[[Any], None]) -> Plant:
    """Plant a change of Hugging Face's model, made before the right adapter wraps it."""
    return in_adapter(Mutation(model=change))


def in_forward(forward: Callable[[Subject, Inputs], Output]) -> Plant:
    """Plant a forward in the subjects: the function replaces theirs, and is given the right subject."""
    return in_adapter(Mutation(forward=forward))


def in_inputs(change: Callable[[Inputs], Inputs]) -> Plant:
    """Plant a change of what a right forward is called with."""
    return in_forward(lambda subject, inputs: subject.forward(change(inputs)))


def in_output(change: Callable[[Inputs, Output], Output]) -> Plant:
    """Plant a change of what a forward gives; the function is given what the forward was called with as well."""
    return in_forward(lambda subject, inputs: change(inputs, subject.forward(inputs)))


def in_values(*ends: str) -> Callable[[Callable[[Tensor], Tensor]], Plant]:
    """Plant a change of activations: it always acts, at every point whose name has one of these ends."""
    return lambda change: in_adapter(Mutation(edits=dict.fromkeys(ends, change)))


def in_split(change: Callable[[SplitQKV, int], SplitQKV]) -> Plant:
    """Plant a change of the projections that `weights.split` gives; the function gets their layer as well."""
    return in_adapter(Mutation(split=change))


def in_modules(change: Callable[[Mapping[str, nn.Module]], Mapping[str, nn.Module]]) -> Plant:
    """Plant a change of the components that `components.modules` gives."""
    return in_adapter(Mutation(modules=change))


def in_method(capability: Capability, name: str) -> Callable[[Callable[..., Any]], Plant]:
    """Plant a method of a capability: the function gets the right capability, and the method's arguments.

    Args:
        capability: the subject's capability that the method belongs to.
        name: of the method.
    """
    return lambda method: in_adapter(with_methods(capability, **{name: method}))
