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
        self._bridge: Any = bridge
        self._copied = copied

    def train(self, mode: bool) -> None:
        """Switch by `bridge.train`."""
        self._bridge.train(mode)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        """Cast or move by `bridge.to`, which by default prints what it did.

        Args:
            dtype: the new dtype; None to keep it.
            device: the new device; None to stay.
        """
        wanted = {"dtype": dtype, "device": device}
        self._bridge.to(print_details=False, **{name: value for name, value in wanted.items() if value is not None})

    def checkpointing(self, enabled: bool) -> None:
        """Switch by Hugging Face's own methods of the model inside the bridge; TransformerLens has none."""
        model, suffix = self._bridge.original_model, "enable" if enabled else "disable"
        # Where transformers has the newer name, the older one warns at every call.
        newer = getattr(model, f"activation_checkpointing_{suffix}", None)
        (newer or getattr(model, f"gradient_checkpointing_{suffix}"))()

    def copy(self) -> Subject:
        """Copy by `copy.deepcopy` of the bridge."""
        return self._copied()

    def state_dict(self) -> Mapping[str, Tensor]:
        """Read `bridge.state_dict`, in TransformerLens' keys."""
        state: Mapping[str, Tensor] = self._bridge.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load by `bridge.load_state_dict`, strictly."""
        self._bridge.load_state_dict(state)
