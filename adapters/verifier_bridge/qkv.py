"""The split of fused queries, keys and values, for every fused layout.

The fused axis is always `[group, queries_per_group + 2, d_head]`: in each group its queries, then its one key, then its
one value. Multi-head attention has a group for each head, multi-query attention one group, and grouped-query attention
a number of groups in between.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Part = Literal["q", "k", "v"]


class QKV(NamedTuple):
    """Queries `[…, head, d_head, …]`, keys and values `[…, kv_head, d_head, …]`."""

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class QKVLayout:
    """How a fused axis is laid out."""

    n_groups: int
    queries_per_group: int
    d_head: int

    @property
    def n_heads(self) -> int:
        """Query heads; head `h` reads key/value head `h // queries_per_group`."""
        return self.n_groups * self.queries_per_group

    @property
    def n_kv_heads(self) -> int:
        """Key heads, and value heads: one for each group."""
        return self.n_groups

    @property
    def rows(self) -> int:
        """Length of the fused axis."""
        return self.n_groups * (self.queries_per_group + 2) * self.d_head

    def split(self, fused: Tensor, dim: int = -1) -> QKV:
        """Split the fused axis `dim` into `[head, d_head]` for queries, `[kv_head, d_head]` for keys and values.

        Args:
            fused: any tensor with a fused axis, `[…, rows, …]`.
            dim: which axis that is.

        Returns:
            The three parts, each with `[n, d_head]` in the place of the fused axis.
        """
        dim %= fused.ndim
        grouped = torch.unflatten(fused, dim, (self.n_groups, self.queries_per_group + 2, self.d_head))
        return QKV(
            q=grouped.narrow(dim + 1, 0, self.queries_per_group).flatten(dim, dim + 1),
            k=grouped.select(dim + 1, self.queries_per_group),
            v=grouped.select(dim + 1, self.queries_per_group + 1),
        )

    def fuse(self, parts: QKV, dim: int) -> Tensor:
        """Undo `split`: `dim` is the head axis of each part, and the fused axis of the result.

        Args:
            parts: queries `[…, head, d_head, …]`, keys and values `[…, kv_head, d_head, …]`.
            dim: the head axis, counted from the front.
        """
        queries = torch.unflatten(parts.q, dim, (self.n_groups, self.queries_per_group))
        keys, values = parts.k.unsqueeze(dim + 1), parts.v.unsqueeze(dim + 1)
        return torch.cat((queries, keys, values), dim=dim + 1).flatten(dim, dim + 2)

    def rows_of(self, part: Part) -> Tensor:
        """Find the fused rows of the queries, the keys or the values: `[n * d_head]`, heads in order.

        It is one tensor for all layouts that are equal, so nobody may write into it.
        """
        return _rows_of(self, part)


@functools.lru_cache(maxsize=128)
def _rows_of(layout: QKVLayout, part: Part) -> Tensor:
    rows: Tensor = getattr(layout.split(torch.arange(layout.rows)), part)
    return rows.flatten()
