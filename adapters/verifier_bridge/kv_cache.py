"""The key/value cache: unexpanded heads, rotated keys; never written into, each forward gives a new one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValueCache:
    """Keys and values of the positions so far.

    Attributes:
        length: number of positions.
        layers: for each, keys and values `[batch, pos, kv_head, d_head]`.
    """

    length: int
    layers: tuple[tuple[Tensor, Tensor], ...]

    def crop(self, length: int) -> KeyValueCache:
        """Give a new cache of the first positions; this one stays as it is.

        Args:
            length: how many positions are left; a longer one than there are leaves all.
        """
        kept = tuple((keys[:, :length], values[:, :length]) for keys, values in self.layers)
        return KeyValueCache(length=min(length, self.length), layers=kept)


class LayerSlot:
    """One layer's place during a forward: what was cached before, and after `extend` what is cached now."""

    __slots__ = ("_past", "now")

    def __init__(self, past: tuple[Tensor, Tensor] | None = None) -> None:
        self._past = past
        self.now = past

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new positions' keys and values to the cached ones: each `[batch, past + pos, kv_head, d_head]`.

        Args:
            keys: of the new positions, `[batch, pos, kv_head, d_head]`.
            values: of the new positions, `[batch, pos, kv_head, d_head]`.
        """
        if self._past is not None:
            keys, values = torch.cat((self._past[0], keys), dim=1), torch.cat((self._past[1], values), dim=1)
        self.now = (keys, values)
        return self.now
