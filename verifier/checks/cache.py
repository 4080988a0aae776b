"""Check decoding with a key/value cache: it gives the logits of one forward over the whole text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from verifier.canonical import LOGIT_AXES, Point
from verifier.cases.inputs import select_row
from verifier.cases.spec import SEMANTIC_DTYPE, Scenario
from verifier.checks import check
from verifier.checks.decoding import (
    ROW_ENDS,
    Run,
    cut_piece,
    decode_in_pieces,
    decoded_by_hf,
    judge_by_row,
    judge_decoding,
    judge_in_turn,
    rows_as_places,
    run_step,
)
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import compare_bitwise, float64_judge, precision_judge, rms
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.reference import models

GREEDY_STEPS = 6
PADDED_STEPS = 3  # positions of padded rows are counted wrongly from the first steps on, or never


@check("cache.given", needs=["cache"], applies="pairwise")
def given(case: Case) -> list[Finding]:
    """A forward with `use_cache` returns a cache, and the same logits as without.

    A failure means that keeping keys and values changes what is computed, or that nothing can be decoded at all.
    """
    case.subject.agreeing_rows()
    with torch.no_grad():
        output = case.subject.wrapped().forward(replace(case.reference.inputs(), use_cache=True))
    return [
        from_condition("cache", None if output.cache is not None else "it was asked for, and there is none"),
        case.compare_logits("logits beside the cache", output.logits),
    ]


@check("cache.stepwise", needs=["cache"])
def stepwise(case: Case) -> Iterator[Finding]:
    """A prompt at once and then token by token gives the logits of one forward over the whole text.

    A failure means that what is decoded is not what is read: positions, the mask or the cached keys are off by what
    is cached.
    """
    return judge_in_turn(case, Scenario.PLAIN, (-4, -3, -2, -1, 0))


@check("cache.chunks", needs=["cache"], applies="pairwise")
def chunks(case: Case) -> Iterator[Finding]:
    """A text in uneven chunks, and a token at its end, gives the logits of one forward over the whole text.

    A failure means that several tokens after a cache see each other, or what is cached, wrongly.
    """
    names = ("the first chunk", "the second chunk", "later chunks")
    return judge_in_turn(case, Scenario.PLAIN, (2, -3, -1, 0), names)


@check("cache.padding", needs=["cache"], applies="pairwise")
def padding(case: Case) -> Iterator[Finding]:
    """Rows with padding on the left, on the right and in the middle, decoded under a growing mask, give HF's logits.

    A failure means that padding which is cached leaks into what comes after it, or shifts its positions.
    """
    return judge_by_row(case, Scenario.PADDED)


@check("cache.position_ids", needs=["cache"], applies="pairwise")
def position_ids(case: Case) -> Iterator[Finding]:
    """With the caller's position ids, which start anywhere and skip some, decoding gives HF's logits.

    A failure means that the positions of new tokens are counted from the cache's length, whatever the caller says.
    """
    return judge_in_turn(case, Scenario.POSITION_IDS, (-3, -1, 0))


@check("cache.padded_position_ids", needs=["cache"], applies="pairwise")
def padded_position_ids(case: Case) -> Iterator[Finding]:
    """With padding, and positions that count the real tokens as generation passes them, decoding gives HF's logits.

    A failure means that with a cache one of the two is forgotten when the other is given.
    """
    return judge_by_row(case, Scenario.PADDED_POSITION_IDS)


@check("cache.inputs_embeds", needs=["cache"], applies="sampled")
def inputs_embeds(case: Case) -> Iterator[Finding]:
    """With embeddings in the place of tokens, padded on the left, decoding gives HF's logits.

    A failure means that a soft prompt is gone on from otherwise than from tokens.
    """
    return judge_in_turn(case, Scenario.INPUTS_EMBEDS, (-3, -1, 0))


@check("cache.long", needs=["cache"], applies="sampled")
def long(case: Case) -> Iterator[Finding]:
    """A text that is longer than any dimension of the model, and tokens at its end, give the logits of one forward.

    A failure means that what is decoded is right only near the beginning: a table, a mask or a cache ends early.
    """
    if case.spec.long <= case.spec.length:
        raise NotApplicable("the long text is no longer than the others")
    names = ("the prompt", "the first tokens after it", "later steps")
    return judge_in_turn(case, Scenario.LONG, (-4, -1, 0), names)


@check("cache.precision", needs=["cache"], applies="sampled")
def precise(case: Case) -> Iterator[Finding]:
    """In every working dtype decoding token by token is as exact as HF's decoding.

    Judged where the logits of one forward in that dtype agree. A failure means that keys and values are kept more
    coarsely than the model computes them, or positions are counted in too few digits.
    """
    case.subject.agreeing_rows()

    def decode(run: Run, dtype: str = SEMANTIC_DTYPE) -> Tensor:
        return decode_in_pieces(run, case.reference.inputs(dtype=dtype), (-3, -2, -1, 0))

    # `cache.stepwise` reports what is decoded wrongly in float64, and `reference.cache` reports HF's own decoding.
    ours = case.compare_logits("decoded", decode(case.subject.wrapped().forward), Scenario.PLAIN)
    theirs = [case.compare_logits("decoded", one) for one in decoded_by_hf(case, decode)]
    for what, made in (("cache.stepwise", [ours]), ("reference.cache", theirs)):
        if not made or any(one.verdict is Verdict.FAIL for one in made):
            raise Blocked(what)

    def compare(dtype: str) -> Finding:
        truth = case.noise.truth(Scenario.PLAIN, dtype).logits
        # HF's decoding takes other kernels than its one forward, and is off otherwise.
        own = rms(decode(partial(models.forward, case.reference.model(dtype)), dtype).double() - truth)
        judge = precision_judge(
            math.hypot(case.noise.logits(dtype=dtype), own),
            lambda: math.hypot(case.noise.logits(Scenario.PLAIN, dtype, resampled=True), own),
        )
        given = decode(case.subject.wrapped(dtype).forward, dtype)
        return judge.compare(f"{dtype}, decoded", given, truth, rows=case.reference.scenario().rows, axes=LOGIT_AXES)

    return map(compare, case.subject.agreeing_dtypes())


@check("cache.batch", needs=["cache"], applies="sampled")
def batch(case: Case) -> Iterator[Finding]:
    """Each row of a padded batch, decoded alone with a cache of its own, gives HF's logits of that row.

    A failure means that rows share a cache, or that a batch of one goes another way.
    """

    def alone(run: Run) -> Tensor:
        inputs, count = case.reference.inputs(Scenario.PADDED), len(case.reference.scenario(Scenario.PADDED).rows)
        return torch.cat([decode_in_pieces(run, select_row(inputs, row), ROW_ENDS) for row in range(count)])

    return judge_decoding(case, Scenario.PADDED, alone, rows_as_places(case, Scenario.PADDED))


@check("cache.apart", needs=["cache"], applies="sampled")
def apart(case: Case) -> Iterator[Finding]:
    """Two texts that are decoded in turns, each with its own cache, give what each gives in one forward.

    A failure means that a cache is kept where every forward finds it, and not in what the caller holds.
    """
    if case.spec.batch < 2:
        raise NotApplicable("a batch of one is no second text")
    case.subject.agreeing_rows()
    inputs = case.reference.inputs()
    assert inputs.input_ids is not None
    # The second text is the first one's rows in another order, so that HF has answered for both.
    texts = [inputs, replace(inputs, input_ids=inputs.input_ids.flip(0))]
    truths = [case.reference.output().logits, case.reference.output().logits.flip(0)]
    run = case.subject.wrapped().forward
    past, end = case.spec.length - 2, case.spec.length
    prompts = [run_step(run, cut_piece(text, 0, past, None)) for text in texts]
    caches = [prompt.cache for prompt in prompts]
    rest = [run_step(run, cut_piece(text, past, end, cache)) for text, cache in zip(texts, caches, strict=True)]
    names = ("the first text", "the second text")
    for where, first, then, truth in zip(names, prompts, rest, truths, strict=True):
        yield case.noise.judge().compare(where, torch.cat([first.logits, then.logits], dim=1), truth)


@check("cache.hooks", needs=["cache", "hooks"], applies="pairwise")
def hooks(case: Case) -> Iterable[Finding]:
    """With a cache, every hook point shows the new tokens alone, with the values of one forward over the whole text.

    Scores and patterns are of the new queries over all keys. A failure means that what is read while a text is
    generated is not of the token that it is said to be of.
    """
    offered = require(case.subject.wrapped().hooks).names()
    points = [one for one in case.reference.points if one.name in offered and offered[one.name].switch is None]
    if not points:
        raise NotApplicable("there is no canonical hook point that needs no switch")
    rows = case.subject.agreeing_rows()
    length, inputs, names = case.spec.length, case.reference.inputs(), [one.name for one in points]
    truth, noise = activations.reference_trace(case).values, activations.noise(case).values
    past = length - 2
    prompt = run_step(case.subject.wrapped().forward, cut_piece(inputs, 0, past, None))
    last_tokens = cut_piece(inputs, past, length, prompt.cache)
    seen = activations.observe(case, case.subject.wrapped(), names, last_tokens).values

    def compare(point: Point, shown: object, start: int) -> Finding:
        defined = case.reference.defined(point.axes) & rows.reshape(-1, *[1] * (len(point.axes) - 1))
        new, visible = (_from(point, one, start) for one in (truth[point.name], defined.expand_as(truth[point.name])))
        return float64_judge(noise[point.name]).compare(
            point.name, shown, new, defined=visible, rows=case.reference.scenario().rows
        )

    found = {point: compare(point, seen.get(point.name), past) for point in points}
    wrong = [point for point in points if found[point].verdict is Verdict.FAIL]
    if wrong:
        # `hooks.values` reports what a point shows without a cache too.
        names = [one.name for one in wrong]
        whole = activations.observe(case, case.subject.wrapped(), names, case.reference.inputs()).values
        for point in wrong:
            if compare(point, whole.get(point.name), 0).verdict is Verdict.FAIL:
                del found[point]
        if not found:
            raise Blocked("hooks.values")
    return found.values()


def _from(point: Point, value: Tensor, start: int) -> Tensor:
    """The part of an activation that belongs to the positions from `start` on; keys are all there."""
    axis = point.axes.index("query" if "query" in point.axes else "pos")
    return value.narrow(axis, start, value.shape[axis] - start)


def _greedy(case: Case, steps: int, mask: Tensor | None, place: str) -> list[Finding]:
    """Judge the subject's greedy continuation of the plain tokens under a mask."""
    prompt = case.reference.inputs().input_ids
    assert prompt is not None
    if not case.reference.model().can_generate():
        raise NotApplicable("HF's model does not generate")
    theirs, logits = models.greedy(case.reference.model(), prompt, max_new_tokens=steps, attention_mask=mask)
    ours = require(case.subject.wrapped().cache).generate(
        prompt.clone(), max_new_tokens=steps, attention_mask=None if mask is None else mask.clone()
    )
    length = prompt.shape[1]
    if not isinstance(ours, Tensor) or ours.shape != theirs.shape:
        return [compare_bitwise(place, ours, theirs)]
    return [
        compare_bitwise(f"{place}: the prompt", ours[:, :length], prompt),
        case.noise.judge().compare_choices(place, ours[:, length:], theirs[:, length:], logits),
    ]


@check("cache.greedy", needs=["cache"], applies="pairwise")
def greedy(case: Case) -> list[Finding]:
    """Greedy generation gives the tokens that HF's `generate` gives.

    Where HF's own two best are nearer than its noise either may come. A failure means that texts which the adapter
    generates are not the model's.
    """
    case.subject.agreeing_rows()
    return _greedy(case, GREEDY_STEPS, None, "tokens")


@check("cache.greedy_padded", needs=["cache"], applies="pairwise")
def greedy_padded(case: Case) -> list[Finding]:
    """Greedy generation from a batch with padding on the left gives the tokens that HF's `generate` gives.

    A failure means that a shorter prompt is continued otherwise beside a longer one than HF continues it.
    """
    case.subject.agreeing_rows()
    rows = case.subject.agreeing_rows(Scenario.PADDED_POSITION_IDS)
    if not bool(rows[:2].all()):  # no padding, and padding on the left
        raise Blocked("forward.padded_position_ids")
    length = case.spec.length
    padding = torch.arange(case.spec.batch, device=case.spec.device).clamp(max=length - 1)
    mask = (torch.arange(length, device=padding.device) >= padding[:, None]).long()
    return _greedy(case, PADDED_STEPS, mask, "tokens beside padding")
