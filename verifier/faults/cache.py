"""Faults of the cache: adapters that decode wrongly with a key/value cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Cache, Inputs, Output, Subject
from verifier.faults.mutants import (
    SLIGHTLY,
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_eight_bits,
    in_output,
    replacing,
    slightly_scaled,
)

REMEMBERED = 3  # positions that the forgetful mutant keeps
FAR = 64  # positions that are kept by a mutant that is wrong in longer texts only


def _with_cache(change: Callable[[Inputs], Inputs]) -> Mutation:
    """A right forward that is given other inputs where there is a cache."""
    return Mutation(forward=lambda subject, inputs: subject.forward(inputs if inputs.cache is None else change(inputs)))


def _recomputed(change: Callable[[Inputs, int], Inputs] = lambda whole, _past: whole) -> Mutation:
    """The cache is the text so far, which is run again with what is new; so it can be wrong about the past.

    `change` gets the whole text and how much of it is past.
    """

    def forward(subject: Subject, inputs: Inputs) -> Output:
        if inputs.cache is None and not inputs.use_cache:
            return subject.forward(inputs)
        whole, past = _joined(inputs.cache, inputs)
        output = subject.forward(whole if not past else change(whole, past))
        return replace(output, logits=output.logits[:, past:], cache=whole if inputs.use_cache else None)

    return Mutation(forward=forward)


def _joined(past: Inputs | None, new: Inputs) -> tuple[Inputs, int]:
    """The text of both, to be run at once, and how many positions the first one has. A mask covers both already."""
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
    assert whole.input_ids is not None
    mask = torch.ones_like(whole.input_ids) if whole.attention_mask is None else whole.attention_mask.clone()
    mask[:, start:stop] = value
    return replace(whole, attention_mask=mask)


def _first_rows_past(whole: Inputs, past: int) -> Inputs:
    """Every row goes on from what the first one cached."""
    assert whole.input_ids is not None
    ids = whole.input_ids.clone()
    ids[:, :past] = ids[:1, :past]
    return replace(whole, input_ids=ids)


def _positions(whole: Inputs, past: int, shift: int) -> Inputs:
    """New tokens stand `shift` places further on than they do."""
    assert whole.input_ids is not None
    if whole.position_ids is not None:
        return whole
    counted = torch.arange(whole.input_ids.shape[1], device=whole.input_ids.device).expand_as(whole.input_ids).clone()
    counted[:, past:] += shift
    # A mask, because without one HF takes positions that jump for texts packed into one row.
    return replace(_masked(whole, 0, 0, 1), position_ids=counted)


def _alone_without_mask(inputs: Inputs) -> Inputs:
    """A lone row is taken to have no padding."""
    alone = inputs.input_ids is not None and inputs.input_ids.shape[0] == 1
    return replace(inputs, attention_mask=None) if alone else inputs


def _shifted_embeds(inputs: Inputs) -> Inputs:
    """Embeddings are off, a little, and each of their dimensions by another factor."""
    embeds = inputs.inputs_embeds
    if embeds is None:
        return inputs
    factors = torch.linspace(1, 1 + SLIGHTLY, embeds.shape[-1], dtype=embeds.dtype, device=embeds.device)
    return replace(inputs, inputs_embeds=embeds * factors)


def _leaky(scores: Tensor) -> Tensor:  # [batch, head, query, key]
    """Of several new tokens each sees the next one too."""
    queries, keys = scores.shape[-2:]
    if queries in (1, keys):
        return scores
    here = torch.arange(queries - 1)
    changed = scores.clone()
    changed[..., here, keys - queries + here + 1] = scores[..., here, keys - queries + here]
    return changed


def _generating(generate: Callable[..., Tensor]) -> Mutation:
    return Mutation(parts={"cache": replacing(generate=generate)})


def _from_the_last_but_one(
    cache: Cache, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None
) -> Tensor:
    """The first new token is chosen by the logits before the prompt's last token, which it replaces."""
    mask = None if attention_mask is None else attention_mask[:, :-1]
    tokens = cache.generate(input_ids[:, :-1], max_new_tokens=max_new_tokens, attention_mask=mask)
    return torch.cat([input_ids, tokens[:, input_ids.shape[1] - 1 :]], dim=1)


