"""Making a right adapter, or a right family, wrong in one place: what planted faults are built from.

A mutant delegates to what it breaks, so it can be planted in any adapter: it needs only what the protocols offer.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Capability, Edit, HookInfo, Inputs, Output, SplitQKV, Subject
from verifier.family import Family

# A relative error that no plot would show, and beyond what float32 rounding explains (which is `reduced`, no failure).
SLIGHTLY = 1e-4


def in_eight_bits(value: Tensor) -> Tensor:
    """What is of half precision, rounded to eight bits."""
    if value.dtype not in (torch.bfloat16, torch.float16):
        return value
    return value.to(torch.float8_e4m3fn).to(value.dtype)


class Delegate:
    """Everything that is not overridden is the original's."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


SplitChange = Callable[[SplitQKV, int], SplitQKV]


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """How a subject is wrong; what is None is right.

    Attributes:
        model: changes HF's model before the right adapter wraps it.
        forward: stands in the place of the subject's forward, which it is given.
        edits: by the end of a canonical name (`attn.hook_q`): acts at that point in every layer, always.
        shows: the same, but only on what a reader is shown; the forward goes on with what is right.
        split: changes what `weights.split(layer)` gives.
        modules: changes what `components.modules()` gives.
        train: stands in the place of `modes.train`.
        close: runs when the subject is closed.
        parts: by capability: makes a wrong one, of the right subject and the right one (`replacing`).
    """

    model: Callable[[nn.Module], None] | None = None
    forward: Callable[[Subject, Inputs], Output] | None = None
    edits: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    shows: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    split: SplitChange | None = None
    modules: Callable[[Mapping[str, nn.Module]], Mapping[str, nn.Module]] | None = None
    train: Callable[[Subject, bool], None] | None = None
    close: Callable[[], None] | None = None
    parts: Mapping[Capability, Callable[[Subject, Any], Any]] = field(default_factory=dict)


class _Replacing(Delegate):
    """A capability, some of whose methods are others."""

    def __init__(self, original: Any, methods: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(original)
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        if name in self._methods:
            return functools.partial(self._methods[name], self.original)
        return super().__getattr__(name)


def replacing(**methods: Callable[..., Any]) -> Callable[[Subject, Any], Any]:
    """A capability with these methods in the place of its own; each gets the right capability before its arguments."""
    return lambda _subject, part: _Replacing(part, methods)


class _Hooks(Delegate):
    """Hooks behind which the mutant's own edits act, whether somebody looks or not."""

    def __init__(self, original: Any, breaks: Mutation) -> None:
        super().__init__(original)
        self._breaks = breaks
        self._acting = False

    def names(self) -> Mapping[str, HookInfo]:
        names: Mapping[str, HookInfo] = self.original.names()
        return names

    def switched(self, names: Set[str]) -> Any:
        return self.original.switched(names)

    def _always(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {
            name: edit
            for name, info in self.names().items()
            for end, edit in self._breaks.edits.items()
            if name.endswith(end) and info.alias_of is None
        }

    def _shown(self, name: str, fn: Edit) -> Edit:
        for end, change in self._breaks.shows.items():
            if name.endswith(end):
                return lambda value: fn(change(value))
        return fn

    @contextlib.contextmanager
    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
        always = {} if self._acting else self._always()

        def both(name: str) -> Edit:
            mine, theirs = always.get(name), forward.get(name)
            if theirs is None:
                assert mine is not None
                return mine
            shown = self._shown(name, theirs)
            if mine is None:
                return shown

            def act(value: Tensor) -> Tensor:
                changed = mine(value)
                edited = shown(changed)
                return changed if edited is None else edited

            return act

        before, self._acting = self._acting, True
        try:
            with self.original.hooked({name: both(name) for name in {**always, **forward}}, backward):
                yield
        finally:
            self._acting = before

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """The mutant's edits in place, for a forward that nobody hooks."""
        if self._acting or not self._breaks.edits:
            yield
            return
        with self.hooked({}, {}):
            yield


class _Weights(Delegate):
    def __init__(self, original: Any, change: SplitChange) -> None:
        super().__init__(original)
        self._change = change

    def split(self, layer: int) -> SplitQKV:
        return self._change(self.original.split(layer), layer)


class _Components(Delegate):
    def __init__(self, original: Any, change: Callable[[Mapping[str, nn.Module]], Mapping[str, nn.Module]]) -> None:
        super().__init__(original)
        self._change = change

    def modules(self) -> Mapping[str, nn.Module]:
        return self._change(self.original.modules())


class _Modes(Delegate):
    def __init__(self, subject: Subject, train: Callable[[Subject, bool], None]) -> None:
        super().__init__(subject.modes)  # type: ignore[attr-defined]
        self._subject = subject
        self._train = train

    def train(self, mode: bool) -> None:
        self._train(self._subject, mode)


class MutantSubject(Delegate):
    """A right subject with one thing wrong."""

    def __init__(self, original: Subject, breaks: Mutation) -> None:
        super().__init__(original)
        self._breaks = breaks
        # Set here, because a protocol's attributes are looked for on the object itself.
        self.capabilities, self.changes = original.capabilities, original.changes
        if "hooks" in original.capabilities:
            self.hooks = _Hooks(original.hooks, breaks)  # type: ignore[attr-defined]
        if breaks.split and "weights" in original.capabilities:
            self.weights = _Weights(original.weights, breaks.split)  # type: ignore[attr-defined]
        if breaks.modules and "components" in original.capabilities:
            self.components = _Components(original.components, breaks.modules)  # type: ignore[attr-defined]
        if breaks.train and "modes" in original.capabilities:
            self.modes = _Modes(original, breaks.train)
        for capability, break_part in breaks.parts.items():
            if capability in original.capabilities:
                setattr(self, capability, break_part(original, getattr(self, capability)))

    def forward(self, inputs: Inputs) -> Output:
        with self.hooks.acting() if hasattr(self, "hooks") else contextlib.nullcontext():
            if self._breaks.forward is not None:
                return self._breaks.forward(self.original, inputs)
            output: Output = self.original.forward(inputs)
            return output

    def close(self) -> None:
        if self._breaks.close is not None:
            self._breaks.close()
        self.original.close()


class MutantAdapter(Delegate):
    """A right adapter whose subjects have one thing wrong."""

    def __init__(self, original: Adapter, breaks: Callable[[nn.Module], Mutation]) -> None:
        super().__init__(original)
        self.name = f"{original.name}, broken on purpose"
        self.version = original.version
        self._breaks = breaks

    def wrap(self, model: nn.Module) -> Subject:
        breaks = self._breaks(model)
        if breaks.model is not None:
            breaks.model(model)
        return MutantSubject(self.original.wrap(model), breaks)


Plant = Callable[[Family, Adapter], tuple[Family, Adapter]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A small wrong adapter (or family), and the checks that must see it.

    Attributes:
        name: short, for the kill table.
        what: what is wrong, in a sentence.
        caught_by: every one of these must catch it, on some case.
        raises: whether raising is how it shows; elsewhere an exception proves nothing.
        plant: makes a family and an adapter wrong; whichever it leaves alone it gives back. Where a model has nothing
            that could be wrong like this, wrapping it raises `NotApplicable`.
    """

    name: str
    what: str
    caught_by: Sequence[str]
    plant: Plant
    raises: bool = False


def in_adapter(breaks: Mutation | Callable[[nn.Module], Mutation]) -> Plant:
    """Plant it in the subjects; a function makes the breaks for one model."""

    def plant(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
        return family, MutantAdapter(adapter, breaks if callable(breaks) else lambda _model: breaks)

    return plant
