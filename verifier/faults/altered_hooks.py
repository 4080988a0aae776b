"""Altered hooks: a right adapter's hooks with wrong names, at wrong points, or with edits that run wrongly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from verifier.adapter import Edit, HookInfo
from verifier.faults.mutants import Mutation, Plant, in_adapter, in_turn, with_methods

EditChange = Callable[[str, Edit], Edit]
Hooked = Callable[[Callable[..., Any], Mapping[str, Edit], Mapping[str, Edit]], Any]
"""Stands in the place of `Hooks.hooked`, which is its first argument."""


def altered(
    *,
    names: Callable[[dict[str, HookInfo]], Mapping[str, HookInfo]] = lambda names: names,
    target: Callable[[str], str | None] = lambda name: name,
    forward: EditChange = lambda _name, edit: edit,
    backward: EditChange = lambda _name, edit: edit,
    hooked: Hooked = lambda right, forward, backward: right(forward, backward),
) -> Mutation:
    """Make the mutation of a subject whose hooks are wrong; what is not given stays right.

    Args:
        names: changes the list of points.
        target: the point at which hooks of a name really are; None for nowhere.
        forward: what an edit of values is made into, by its point.
        backward: what an edit of gradients is made into, by its point.
        hooked: stands in the place of the context manager, and is given the right one.
    """

    def placed(edits: Mapping[str, Edit], change: EditChange) -> dict[str, Edit]:
        there: dict[str, Edit] = {}
        for name, edit in edits.items():
            where = target(name)
            if where is not None:
                made = change(name, edit)
                there[where] = in_turn(there[where], made) if where in there else made
        return there

    def hook(hooks: Any, edits: Mapping[str, Edit], gradient_edits: Mapping[str, Edit]) -> Any:
        return hooked(hooks.hooked, placed(edits, forward), placed(gradient_edits, backward))

    return with_methods(
        "hooks",
        names=lambda hooks: names(dict(hooks.names())),
        switched=lambda hooks, wanted: hooks.switched(frozenset(map(target, wanted)) - {None}),
        hooked=hook,
    )


def read_nothing(_: Tensor) -> None:
    """A hook that does nothing."""


# --- how a hook is wrong ---------------------------------------------------------------------------------------------


def at(end: str, change: Callable[[Edit], Edit]) -> EditChange:
    """Change the edits at the points whose names end in `end`, and leave the others alone.

    Args:
        end: of the names of the points.
        change: makes the wrong edit of the right one.

    Returns:
        A function of a point's name and its edit, which gives the edit to use.
    """
    return lambda name, edit: change(edit) if name.endswith(end) else edit


def shown_as(change: Callable[[Tensor], Tensor]) -> Callable[[Edit], Edit]:
    """Change what a hook is shown; what it gives back is taken as it is."""
    return lambda edit: lambda value: edit(change(value))


def showing(end: str, change: Callable[[Tensor], Tensor]) -> Mutation:
    """Make the mutation of a subject that shows another tensor there; its forward goes on with the right one.

    Args:
        end: of the names of the points.
        change: makes the tensor that is shown of the right one.
    """
    return altered(forward=at(end, shown_as(change)))


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
    return lambda edit: in_turn(edit, change)


_OPEN: list[Any] = []  # held, because a context that nobody holds is left when it is collected


@contextlib.contextmanager
def kept_open(context: Any, *, only_after_exceptions: bool = False) -> Iterator[None]:
    """Enter a context and never leave it; with `only_after_exceptions`, leave it unless an exception ends it.

    Args:
        context: the context manager to enter.
        only_after_exceptions: whether the context is left where no exception ends it.
    """
    context.__enter__()
    _OPEN.append(context)
    yield
    if only_after_exceptions:
        _OPEN.remove(context)
        context.__exit__(None, None, None)


# --- where a wrong hook is planted -----------------------------------------------------------------------------------


def in_hooking(hooked: Hooked) -> Plant:
    """Plant the context manager of hooks: the function gets the right one, and the edits of values and gradients."""
    return in_adapter(altered(hooked=hooked))


def in_edits(end: str = "") -> Callable[[Callable[[Edit], Edit]], Plant]:
    """Plant a change of the edits of values at the points whose names end in `end`."""
    return lambda change: in_adapter(altered(forward=at(end, change)))


def in_gradient_edits(end: str) -> Callable[[Callable[[Edit], Edit]], Plant]:
    """Plant a change of the edits of gradients at the points whose names end in `end`."""
    return lambda change: in_adapter(altered(backward=at(end, change)))


def in_edited(end: str) -> Callable[[Callable[[Tensor, Tensor], Tensor | None]], Plant]:
    """Plant a change of what edits give back there; the function gets the value that they saw, and the edited one."""
    return lambda change: in_edits(end)(edited_as(change))


def in_shown(end: str) -> Callable[[Callable[[Tensor], Tensor]], Plant]:
    """Plant a change of what hooks are shown there; the forward goes on with the right value."""
    return lambda change: in_adapter(showing(end, change))