def _stopping(cache: Cache, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
    """The token that the first row begins with ends every row, and what follows it is filled up."""
    tokens = cache.generate(input_ids, max_new_tokens=max_new_tokens, attention_mask=attention_mask).clone()
    new = tokens[:, input_ids.shape[1] :]
    end = new[0, 0]
    ended = (new == end).cumsum(1) > 0
    new[ended] = end
    return tokens


@fault("cache.given", plant=in_output)
def cache_not_given(_inputs: Inputs, output: Output) -> Output:
    """A cache is asked for, and none is given."""
    return replace(output, cache=None)


@fault("cache.given", plant=in_output)
def cache_changes_logits(inputs: Inputs, output: Output) -> Output:
    """The forward takes another path, slightly off, when a cache is asked for."""
    return slightly_scaled(output) if inputs.use_cache and inputs.cache is None else output


@fault("cache.stepwise", "cache.chunks", "cache.apart")
def cache_positions_off_by_one() -> Plant:
    """The positions of tokens after a cache are off by one."""
    return in_adapter(_recomputed(lambda whole, past: _positions(whole, past, 1)))


@fault("cache.stepwise", "cache.chunks")
def cache_positions_from_zero() -> Plant:
    """The positions of tokens after a cache start at zero again."""
    return in_adapter(_recomputed(lambda whole, past: _positions(whole, past, -past)))


@fault("cache.stepwise", "cache.chunks")
def cache_forgets() -> Plant:
    """Only the last 3 positions of the past are seen."""
    return in_adapter(_recomputed(lambda whole, past: _masked(whole, 0, max(0, past - REMEMBERED), 0)))


@fault("cache.stepwise", "cache.padding")
def cache_rows_shared() -> Plant:
    """Every row of a batch continues from the cache of the first row."""
    return in_adapter(_recomputed(_first_rows_past))


@fault("cache.padding", "cache.padded_position_ids", "cache.batch")
def cache_mask_of_the_past_forgotten() -> Plant:
    """Padding that is cached is seen as if it were tokens."""
    return in_adapter(_recomputed(lambda whole, past: _masked(whole, 0, past, 1)))


@fault("cache.inputs_embeds")
def cache_embeds_shifted() -> Plant:
    """Embeddings after a cache are slightly off."""
    return in_adapter(_with_cache(_shifted_embeds))


@fault("cache.batch")
def cache_lone_row_unmasked() -> Plant:
    """A batch of one row is decoded without its mask."""
    return in_adapter(_with_cache(_alone_without_mask))


@fault("cache.position_ids", "cache.padded_position_ids")
def cache_position_ids_ignored() -> Plant:
    """With a cache the caller's position ids are not passed on."""
    return in_adapter(_with_cache(lambda inputs: replace(inputs, position_ids=None)))


@fault("cache.padded_position_ids")
def cache_position_ids_or_mask() -> Plant:
    """With a cache the mask is not passed on beside position ids."""
    return in_adapter(
        _with_cache(lambda inputs: inputs if inputs.position_ids is None else replace(inputs, attention_mask=None))
    )


@fault("cache.apart", plant=in_adapter)
def cache_newest_only(_model: nn.Module) -> Mutation:
    """The forward continues from the newest cache, whichever cache is given."""
    newest: list[Any] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs if inputs.cache is None else replace(inputs, cache=newest[-1]))
        newest.append(output.cache)
        return output

    return Mutation(forward=forward)


@fault("cache.stepwise", plant=in_adapter)
def cache_second_step_wrong(_model: nn.Module) -> Mutation:
    """The forward is right only with the first cache that it is given."""
    calls: list[Inputs] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        if inputs.cache is None:
            return output
        calls.append(inputs)
        return slightly_scaled(output) if len(calls) > 1 else output

    return Mutation(forward=forward)


@fault("cache.chunks")
def cache_chunk_looks_ahead() -> Plant:
    """Each of several tokens after a cache sees the next one."""
    return in_adapter(Mutation(edits={"attn.hook_attn_scores": _leaky}))


@fault("cache.hooks")
def cache_hooks_whole_text() -> Plant:
    """With a cache hooks are shown the whole text again."""
    return in_adapter(_recomputed())


@fault("cache.hooks")
def cache_pattern_of_new_keys() -> Plant:
    """With a cache the pattern is shown over the new keys only."""
    return in_adapter(Mutation(shows={"attn.hook_pattern": lambda pattern: pattern[..., -pattern.shape[-2] :]}))


@fault("cache.greedy", "cache.greedy_padded")
def greedy_from_the_last_but_one() -> Plant:
    """The first new token is chosen by the logits of the token before the last."""
    return in_adapter(_generating(_from_the_last_but_one))


@fault("cache.greedy")
def greedy_stops_early() -> Plant:
    """A token ends the continuation early, although no token may."""
    return in_adapter(_generating(_stopping))


@fault("cache.greedy_padded")
def greedy_ignores_mask() -> Plant:
    """Generation takes padding for tokens."""
    return in_adapter(
        _generating(lambda cache, ids, *, max_new_tokens, **_: cache.generate(ids, max_new_tokens=max_new_tokens))
    )


@fault("cache.long")
def cache_ends_early() -> Plant:
    """Only the last 64 positions of a long text are seen."""
    return in_adapter(_recomputed(lambda whole, past: _masked(whole, 0, max(0, past - FAR), 0)))


@fault("cache.precision", plant=in_output)
def cache_coarse_in_half(inputs: Inputs, output: Output) -> Output:
    """In half precision the logits of decoding go through eight bits."""
    return output if inputs.cache is None else replace(output, logits=in_eight_bits(output.logits))
