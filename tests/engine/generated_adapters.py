"""Hostile adapters, generated from the adapter protocol: the bridge, of which one member does one wrong thing."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from verifier_bridge.verifier_adapter import BridgeAdapter

from verifier import adapter, plugins
from verifier.errors import OutdatedAdapter, Unrunnable
from verifier.judging.outcome import Blocked, NotApplicable

# --- what a member does -------------------------------------------------------------------------------------------


class Nothing:
    """Raises at whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("ask somebody else")

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __eq__ = __call__ = lambda self, *_: 1 / 0  # type: ignore
    __hash__ = None  # type: ignore[assignment]


class NameRaises(type):
    @property
    def __name__(cls) -> str:
        raise RuntimeError("no name")


class Nameless(Exception, metaclass=NameRaises): ...


class Own(BaseException): ...


class Speechless(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class Secretive(Exception):
    """Hides its class, its traceback and its causes; Python itself, which sets these on its way, is not stopped."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("no class")

    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        raise RuntimeError("no traceback")

    @__traceback__.setter
    def __traceback__(self, _value: object) -> None: ...

    @property
    def __cause__(self) -> None:  # type: ignore[override]
        raise RuntimeError("no cause")

    @__cause__.setter
    def __cause__(self, _value: object) -> None: ...


class Text(str):
    """A text that cannot be split, cut or joined."""

    split = join = encode = __getitem__ = __len__ = __iter__ = __format__ = None  # type: ignore


class Wordy(Exception):
    def __str__(self) -> str:
        return Text("it \ud800 said\n \x1b[2J")


def _cyclic() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


RETURNS: Mapping[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "a number": lambda: math.nan,
    "a text": lambda: Text("hook"),
    "a class": lambda: Nothing,
    "itself": _cyclic,
    "hostile": Nothing,
    "a scalar": lambda: torch.tensor(1.0 + 2.0j),
    "pairs": lambda: {1: Nothing(), Text("x"): _cyclic()},
    "a generator": lambda: (1 / 0 for _ in range(2)),
}
RAISES: Mapping[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("v" * 10**6),
    "StopIteration": StopIteration,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(4),
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "Own": lambda: Own("mine"),
    "Nameless": lambda: Nameless("a"),
    "Speechless": Speechless,
    "Secretive": lambda: Secretive("s"),
    "Wordy": Wordy,
    "Blocked": lambda: Blocked("build.forward"),
    "NotApplicable": lambda: NotApplicable("not today"),
    "OutdatedAdapter": lambda: OutdatedAdapter("too old"),
    "Unrunnable": lambda: Unrunnable("not here"),
    "ExceptionGroup": lambda: ExceptionGroup("several", [ValueError("a"), OSError("b")]),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a member does: it returns a wrong value, or raises."""

    name: str
    returns: Callable[[], Any] | None = None
    raises: Callable[[], BaseException] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.raises is not None:
            raise self.raises()
        assert self.returns is not None
        return self.returns()


ACTS = tuple(Act(name=name, returns=one) for name, one in RETURNS.items()) + tuple(
    Act(name=name, raises=one) for name, one in RAISES.items()
)

# --- where --------------------------------------------------------------------------------------------------------

_PROTOCOLS: Mapping[str, tuple[type, ...]] = {
    "adapter": (adapter.Adapter,),
    "subject": (adapter.Subject,),
    "hooks": (adapter.Hooks, adapter.DeclaresPoints, adapter.RunsWithCache),
    "weights": (adapter.Weights,),
    "restore": (adapter.Restore,),
    "processings": (adapter.Processings,),
    "cache": (adapter.Cache, adapter.CropsCache),
    "components": (adapter.Components,),
    "modes": (adapter.Modes,),
    "facts": (adapter.Facts,),
}
_AT_LOADING = ("adapter.name", "adapter.version")  # read before the first case


def _members(protocol: type) -> list[str]:
    found = list(plugins.members(protocol))
    return [*found, "__call__"] if protocol in (adapter.Restore, adapter.Facts) else found


MEMBERS = tuple(
    f"{place}.{name}"
    for place, protocols in _PROTOCOLS.items()
    for protocol in protocols
    for name in _members(protocol)
    if f"{place}.{name}" not in _AT_LOADING
)


class Generated(BridgeAdapter):
    """The bridge, of which one member does one wrong thing in models with ALiBi."""

    name, version = "generated", "1"

    def __init__(self, member: str, act: Act) -> None:
        self.place, self.member = member.split(".")
        self.act = act

    def wrap(self, model: Any) -> Any:
        if not model.config.alibi:
            return super().wrap(model)
        if self.place == "adapter":
            return self.act()
        subject = super().wrap(model)
        kind = type(subject)
        subject.__class__ = type(kind.__name__, (kind,), self._replacement(kind))
        return subject

    def _replacement(self, kind: type) -> dict[str, Any]:
        """The attribute of the subject's class that does the wrong thing, by name."""

        def do(_self: Any, *args: Any, **kwargs: Any) -> Any:
            return self.act(*args, **kwargs)

        if self.member == "__call__":
            return {self.place: do}
        if self.place == "subject":
            return {self.member: do if self.member in ("forward", "close") else property(do)}
        right = getattr(kind, self.place)
        changed = type(self.place, (Replaced,), {self.member: do})
        return {self.place: property(lambda subject: changed(right.fget(subject)))}


class Replaced:
    """A capability, but for the members that a class derived from this one has."""

    def __init__(self, capability: Any) -> None:
        self._capability = capability

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capability, name)


def choose(number: int) -> list[tuple[str, Act]]:
    """Choose members with acts: each member in turn raises something, then returns something, each in its own order."""

    def order(member: str) -> list[Act]:
        raising, returning = (
            random.Random(member).sample(acts, len(acts))
            for acts in ([act for act in ACTS if act.raises], [act for act in ACTS if act.returns])
        )
        return [act for pair in itertools.zip_longest(raising, returning) for act in pair if act is not None]

    orders = {member: order(member) for member in MEMBERS}
    return list(itertools.islice(((one, orders[one][turn]) for turn in range(len(ACTS)) for one in MEMBERS), number))
