"""Altered hooks: a right adapter's hooks with wrong names, at wrong points, or with edits that run wrongly."""

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
    """How the hooks of a subject are wrong; what is None stays right.

    Attributes:
        names: changes the list of points.
        target: the point at which hooks of a name really are; None for nowhere.
        forward: what an edit of values is made into, by its point.
        backward: what an edit of gradients is made into, by its point.
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
        return self.original.switched(frozenset(self._placed(dict.fromkeys(names, read_nothing), None)))

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


def read_nothing(_: Tensor) -> None:
    """A hook that does nothing."""


def _both(first: Edit, second: Edit) -> Edit:
    def act(value: Tensor) -> Tensor | None:
        edited = first(value)
        again = second(value if edited is None else edited)
        return edited if again is None else again

    return act


def altered(**how: Any) -> Mutation:
    """Make the mutation of a subject whose hooks are altered; the arguments are the fields of `Alteration`."""
    alteration = Alteration(**how)
    return Mutation(parts={"hooks": lambda _subject, hooks: _Altered(hooks, alteration)})


def at(end: str, change: Callable[[Edit], Edit]) -> EditChange:
    """Change the edits at the points whose names end in `end`, and leave the others alone."""
    return lambda name, edit: change(edit) if name.endswith(end) else edit


def shown_as(change: Callable[[Tensor], Tensor]) -> Callable[[Edit], Edit]:
    """Change what a hook is shown; what it gives back is taken as it is."""
    return lambda edit: lambda value: edit(change(value))


def edited_as(change: Callable[[Tensor, Tensor], Tensor | None]) -> Callable[[Edit], Edit]:
    """Change what a hook gives back; `change` gets the value that the hook saw, and what it gave back."""

    def make(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor | None:
            edited = edit(value)
            return None if edited is None else change(value, edited)

        return act

    return make


def only_read(edit: Edit) -> Edit:
    """Drop what a hook gives back."""
    return edited_as(lambda _value, _edited: None)(edit)


def passed_on_as(change: Callable[[Tensor], Tensor]) -> Callable[[Edit], Edit]:
    """Change what goes on from a point, whether the hook there edits it or only reads it."""

    def make(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor:
            edited = edit(value)
            return change(value if edited is None else edited)

        return act

    return make


_OPEN: list[Any] = []  # held, because a context that nobody holds is left when it is collected


@contextlib.contextmanager
def kept_open(context: Any, *, only_after_exceptions: bool = False) -> Iterator[None]:
    """Enter a context and never leave it; with `only_after_exceptions`, leave it unless an exception ends it."""
    context.__enter__()
    _OPEN.append(context)
    yield
    if only_after_exceptions:
        _OPEN.remove(context)
        context.__exit__(None, None, None)
