"""Right hooks behind which something is wrong: other names, other points, edits that are run otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from verifier.adapter import Edit, HookInfo
from verifier.faults.mutants import Delegate, Mutation

EditChange = Callable[[str, Edit], Edit]


@dataclass(frozen=True, kw_only=True)
class Alteration:
    """How a subject's hooks are wrong; what is None is right.

    Attributes:
        names: changes the list of points.
        target: the point at which hooks of a name really are; None for nowhere.
        forward: what an edit of values is made into, by its point.
        backward: the same for edits of gradients.
        hooked: stands in the place of the context manager, and is given the right one.
    """

    names: Callable[[dict[str, HookInfo]], Mapping[str, HookInfo]] | None = None
    target: Callable[[str], str | None] | None = None
    forward: EditChange | None = None
    backward: EditChange | None = None
    hooked: Callable[[Callable[..., Any], Mapping[str, Edit], Mapping[str, Edit]], Any] | None = None


class _Altered(Delegate):
    def __init__(self, original: Any, alteration: Alteration) -> None:
        super().__init__(original)
        self._how = alteration

    def names(self) -> Mapping[str, HookInfo]:
        names: Mapping[str, HookInfo] = dict(self.original.names())
        return names if self._how.names is None else self._how.names(dict(names))

    def switched(self, names: Set[str]) -> Any:
        return self.original.switched(frozenset(self._placed(dict.fromkeys(names, _nothing), None)))

    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
        there = self._placed(forward, self._how.forward)
        back = self._placed(backward, self._how.backward)
        if self._how.hooked is not None:
            return self._how.hooked(self.original.hooked, there, back)
        return self.original.hooked(there, back)

    def _placed(self, edits: Mapping[str, Edit], change: EditChange | None) -> dict[str, Edit]:
        placed: dict[str, Edit] = {}
        for name, edit in edits.items():
            where = name if self._how.target is None else self._how.target(name)
            if where is not None:
                made = edit if change is None else change(name, edit)
                placed[where] = made if where not in placed else _both(placed[where], made)
        return placed


def _nothing(_: Tensor) -> None:
    return None


def _both(first: Edit, second: Edit) -> Edit:
    def act(value: Tensor) -> Tensor | None:
        edited = first(value)
        again = second(value if edited is None else edited)
        return edited if again is None else again

    return act


def altered(**how: Any) -> Mutation:
    """A subject with these wrong hooks (`Alteration`)."""
    alteration = Alteration(**how)
    return Mutation(parts={"hooks": lambda _subject, hooks: _Altered(hooks, alteration)})


def at(end: str, change: Callable[[Edit], Edit]) -> EditChange:
    """Edits at the points whose names end so are others."""
    return lambda name, edit: change(edit) if name.endswith(end) else edit


def shown_as(change: Callable[[Tensor], Tensor]) -> Callable[[Edit], Edit]:
    """The hook is shown something else; what it gives back is taken as it is."""
    return lambda edit: lambda value: edit(change(value))


_OPEN: list[Any] = []  # held, because a context that nobody holds is left when it is collected


@contextlib.contextmanager
def kept_open(context: Any, *, only_after_exceptions: bool = False) -> Iterator[None]:
    """A context that is entered and never left, or not when an exception ends it."""
    context.__enter__()
    _OPEN.append(context)
    yield
    if only_after_exceptions:
        _OPEN.remove(context)
        context.__exit__(None, None, None)
