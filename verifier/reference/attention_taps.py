"""The taps inside attention: rotated queries and keys, scores and pattern, where a seam shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from verifier.reference.attention_seam import Attention, AttentionSeam
from verifier.reference.taps import TapRecorder


class AttentionTaps:
    """The points of rotated queries and keys, scores and pattern of the layers of one forward.

    Every form of a call is handled: keys and values with one entry for each key/value head, or already expanded to
    one for each query head. The keys of this forward are taken to be the last, as in every cache but a static one.
    """

    def __init__(self, taps: TapRecorder, layers: Mapping[str, tuple[nn.Module, Tensor]]) -> None:
        """Place the points in attention modules.

        Args:
            taps: where values are kept.
            layers: by prefix (`blocks.0.attn`), in the order in which they run: HF's attention module, and
                `reads [head]`, which key/value head each query head reads. A module that stands there several times
                runs as often.
        """
        self._taps = taps
        self._layers: dict[nn.Module, list[tuple[str, Tensor]]] = {}
        for prefix, (module, reads) in layers.items():
            self._layers.setdefault(module, []).append((prefix, reads))
        self._runs: Counter[nn.Module] = Counter()
        self._products: Counter[nn.Module] = Counter()
        self._attends = False
        if taps.wants(*(f"{prefix}.{name}" for prefix in layers for name in _NAMES)):
            seam = taps.enter_context(AttentionSeam(self._layers, self))
            taps.around_edits = seam.pause

    def _names(self, module: nn.Module) -> tuple[Sequence[str], Tensor]:
        if self._runs[module] == len(self._layers[module]):
            raise RuntimeError(f"{self._layers[module][-1][0]} attended twice in one forward")
        prefix, reads = self._layers[module][self._runs[module]]
        return [f"{prefix}.{name}" for name in _NAMES], reads

    def attend(self, module: nn.Module, attention: Attention) -> Tensor:
        """Visit the points of an attention; what no point changes is left to HF."""
        self._attends = True
        try:
            return self._attend(module, attention)
        finally:
            self._attends = False
            self._runs[module] += 1

    def _attend(self, module: nn.Module, attention: Attention) -> Tensor:
        (rot_q, rot_k, *inner), reads = self._names(module)
        taps, query, key, value = self._taps, attention.query, attention.key, attention.value
        reads = reads.to(query.device)
        if taps.wants(rot_q):
            query = taps.visit(rot_q, query.transpose(1, 2)).transpose(1, 2)
        if taps.wants(rot_k):
            key = _visit_keys(taps, rot_k, key, reads, new=query.shape[2])
        if attention.softens or not taps.wants(*inner):
            return attention.run(query, key, value)
        attention = attention.of(query, _expanded(key, reads), _expanded(value, reads))
        scores = taps.visit(inner[0], attention.scores())
        return attention.mix(taps.visit(inner[1], attention.pattern(scores)))

    def multiply(self, module: nn.Module, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Visit the queries and keys of old code, at the first of its two products."""
        if self._attends:
            return left, right
        self._products[module] += 1
        if self._products[module] % 2 == 0:
            self._runs[module] += 1
            return left, right
        (rot_q, rot_k, *_), reads = self._names(module)
        if not self._taps.wants(rot_q, rot_k):
            return left, right
        shape = (-1, len(reads))
        query, key = left.unflatten(0, shape) if left.ndim == 3 else left, right.transpose(-1, -2)
        key = key.unflatten(0, shape) if key.ndim == 3 else key
        query = self._taps.visit(rot_q, query.transpose(1, 2)).transpose(1, 2)
        key = _visit_keys(self._taps, rot_k, key, reads.to(key.device), new=query.shape[2])
        return query.reshape(left.shape), key.transpose(-1, -2).reshape(right.shape)

    def soften(self, module: nn.Module, scores: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Visit the scores and the pattern at a softmax of HF's."""
        (_, _, before, after), _ = self._names(module)
        return self._taps.visit(after, run(self._taps.visit(before, scores)))


_NAMES = ("hook_rot_q", "hook_rot_k", "hook_attn_scores", "hook_pattern")


def _visit_keys(taps: TapRecorder, name: str, key: Tensor, reads: Tensor, new: int) -> Tensor:
    """Visit the keys of this forward, `[batch, pos, kv_head, d_head]`; those of a cache, which come first, are left."""
    expanded, heads = key.shape[1] == len(reads), _unexpanded(key, reads)
    past = heads.shape[2] - new
    visited = taps.visit(name, heads[:, :, past:].transpose(1, 2)).transpose(1, 2)
    heads = torch.cat([heads[:, :, :past], visited], dim=2)
    return heads[:, reads] if expanded else heads


def _unexpanded(heads: Tensor, reads: Tensor) -> Tensor:
    """Keys or values `[batch, kv_head, key, d_head]`, from those or from ones expanded to every query head."""
    n_kv = int(reads.max()) + 1
    if heads.shape[1] == n_kv:
        return heads
    first = torch.stack([(reads == group).nonzero()[0, 0] for group in range(n_kv)])
    return heads[:, first]


def _expanded(heads: Tensor, reads: Tensor) -> Tensor:
    return heads if heads.shape[1] == len(reads) else heads[:, reads]
