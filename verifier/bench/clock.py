"""What runs inside the models, in calls and seconds, each counted once: at the outermost call."""

from __future__ import annotations

import enum
import functools
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final


class Kind(enum.StrEnum):
    """What a call does."""

    BUILD = "builds of HF's model"
    WRAP = "wraps of the adapter"
    FORWARD = "forwards of HF's model"
    SUBJECT = "forwards of the subject"
    PART = "modules run alone"
    GENERATION = "generations, HF's and the subject's"
    BACKWARD = "backwards"
    OTHER = "the adapter's other work"

    @property
    def of_models(self) -> bool:
        """Whether it is the models' own work: all but what an adapter does with weights, modes and state dicts."""
        return self is not Kind.OTHER


@dataclass(slots=True, kw_only=True)
class Tally:
    """Calls of one kind so far; `watched` are those of them in which the harness looked on or changed something."""

    calls: int = 0
    seconds: float = 0.0
    watched_calls: int = 0
    watched_seconds: float = 0.0


class Clock:
    """Counts timed functions. While one runs, whatever timed function it calls is a part of it.

    Args:
        modes: whether a mode of torch's is on that sees or changes what is computed.
    """

    def __init__(self, modes: Callable[[], bool] = lambda: False) -> None:
        self.tallies: Mapping[Kind, Tally] = {kind: Tally() for kind in Kind}
        self._modes: Final = modes
        self._looking = 0
        self._busy = False

    @property
    def inside(self) -> float:
        """The seconds inside the models so far."""
        return sum(tally.seconds for kind, tally in self.tallies.items() if kind.of_models)

    def reset(self) -> None:
        """Begin anew."""
        self.tallies = {kind: Tally() for kind in Kind}

    def timed(
        self,
        function: Callable[..., Any],
        kind: Kind | Callable[[Any], Kind],
        *,
        then: Callable[[Any], None] | None = None,
    ) -> Callable[..., Any]:
        """The function, timed.

        Args:
            function: it may be a method.
            kind: of its calls, or what tells it from a call's first argument.
            then: is shown each result, outside the time.
        """

        @functools.wraps(function)
        def outermost(*args: Any, **kwargs: Any) -> Any:
            if self._busy:
                return function(*args, **kwargs)
            of = kind if isinstance(kind, Kind) else kind(args[0])
            watched = self._looking > 0 or self._modes()
            self._busy = True
            began = time.perf_counter()
            try:
                result = function(*args, **kwargs)
            finally:
                self._count(of, watched, time.perf_counter() - began)
                self._busy = False
            if then is not None:
                then(result)
            return result

        return outermost

    def _count(self, kind: Kind, watched: bool, seconds: float) -> None:
        tally = self.tallies[kind]
        tally.calls += 1
        tally.seconds += seconds
        if watched:
            tally.watched_calls += 1
            tally.watched_seconds += seconds

    def looking(self, make: Callable[..., AbstractContextManager[Any]]) -> Callable[..., AbstractContextManager[Any]]:
        """What makes a context in which the harness looks into a model: calls inside it are watched ones."""

        @functools.wraps(make)
        def made(*args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
            return _Looking(self, make(*args, **kwargs))

        return made

    def look(self, more: int) -> None:
        """One more, or one fewer, looks in."""
        self._looking += more


class _Looking:
    """A context as it is, but for being counted while inside."""

    __slots__ = ("_clock", "_context")

    def __init__(self, clock: Clock, context: AbstractContextManager[Any]) -> None:
        self._clock = clock
        self._context = context

    def __enter__(self) -> Any:
        value = self._context.__enter__()
        self._clock.look(1)
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._clock.look(-1)
        return self._context.__exit__(kind, error, trace)
