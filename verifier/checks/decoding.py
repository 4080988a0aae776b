"""A text that is given piece by piece, each with the cache of those before, held against one forward over all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from verifier.adapter import Inputs, Output
from verifier.canonical import LOGIT_AXES
from verifier.cases.spec import Scenario
from verifier.checks.blame import through_hugging_face
from verifier.judging.comparison import summarize
from verifier.judging.outcome import Blocked, Finding, Verdict
from verifier.observing.case import Case
from verifier.reference import models

Run = Callable[[Inputs], Output]
Place = tuple[str, Tensor]
"""What is compared under one name: `[batch, pos]`."""


def piece(inputs: Inputs, start: int, end: int, cache: object) -> Inputs:
    """The tokens from `start` to `end`, as they follow on what is cached: the mask covers the past too."""

    def part(whole: Tensor | None, first: int) -> Tensor | None:
        return None if whole is None else whole[:, first:end].clone()

    return Inputs(
        input_ids=part(inputs.input_ids, start),
        inputs_embeds=part(inputs.inputs_embeds, start),
        attention_mask=part(inputs.attention_mask, 0),
        position_ids=part(inputs.position_ids, start),
        cache=cache,
        use_cache=True,
    )


def step(run: Run, inputs: Inputs) -> Output:
    """One forward, from which decoding can go on.

    Raises:
        Blocked: it gave no cache, which `cache.given` reports.
    """
    with torch.no_grad():
        output = run(inputs)
    if output.cache is None:
        raise Blocked("cache.given")
    return replace(output, logits=output.logits.clone())  # the next forward may write into the same memory


def in_pieces(run: Run, inputs: Inputs, ends: Sequence[int]) -> Tensor:
    """Logits `[batch, pos, d_vocab]` of a text that is given piece by piece, each with the cache of those before."""
    pieces, cache, start = [], None, 0
    for end in ends:
        output = step(run, piece(inputs, start, end, cache))
        pieces.append(output.logits)
        cache, start = output.cache, end
    return torch.cat(pieces, dim=1)


def judged(
    case: Case, scenario: Scenario, decode: Callable[[Run], Tensor], run: Run, places: Sequence[Place]
) -> Iterator[Finding]:
    """Hold what is decoded against HF's one forward, where the subject's own one forward agrees with that.

    Raises:
        Blocked: wherever it differs it is what HF's own decoding gives, which `reference.cache` reports.
    """
    chosen, agreeing = case.reference.scenario(scenario), case.subject.agreeing_rows(scenario)
    truth, judge = case.reference.output(scenario).logits, case.noise.judge(scenario)
    ours, looked, excused = decode(run), False, False
    theirs: list[Tensor] = []
    for where, rows in places:
        defined = (chosen.real & rows & agreeing[:, None])[..., None]
        if not bool(defined.any()):
            continue
        found = judge.compare(where, ours, truth, defined=defined, rows=chosen.rows, axes=LOGIT_AXES)
        if found.verdict is Verdict.FAIL:
            theirs = theirs or decoded_by_hf(case, decode)
            follows = any(
                judge.compare(where, one, truth, defined=defined).verdict is Verdict.FAIL
                and judge.compare(where, ours, one, defined=defined).verdict is not Verdict.FAIL
                for one in theirs
            )
            if follows:
                excused = True
                continue
        looked = True
        yield found
    if excused and not looked:
        raise Blocked("reference.cache: HF's own decoding differs from its one forward, and the subject decodes so")


def decoded_by_hf(case: Case, decode: Callable[[Run], Tensor]) -> list[Tensor]:
    """What HF itself decodes so, if it can."""
    try:
        return [decode(lambda inputs: models.forward(case.reference.model(), inputs))]
    except Exception as error:  # what HF cannot decode explains nothing; `reference.cache` reports it
        if not through_hugging_face(error):
            raise
        return []


def judged_in_pieces(case: Case, scenario: Scenario, ends: Sequence[int], places: Sequence[Place]) -> Finding:
    """Judge the subject's decoding in these pieces."""

    def decode(run: Run) -> Tensor:
        return in_pieces(run, case.reference.inputs(scenario), ends)

    case.subject.agreeing_rows(scenario)  # before anything is decoded by what is wrong already
    return summarize(judged(case, scenario, decode, case.subject.wrapped().forward, places))


def in_turn(case: Case, scenario: Scenario, ends: Sequence[int], names: Sequence[str]) -> list[Place]:
    """A place for each piece, in the order in which they are decoded; the last name is that of all the rest."""
    real = case.reference.scenario(scenario).real
    position = torch.arange(real.shape[1], device=real.device).expand_as(real)
    starts = [0, *ends[: len(names) - 1]]
    stops = [*ends[: len(names) - 1], ends[-1]]
    return [
        (name, (position >= start) & (position < stop)) for name, start, stop in zip(names, starts, stops, strict=True)
    ]


def by_row(case: Case, scenario: Scenario) -> list[Place]:
    """A place for each way of padding."""
    chosen = case.reference.scenario(scenario)
    numbers = torch.arange(len(chosen.rows), device=chosen.real.device)
    return [(name, (numbers == row)[:, None].expand_as(chosen.real)) for row, name in enumerate(chosen.rows)]
