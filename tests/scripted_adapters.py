"""Adapters that say how they are used, over a bridge that shows something else at one of its hook points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from verifier_bridge import Bridge
from verifier_bridge.verifier_adapter import BridgeAdapter, BridgeSubject

from verifier.adapter import Usage


class NextHeads(Bridge):
    """Shows what the head beside it mixed as what a head did; the model computes as it should."""

    def hooked(self, forward: Any = None, backward: Any = None) -> Any:
        def beside(edit: Any) -> Any:
            return lambda value: edit(value.roll(1, dims=2))

        wrong = {name: beside(edit) if name.endswith("hook_z") else edit for name, edit in (forward or {}).items()}
        return super().hooked(wrong, backward)


class NextHeadsAdapter(BridgeAdapter):
    name = "next-heads"

    def wrap(self, model: torch.nn.Module) -> BridgeSubject:
        return BridgeSubject(NextHeads(model))

    def usage(self, given: Any) -> Usage:
        return replace(
            super().usage(given),
            imports=("from scripted_adapters import NextHeads",),
            wrap=("subject = NextHeads(model)",),
        )


class SaysNothingOfHooks(NextHeadsAdapter):
    reading = None  # type: ignore[assignment]
