"""Edits under gradient checkpointing: an edit runs once, and its result is replayed when a block is recomputed.

A recompute must do what the forward did, whatever was attached or removed since, and a hook must not fire again:
it may count, draw noise, or have been removed. So the forward of a checkpointed block keeps a log of what edits
changed, and the recompute reads it. Only edited values are kept; everything else is recomputed.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What happened at one hook point: the value if an edit changed it, and what a recompute must imitate."""

    value: Tensor | None
    requires_grad: bool
    random_state: Tensor


class EditLog:
    """What the edits did in one forward of one block; once that is over, `replaying`."""

    def __init__(self) -> None:
        self.replaying = False
        self._entries: dict[str, _Entry] = {}

    def record(self, name: str, value: Tensor, run: Callable[[Tensor], tuple[Tensor, bool]]) -> Tensor:
        """Run the edits, and note what they did.

        What they save for backward is theirs to keep: were it left to the checkpoint, the recompute, which does
        not run them, would miss it.

        Args:
            name: the hook point.
            value: the tensor there, before the edits.
            run: runs the edits on it: gives the result, and whether they changed it.

        Returns:
            The tensor after the edits.
        """
        with saved_tensors_hooks(_as_is, _as_is):
            out, changed = run(value)
        self._entries[name] = _Entry(
            value=out.detach() if changed else None,
            requires_grad=out.requires_grad,
            random_state=_random_state(value.device),
        )
        return out

    def replay(self, name: str, value: Tensor) -> Tensor:
        """Give what the forward went on with at this point; dropout after an edit that drew noise draws as it did.

        Args:
            name: the hook point.
            value: the tensor there, as recomputed.

        Returns:
            The recorded tensor where an edit changed it, or else the recomputed one.
        """
        entry = self._entries.get(name)
        if entry is None:
            return value
        _set_random_state(value.device, entry.random_state)
        if entry.value is not None:
            return entry.value.detach().requires_grad_(entry.requires_grad)
        # Operations save for backward only what needs a gradient, so a recompute has to need the same.
        return value if value.requires_grad == entry.requires_grad else value.detach().requires_grad_()


_CURRENT: ContextVar[EditLog | None] = ContextVar("verifier_bridge_edit_log", default=None)


def current_log() -> EditLog | None:
    """Get the log of the checkpointed block that is running; None if none is."""
    return _CURRENT.get()


def checkpointed(block: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """Run `block(hidden)` so that the backward recomputes it; edits in it run in the forward alone.

    Args:
        block: maps hidden states to hidden states, `[batch, pos, d_model]`.
        hidden: `[batch, pos, d_model]`.

    Returns:
        `[batch, pos, d_model]`.
    """
    log = EditLog()

    def run(value: Tensor) -> Tensor:
        token = _CURRENT.set(log)
        try:
            return block(value)
        finally:
            _CURRENT.reset(token)
            log.replaying = True

    out: Tensor = checkpoint(run, hidden, use_reentrant=False)
    return out


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
