"""Modes of a TransformerBridge: training, dtype and device, checkpointing, copies and state dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge

    from verifier.adapter import Subject


class LensModes:
    """The modes of one bridge; `copied` makes a subject of a deep copy of the bridge."""

    def __init__(self, bridge: TransformerBridge, copied: Callable[[], Subject]) -> None:
        self._bridge = bridge
        self._copied = copied

    def train(self, mode: bool) -> None:
        """By `bridge.train`."""
        self._bridge.train(mode)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        """By `bridge.to`; told not to print what it did, which it does by default."""
        wanted: dict[str, Any] = {"dtype": dtype, "device": device}
        self._bridge.to(print_details=False, **{name: value for name, value in wanted.items() if value is not None})

    def checkpointing(self, enabled: bool) -> None:
        """By Hugging Face's own switch on the model inside the bridge; TransformerLens has none."""
        model: Any = self._bridge.original_model
        # The newer name where transformers has it: there the older one warns at every call.
        name = (
            "activation_checkpointing"
            if hasattr(model, "activation_checkpointing_enable")
            else "gradient_checkpointing"
        )
        getattr(model, f"{name}_enable" if enabled else f"{name}_disable")()

    def copy(self) -> Subject:
        """By `copy.deepcopy` of the bridge."""
        return self._copied()

    def state_dict(self) -> Mapping[str, Tensor]:
        """By `bridge.state_dict`, in TransformerLens' keys."""
        untyped: Any = self._bridge
        state: Mapping[str, Tensor] = untyped.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """By `bridge.load_state_dict`, strictly."""
        untyped: Any = self._bridge
        untyped.load_state_dict(state)
