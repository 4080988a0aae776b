"""Faults of the cache: adapters that decode wrongly with a key/value cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Cache, Inputs, Output, Subject
from verifier.faults.altered_hooks import in_shown
from verifier.faults.forward import see_next_key
from verifier.faults.mutants import (
    SLIGHTLY,
    Mutation,
    Plant,
    fault,
    in_eight_bits,
    in_forward,
    in_inputs,
    in_method,
    in_output,
    in_values,
    slightly_scaled,
)

REMEMBERED = 3  # positions that the forgetful mutant keeps
FAR = 64  # positions that are kept by a mutant that is wrong in longer texts only


def _in_inputs_with_cache(change: Callable[[Inputs], Inputs]) -> Plant:
    """Plant a change of what a right forward is called with where there is a cache."""
    return in_inputs(lambda inputs: inputs if inputs.cache is None else change(inputs))


def _in_text_so_far(change: Callable[[Inputs, int], Inputs]) -> Plant:
    """Plant a cache that is the text so far, which is run again with what is new; so it can be wrong about the past.

    `change` gets the whole text and how much of it is past.
    """

    def forward(subject: Subject, inputs: Inputs) -> Output:
        if inputs.cache is None and not inputs.use_cache:
            return subject.forward(inputs)
        whole, past = _joined(inputs.cache, inputs)
        output = subject.forward(whole if not past else change(whole, past))
        return replace(output, logits=output.logits[:, past:], cache=whole if inputs.use_cache else None)

    return in_forward(forward)


def _joined(past: Inputs | None, new: Inputs) -> tuple[Inputs, int]:
    """Join two texts, to be run at once, and count the first one's positions. A mask covers both already."""
    assert new.input_ids is not None
    ids, positions = new.input_ids, new.position_ids
    length = 0
    if past is not None:
        assert past.input_ids is not None
        length = past.input_ids.shape[1]
        ids = torch.cat([past.input_ids, ids], dim=1)
        if positions is not None and past.position_ids is not None:
            positions = torch.cat([past.position_ids, positions], dim=1)
    return Inputs(input_ids=ids, attention_mask=new.attention_mask, position_ids=positions), length


def _masked(whole: Inputs, start: int, stop: int, value: int) -> Inputs:
    """Set the mask from `start` to `stop`."""
    assert whole.input_ids is not None
    mask = torch.ones_like(whole.input_ids) if whole.attention_mask is None else whole.attention_mask.clone()
    mask[:, start:stop] = value
    return replace(whole, attention_mask=mask)


def _shifted(whole: Inputs, past: int, shift: int) -> Inputs:
    """Move new tokens `shift` positions further on, unless the caller gives positions."""
    assert whole.input_ids is not None
    if whole.position_ids is not None:
        return whole
    counted = torch.arange(whole.input_ids.shape[1], device=whole.input_ids.device).expand_as(whole.input_ids).clone()
    counted[:, past:] += shift
    # A mask, because without one HF takes positions that jump for texts packed into one row.
    return replace(_masked(whole, 0, 0, 1), position_ids=counted)


@fault("forward.outputs", circumstances=[{"past": "asked"}], plant=in_output)
def cache_not_given(_inputs: Inputs, output: Output) -> Output:
    """A cache is asked for, and none is given."""
    return replace(output, cache=None)


@fault("forward.outputs", circumstances=[{"past": "asked"}], plant=in_output)
def cache_changes_logits(inputs: Inputs, output: Output) -> Output:
    """The forward takes another path, slightly off, when a cache is asked for."""
    return slightly_scaled(output) if inputs.use_cache and inputs.cache is None else output


@fault("forward.outputs", circumstances=[{"past": "token"}], plant=_in_text_so_far)
def cache_positions_off_by_one(whole: Inputs, past: int) -> Inputs:
    """The positions of tokens after a cache are off by one."""
    return _shifted(whole, past, 1)


@fault("forward.outputs", circumstances=[{"past": "token"}], plant=_in_text_so_far)
def cache_positions_from_zero(whole: Inputs, past: int) -> Inputs:
    """The positions of tokens after a cache start at zero again."""
    return _shifted(whole, past, -past)


@fault("forward.outputs", circumstances=[{"past": "token"}], plant=_in_text_so_far)
def cache_forgets(whole: Inputs, past: int) -> Inputs:
    """Only the last 3 positions of the past are seen."""
    return _masked(whole, 0, max(0, past - REMEMBERED), 0)


@fault("forward.outputs", circumstances=[{"past": "token"}], plant=_in_text_so_far)
def cache_rows_shared(whole: Inputs, past: int) -> Inputs:
    """Every row of a batch continues from the cache of the first row."""
    assert whole.input_ids is not None
    ids = whole.input_ids.clone()
    ids[:, :past] = ids[:1, :past]
    return replace(whole, input_ids=ids)


@fault("forward.outputs", circumstances=[{"past": "token", "mask": "left"}], plant=_in_text_so_far)
def cache_mask_of_the_past_forgotten(whole: Inputs, past: int) -> Inputs:
    """Padding that is cached is seen as if it were tokens."""
    return _masked(whole, 0, past, 1)


