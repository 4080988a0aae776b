"""One call of a TransformerBridge, by its forward or by whatever takes a forward's arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verifier.adapter import AdapterRefusal, Inputs, Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def call(run: Callable[..., Any], inputs: Inputs) -> Output:
    """Run one forward of a bridge.

    Ids and embeddings are both the bridge's first argument (it tells them apart by their dtype), the mask, the
    positions and the cache its keyword arguments. With labels the loss is the bridge's own (`return_type="both"`): it
    shifts them, leaves out -100, and leaves out what the attention mask hides.

    Args:
        run: is given the arguments.
        inputs: of the forward.

    Raises:
        AdapterRefusal: labels with a cache asked for; the bridge gives back one of the two.
    """
    main = inputs.inputs_embeds if inputs.input_ids is None else inputs.input_ids
    passed: dict[str, Tensor | None] = {
        "attention_mask": inputs.attention_mask,
        "position_ids": inputs.position_ids,
        "past_key_values": inputs.cache,
        "labels": inputs.labels,
        "decoder_input_ids": inputs.decoder_input_ids,
        "decoder_attention_mask": inputs.decoder_attention_mask,
    }
    arguments: dict[str, Any] = {name: value for name, value in passed.items() if value is not None}
    if inputs.labels is not None and inputs.use_cache:
        raise AdapterRefusal("TransformerBridge.forward gives back the loss or the cache, not both")
    if inputs.labels is not None:
        logits, loss = run(main, return_type="both", **arguments)
        return Output(logits=logits, loss=loss)
    if inputs.use_cache:
        logits, cache = run(main, return_type="logits_and_cache", use_cache=True, **arguments)
        return Output(logits=logits, cache=cache)
    return Output(logits=run(main, return_type="logits", **arguments))
