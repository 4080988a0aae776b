"""The sums that make the residual stream: what holds of every model's activations by what their names mean."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import Tensor


def stream_sums(values: Mapping[str, Tensor], n_layers: int) -> Iterator[tuple[str, Sequence[str], Tensor]]:
    """Add up what is added to the stream.

    A block with a stream between attention and MLP makes two sums, and a parallel one a single. A sum of which a model
    shows no addend or no result is left out.

    Args:
        values: a forward's activations by canonical name, `[batch, pos, d_model]` each, without dropout.
        n_layers: how many blocks there are.

    Returns:
        The name of each result, its addends' names, and their sum.
    """
    if n_layers and "blocks.0.hook_resid_pre" in values:
        embedded = [name for name in ("hook_embed", "hook_pos_embed") if name in values]
        yield "blocks.0.hook_resid_pre", embedded, _sum(values, embedded)
    for layer in range(n_layers):
        before, attn, between, mlp, after = (
            f"blocks.{layer}.hook_{name}" for name in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )
        sums = [(between, (before, attn)), (after, (between, mlp))]
        for result, addends in sums if between in values else [(after, (before, attn, mlp))]:
            if {result, *addends} <= values.keys():
                yield result, addends, _sum(values, addends)


def _sum(values: Mapping[str, Tensor], names: Collection[str]) -> Tensor:
    first, *others = (values[name] for name in names)
    for other in others:
        first = first + other
    return first
