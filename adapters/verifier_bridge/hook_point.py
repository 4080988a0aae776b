"""Hook points: named places in a forward where a tensor, or its gradient, is read or replaced.

A hook gets a copy of the tensor, so it may write into it; what it returns, if not None, replaces the tensor.
Gradients are read at an identity in the graph, not by a module's backward hook, so torch's rules about views and
in-place writes do not apply. Where nothing is attached, the tensor passes unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from verifier_bridge.errors import HookError
from verifier_bridge.replay import current_log

Edit = Callable[[Tensor], Tensor | None]
"""A hook: it reads a tensor, and returns None or the tensor that replaces it."""


class Handle:
    """One attached edit: it acts until it is removed, also on the backward of a forward that ran before."""

    __slots__ = ("_among", "attached", "edit")

    def __init__(self, edit: Edit, among: list[Handle]) -> None:
        self.edit = edit
        self.attached = True
        self._among = among
        among.append(self)

    def remove(self) -> None:
        """Take it off; doing so twice is harmless."""
        if self.attached:
            self.attached = False
            self._among.remove(self)


class HookPoint(nn.Module):
    """A place in the forward.

    Attributes:
        name: its path in the bridge.
        switch: what must be on before the forward passes it, or None.
        on: whether it is.
    """

    name: str
    switch: str | None
    on: bool
    _forward_edits: list[Handle]
    _backward_edits: list[Handle]

    def __init__(self, *, switch: str | None = None) -> None:
        super().__init__()
        # Past torch, which asks of each attribute that is set whether it is a parameter, a buffer or a module: for the
        # hundreds of points of a model that is half of what bridging it takes.
        vars(self).update(name="?", switch=switch, on=switch is None, _forward_edits=[], _backward_edits=[])

    @property
    def hooked(self) -> bool:
        """Whether anything is attached."""
        return bool(self._forward_edits or self._backward_edits)

    def on_forward(self, edit: Edit) -> Handle:
        """Read or replace the value from now on, after the edits that are there already."""
        return Handle(edit, self._forward_edits)

    def on_backward(self, edit: Edit) -> Handle:
        """Read or replace the gradient with respect to the value, in forwards that start from now on."""
        return Handle(edit, self._backward_edits)

    def clear(self) -> None:
        """Remove every edit."""
        for handle in (*self._forward_edits, *self._backward_edits):
            handle.remove()

    def forward(self, value: Tensor) -> Tensor:
        """Pass the value on through the edits: the same object if nothing is attached."""
        log = current_log()
        if log is not None and log.replaying:
            return log.replay(self.name, value)
        if not self.hooked:
            return value
        if log is not None:
            return log.record(self.name, value, self._run)
        return self._run(value)[0]

    def _run(self, value: Tensor) -> tuple[Tensor, bool]:
        """Run the edits: the value that goes on, and whether an edit changed it."""
        changed = False
        if self._forward_edits:
            value, changed = _edited(value, tuple(self._forward_edits), f"hook at {self.name!r}")
        if self._backward_edits and torch.is_grad_enabled():
            value = _tapped(value, tuple(self._backward_edits), f"backward hook at {self.name!r}")
        return value, changed

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts without hooks: the original's handles could not take them off it.
        return {**self.__dict__, "_forward_edits": [], "_backward_edits": []}


def _edited(original: Tensor, handles: Sequence[Handle], place: str) -> tuple[Tensor, bool]:
    """Copy the tensor and run the edits on the copy; the result, and whether any edit changed it."""
    copy = value = original.clone()
    version = _version(copy)
    for handle in handles:
        if not handle.attached:
            continue
        replacement = handle.edit(value)
        if replacement is None:
            continue
        if not isinstance(replacement, Tensor):
            raise HookError(f"{place} returned a {type(replacement).__name__}; it must return a tensor or None")
        if replacement.shape != value.shape:
            raise HookError(
                f"{place} returned shape {list(replacement.shape)}; what it replaces has {list(value.shape)}"
            )
        value = replacement.to(value.dtype)
    return value, value is not copy or _version(copy) != version


def _version(tensor: Tensor) -> int:
    """Count how often a tensor was written into; inference tensors do not count writes, and need not."""
    return -1 if tensor.is_inference() else tensor._version


class _Tap(torch.autograd.Function):
    """The identity, whose backward lets edits see the gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor, handles: Sequence[Handle], place: str) -> Tensor:
        ctx.handles, ctx.place = handles, place
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        edited, changed = _edited(gradient, ctx.handles, ctx.place)
        # What was only read goes on as it was, memory layout included: not a bit may depend on a reader.
        return edited if changed else gradient, None, None, None


def _tapped(value: Tensor, handles: Sequence[Handle], place: str) -> Tensor:
    # The anchor makes a graph start here if there is none yet: frozen parameters, or a constant put in by an edit.
    anchor = torch.empty(0, requires_grad=True)
    tapped: Tensor = _Tap.apply(value, anchor, handles, place)  # type: ignore[no-untyped-call]
    return tapped
