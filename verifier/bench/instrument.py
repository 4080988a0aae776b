"""An instrument on the models of a run: who is called how often and for how long, with nothing of it changed.

It is entered before the family and the adapter are loaded. The harness remembers Hugging Face's classes as they are
then, and watches that wrapping a model leaves them so; a function of torch's that was imported by its own name before
is not seen. It knows no family, and no adapter but by the protocols.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, MemberDescriptorType
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import _get_current_function_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode
from transformers import GenerationMixin

from verifier.adapter import Adapter, Subject, is_subject
from verifier.bench.clock import Clock, Kind
from verifier.family import Family

_LOOKING = "looking"

# What is counted of a subject beyond its forward: each method of each capability that computes something.
_METHODS: Mapping[str, Mapping[str, Kind | str]] = {
    "hooks": {"names": Kind.OTHER, "hooked": _LOOKING},
    "weights": {"split": Kind.OTHER, "canonical": Kind.OTHER, "gradients": Kind.OTHER},
    "processings": {"promises": Kind.OTHER, "apply": Kind.WRAP},
    "cache": {"generate": Kind.GENERATION},
    "components": {"modules": Kind.OTHER, "run": Kind.PART},
    "modes": {
        "train": Kind.OTHER,
        "to": Kind.OTHER,
        "checkpointing": Kind.OTHER,
        "copy": Kind.WRAP,
        "state_dict": Kind.OTHER,
        "load_state_dict": Kind.OTHER,
    },
}
_WATCHED_PACKAGES = ("torch", "transformers")  # whose classes wrapping must leave alone, and so must this


class Instrument:
    """Counts with the clock what the family and the adapter that go through it do."""

    def __init__(self, clock: Clock, patches: contextlib.ExitStack) -> None:
        self.clock = clock
        self._patches = patches
        self._patched: set[tuple[type, str]] = set()
        self._built: set[type] = set()
        self._count_torch()

    def family(self, family: Family) -> Family:
        """The family, whose builds are counted and whose taps are known to look in."""
        timed = {"build": self.clock.timed(family.build, Kind.BUILD, then=self._note_built)}
        return cast("Family", _Through(family, timed | {"taps": self.clock.looking(family.taps)}))

    def adapter(self, adapter: Adapter) -> Adapter:
        """The adapter, whose wraps are counted, and whatever its subjects do."""
        return _ThroughAdapter(adapter, self.clock.timed(adapter.wrap, Kind.WRAP, then=self._note_subject))

    def _count_torch(self) -> None:
        self._replace(nn.Module, "__call__", self.clock.timed(nn.Module.__call__, self._kind_of_module))
        self._replace(GenerationMixin, "generate", self.clock.timed(GenerationMixin.generate, Kind.GENERATION))
        for name in ("grad", "backward"):  # `Tensor.backward` calls the second
            self._replace(torch.autograd, name, self.clock.timed(getattr(torch.autograd, name), Kind.BACKWARD))

    def _kind_of_module(self, module: nn.Module) -> Kind:
        return Kind.FORWARD if type(module) in self._built else Kind.PART

    def _note_built(self, model: object) -> None:
        self._built.add(type(model))

    def _note_subject(self, subject: object) -> None:
        """Count what subjects of its class do, from now on."""
        if not is_subject(subject):
            return  # `build.adapter` says what is wrong with it
        kind = type(subject)
        self._time(kind, "forward", Kind.SUBJECT)
        self._time(kind, "restore", Kind.OTHER)
        for capability in _METHODS.keys() & cast("Subject", subject).capabilities:
            self._note_capability(subject, capability)

    def _note_capability(self, subject: object, capability: str) -> None:
        # Not asked for: asking may run code, and no code of the adapter's may run that would not run without this.
        found = inspect.getattr_static(subject, capability, None)
        if isinstance(found, MemberDescriptorType):  # a slot
            found = getattr(subject, capability, None)
        if not isinstance(found, property):
            self._note_part(capability, found)
            return
        owner = _owner(type(subject), capability)
        if owner is None or (owner, capability) in self._patched or found.fget is None:
            return
        self._patched.add((owner, capability))
        self._replace(owner, capability, property(self._noting(capability, found.fget)))

    def _noting(self, capability: str, get: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def noted(subject: Any) -> Any:
            part = get(subject)
            self._note_part(capability, part)
            return part

        return noted

    def _note_part(self, capability: str, part: object) -> None:
        for name, kind in _METHODS[capability].items():
            self._time(type(part), name, kind)

    def _time(self, kind: type, name: str, counted_as: Kind | str) -> None:
        """Count a method where its class defines it; what is no plain method there is left as it is."""
        owner = _owner(kind, name)
        if owner is None or (owner, name) in self._patched:
            return
        method = vars(owner)[name]
        if not isinstance(method, FunctionType):
            return
        self._patched.add((owner, name))
        if isinstance(counted_as, Kind):
            then = self._note_subject if counted_as is Kind.WRAP else None
            timed = self.clock.timed(method, counted_as, then=then)
        else:
            timed = self.clock.looking(method)
        self._replace(owner, name, timed)

    def _replace(self, owner: Any, name: str, value: object) -> None:
        self._patches.callback(setattr, owner, name, vars(owner)[name])
        setattr(owner, name, value)


@contextlib.contextmanager
def instrument() -> Iterator[Instrument]:
    """An instrument; when it is left everything is as it was."""
    with contextlib.ExitStack() as patches:
        yield Instrument(Clock(_a_mode_is_on), patches)


def _a_mode_is_on() -> bool:
    return _get_current_function_mode() is not None or _get_current_dispatch_mode() is not None


def _owner(kind: type, name: str) -> type | None:
    """The class that defines it, unless it is one of those that must stay as they are."""
    for one in kind.__mro__:
        if name in vars(one):
            return None if one.__module__.partition(".")[0] in (*_WATCHED_PACKAGES, "builtins") else one
    return None


class _Through:
    """An object as it is, but for some of its methods."""

    def __init__(self, behind: object, methods: Mapping[str, Callable[..., Any]]) -> None:
        self._behind = behind
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._methods[name] if name in self._methods else getattr(self._behind, name)


class _ThroughAdapter:
    """An adapter as it is, but that its wraps are counted.

    `wrap` is a method with a `self`: by that a case tells that an exception came out of its adapter.
    """

    def __init__(self, adapter: Adapter, wrap: Callable[..., Any]) -> None:
        self.name = adapter.name
        self.version = adapter.version
        self._wrap = wrap

    def wrap(self, model: nn.Module) -> Subject:
        """Wrap a model."""
        return cast("Subject", self._wrap(model))