@fault("forward.outputs", circumstances=[{"past": "token", "tokens": "embeddings"}], plant=_in_inputs_with_cache)
def cache_embeds_shifted(inputs: Inputs) -> Inputs:
    """Embeddings after a cache are slightly off."""
    embeds = inputs.inputs_embeds
    if embeds is None:
        return inputs
    factors = torch.linspace(1, 1 + SLIGHTLY, embeds.shape[-1], dtype=embeds.dtype, device=embeds.device)
    return replace(inputs, inputs_embeds=embeds * factors)


@fault("forward.outputs", circumstances=[{"past": "token", "rows": "one", "mask": "left"}], plant=_in_inputs_with_cache)
def cache_lone_row_unmasked(inputs: Inputs) -> Inputs:
    """A batch of one row is decoded without its mask."""
    is_alone = inputs.input_ids is not None and inputs.input_ids.shape[0] == 1
    return replace(inputs, attention_mask=None) if is_alone else inputs


@fault(
    "forward.outputs",
    circumstances=[{"past": "token", "mask": "ones", "positions": "given"}],
    plant=_in_inputs_with_cache,
)
def cache_position_ids_ignored(inputs: Inputs) -> Inputs:
    """With a cache the caller's position ids are not passed on."""
    return replace(inputs, position_ids=None)


@fault(
    "forward.outputs",
    circumstances=[{"past": "chunk", "mask": "left", "positions": "given"}],
    plant=_in_inputs_with_cache,
)
def cache_position_ids_or_mask(inputs: Inputs) -> Inputs:
    """With a cache the mask is not passed on beside position ids."""
    return inputs if inputs.position_ids is None else replace(inputs, attention_mask=None)


@fault("cache.repeated", circumstances=[{"past": "token"}])
def cache_newest_only() -> Mutation:
    """The forward continues from the newest cache, whichever cache is given."""
    newest: list[Any] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs if inputs.cache is None else replace(inputs, cache=newest[-1]))
        newest.append(output.cache)
        return output

    return Mutation(forward=forward)


@fault("forward.repeated", circumstances=[{"past": "token"}])
def cache_second_step_wrong() -> Mutation:
    """The forward is right only with the first cache that it is given."""
    calls: list[Inputs] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if inputs.cache is None:
            return output
        calls.append(inputs)
        return slightly_scaled(output) if len(calls) > 1 else output

    return Mutation(forward=forward)


@fault("forward.outputs", circumstances=[{"past": "chunk"}], plant=in_values("attn.hook_attn_scores"))
def cache_chunk_looks_ahead(scores: Tensor) -> Tensor:  # [batch, head, query, key]
    """Each of several tokens after a cache sees the next one."""
    queries, keys = scores.shape[-2:]
    return scores if queries == keys else see_next_key(scores)


@fault("hooks.shown", circumstances=[{"past": "token"}], plant=_in_text_so_far)
def cache_hooks_whole_text(whole: Inputs, _past: int) -> Inputs:
    """With a cache hooks are shown the whole text again."""
    return whole


@fault("hooks.shown", circumstances=[{"past": "token"}], plant=in_shown("attn.hook_pattern"))
def cache_pattern_of_new_keys(pattern: Tensor) -> Tensor:  # [batch, head, query, key]
    """With a cache the pattern is shown over the new keys only."""
    return pattern[..., -pattern.shape[-2] :]


@fault("cache.generated", circumstances=[{"past": "generation"}], plant=in_method("cache", "generate"))
def greedy_from_the_last_but_one(
    cache: Cache, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None
) -> Tensor:
    """The first new token is chosen by the logits of the token before the last."""
    mask = None if attention_mask is None else attention_mask[:, :-1]
    tokens = cache.generate(input_ids[:, :-1], max_new_tokens=max_new_tokens, attention_mask=mask)
    return torch.cat([input_ids, tokens[:, input_ids.shape[1] - 1 :]], dim=1)


@fault("cache.generated", circumstances=[{"past": "generation", "mask": "left"}], plant=in_method("cache", "generate"))
def greedy_stops_early(cache: Cache, input_ids: Tensor, **how: Any) -> Tensor:
    """A token ends the continuation early, although no token may."""
    tokens = cache.generate(input_ids, **how).clone()
    new = tokens[:, input_ids.shape[1] :]
    end = new[0, 0]  # ends every row, and fills up what follows it
    ended = (new == end).cumsum(1) > 0
    new[ended] = end
    return tokens


@fault("cache.generated", circumstances=[{"past": "generation", "mask": "left"}], plant=in_method("cache", "generate"))
def greedy_ignores_mask(cache: Cache, input_ids: Tensor, *, max_new_tokens: int, **_: Any) -> Tensor:
    """Generation takes padding for tokens."""
    return cache.generate(input_ids, max_new_tokens=max_new_tokens)


@fault("forward.outputs", circumstances=[{"past": "token", "length": "long"}], plant=_in_text_so_far)
def cache_ends_early(whole: Inputs, past: int) -> Inputs:
    """Only the last 64 positions of a long text are seen."""
    return _masked(whole, 0, max(0, past - FAR), 0)


@fault("forward.outputs", circumstances=[{"past": "token", "dtype": "float16"}], plant=in_output)
def cache_coarse_in_half(inputs: Inputs, output: Output) -> Output:
    """In half precision the logits of decoding go through eight bits."""
    return output if inputs.cache is None else replace(output, logits=in_eight_bits(output.logits))
