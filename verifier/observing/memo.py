"""A memo of results, so that what several checks of a case need is computed once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

from verifier.errors import all_but_interrupts

T = TypeVar("T")
P = ParamSpec("P")


class Memo:
    """Results by key.

    Invariant: the function of a key runs at most once. Its result is returned each time after, or its exception raised
    each time after. The one exception is a model that was freed: it is built again.
    """

    def __init__(self) -> None:
        self._results: dict[Hashable, tuple[Any, BaseException | None]] = {}
        self._models: set[Hashable] = set()

    def memoize(self, key: Hashable, make: Callable[[], T], *, is_model: bool = False) -> T:
        """Return what `make` returned for this key, or raise what it raised.

        Args:
            key: names the result.
            make: computes the result; called the first time only.
            is_model: whether the result holds a model, which `forget_models` may free.
        """
        if key not in self._results:
            try:
                self._results[key] = (make(), None)
            except all_but_interrupts() as error:
                self._results[key] = (None, error)
            if is_model:
                self._models.add(key)
        value: T
        value, raised = self._results[key]
        if raised is not None:
            raise raised
        return value

    def holds(self, key: Hashable) -> bool:
        """Whether this key has a result, not an exception."""
        return key in self._results and self._results[key][1] is None

    def forget_models(self, *, but: Hashable) -> None:
        """Free every model but that of one key."""
        for key in self._models - {but}:
            del self._results[key]
        self._models &= {but}

    def clear(self) -> None:
        """Free every result."""
        self._results.clear()
        self._models.clear()


def memoized(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function of a case run once for the same arguments; the case's memo keeps its results.

    The function's first argument is the case, or the part of a case whose method it is. The others must be hashable.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def recall(*args: P.args, **kwargs: P.kwargs) -> T:
        case, *given = arguments_of(signature, *args, **kwargs)
        memo: Memo = case.memo
        return memo.memoize((function, *given), lambda: function(*args, **kwargs))

    return recall


def arguments_of(signature: inspect.Signature, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """List a call's arguments in the order of the function's parameters, defaults filled in."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return tuple(bound.arguments.values())
