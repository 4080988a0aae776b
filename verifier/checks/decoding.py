"""Decode a text piece by piece with a cache, and compare the logits with one forward over the whole text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from verifier.adapter import Inputs, Output
from verifier.canonical import LOGIT_AXES
from verifier.cases.spec import Scenario
from verifier.checks.blame import passed_hugging_face
from verifier.checks.subjects import real_logits
from verifier.judging.outcome import Blocked, Finding, Verdict
from verifier.observing.case import Case
from verifier.reference import models

Run = Callable[[Inputs], Output]
Place = tuple[str, Tensor]
"""A name, and which logits are compared under it: `[batch, pos]`."""


def cut_piece(inputs: Inputs, start: int, end: int, cache: object) -> Inputs:
    """Cut the inputs to the tokens from `start` to `end`, after a cache: the mask covers the cached tokens too.

    Args:
        inputs: the whole text: ids and positions `[batch, pos]`, embeddings `[batch, pos, d_model]`.
        start: the position of the piece's first token.
        end: the position after the piece's last token.
        cache: the cache of the tokens before `start`; None for the first piece.

    Returns:
        Copies of the piece's tensors, with the cache, for a forward that returns a cache.
    """

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


def run_step(run: Run, inputs: Inputs) -> Output:
    """Run one forward that returns a cache, and copy its logits.

    Args:
        run: a forward.
        inputs: of this step, with the cache of the steps before.

    Returns:
        The output, with logits `[batch, pos, d_vocab]` of this step's tokens.

    Raises:
        Blocked: the forward returned no cache; `cache.given` reports it.
    """
    with torch.no_grad():
        output = run(inputs)
    if output.cache is None:
        raise Blocked("cache.given")
    return replace(output, logits=output.logits.clone())  # the next forward may write into the same memory


def decode_in_pieces(run: Run, inputs: Inputs, ends: Sequence[int]) -> Tensor:
    """Decode a text in pieces with a cache.

    Args:
        run: a forward.
        inputs: the whole text.
        ends: the position after each piece; one that is not positive is counted from the end of the text.

    Returns:
        The logits `[batch, pos, d_vocab]`.
    """
    text = inputs.input_ids if inputs.inputs_embeds is None else inputs.inputs_embeds
    assert text is not None
    pieces, cache, start = [], None, 0
    for end in _from_start(ends, text.shape[1]):
        output = run_step(run, cut_piece(inputs, start, end, cache))
        pieces.append(output.logits)
        cache, start = output.cache, end
    return torch.cat(pieces, dim=1)


def _from_start(ends: Sequence[int], length: int) -> list[int]:
    return [end if end > 0 else length + end for end in ends]


def judge_decoding(
    case: Case, scenario: Scenario, decode: Callable[[Run], Tensor], places: Sequence[Place]
) -> Iterator[Finding]:
    """Compare decoded logits with HF's one forward, in the rows where the subject's own one forward agrees with it.

    Args:
        case: the case.
        scenario: the inputs that are decoded.
        decode: decodes them with a forward, and gives the logits `[batch, pos, d_vocab]`.
        places: names, each with the booleans `[batch, pos]` of the tokens that are judged there.

    Returns:
        A finding for each place where something is compared, in the order of the places.

    Raises:
        Blocked: every difference is one of HF's own decoding too; `reference.cache` reports it.
    """
    compared_logits, names = real_logits(case, scenario), case.reference.scenario(scenario).rows
    truth, judge = case.reference.output(scenario).logits, case.noise.judge(scenario)
    ours, compared, excused = decode(case.subject.wrapped().forward), False, False
    theirs: list[Tensor] = []
    for where, rows in places:
        defined = compared_logits & rows[..., None]
        if not bool(defined.any()):
            continue
        found = judge.compare(where, ours, truth, defined=defined, rows=names, axes=LOGIT_AXES)
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
        compared = True
        yield found
    if excused and not compared:
        raise Blocked("reference.cache: HF's own decoding differs from its one forward, and the subject decodes so")


def decoded_by_hf(case: Case, decode: Callable[[Run], Tensor]) -> list[Tensor]:
    """Decode with HF's own model: one tensor of logits, none where HF raises.

    Args:
        case: whose HF model is run.
        decode: decodes with a forward, and gives the logits `[batch, pos, d_vocab]`.

    Raises:
        Exception: whatever `decode` raises that did not pass through HF.
    """
    try:
        return [decode(lambda inputs: models.forward(case.reference.model(), inputs))]
    except Exception as error:  # where HF raises there is nothing to compare with; `reference.cache` reports it
        if not passed_hugging_face(error):
            raise
        return []


def judge_in_pieces(case: Case, scenario: Scenario, ends: Sequence[int], places: Sequence[Place]) -> Iterator[Finding]:
    """Judge the subject's decoding in pieces with the given ends, place by place.

    Args:
        case: the case.
        scenario: the inputs that are decoded.
        ends: the position after each piece; one that is not positive is counted from the end of the text.
        places: names, each with the booleans `[batch, pos]` of the tokens that are judged there.

    Raises:
        Blocked: the subject's one forward is wrong already, or HF's own decoding differs from its one forward.
    """

    def decode(run: Run) -> Tensor:
        return decode_in_pieces(run, case.reference.inputs(scenario), ends)

    case.subject.agreeing_rows(scenario)  # raises `Blocked` before a wrong subject decodes anything
    return judge_decoding(case, scenario, decode, places)


STEPS = ("the prompt", "the first step", "later steps")


def judge_in_turn(
    case: Case, scenario: Scenario, ends: Sequence[int], names: Sequence[str] = STEPS
) -> Iterator[Finding]:
    """Judge the subject's decoding in pieces, piece by piece; the last name is for all further pieces.

    Args:
        case: the case.
        scenario: the inputs that are decoded.
        ends: the position after each piece; one that is not positive is counted from the end of the text.
        names: of the pieces, for people.

    Returns:
        A finding for each piece where something is compared, in their order.
    """
    real = case.reference.scenario(scenario).real
    position = torch.arange(real.shape[1], device=real.device).expand_as(real)
    stops = _from_start([*ends[: len(names) - 1], ends[-1]], real.shape[1])
    places = [
        (name, (position >= start) & (position < stop))
        for name, start, stop in zip(names, [0, *stops], stops, strict=False)
    ]
    return judge_in_pieces(case, scenario, ends, places)


ROW_ENDS = (-4, -1, 0)  # a prompt, several tokens at once, and one


def judge_by_row(case: Case, scenario: Scenario) -> Iterator[Finding]:
    """Judge the subject's decoding in pieces, row by row.

    Args:
        case: the case.
        scenario: the inputs that are decoded.

    Returns:
        A finding for each row where something is compared, in their order.
    """
    return judge_in_pieces(case, scenario, ROW_ENDS, rows_as_places(case, scenario))


def rows_as_places(case: Case, scenario: Scenario) -> list[Place]:
    """Make a place for each row, which is one way of padding.

    Args:
        case: the case.
        scenario: whose rows they are.

    Returns:
        The name of each row, with booleans `[batch, pos]` that are true in that row.
    """
    chosen = case.reference.scenario(scenario)
    numbers = torch.arange(len(chosen.rows), device=chosen.real.device)
    return [(name, (numbers == row)[:, None].expand_as(chosen.real)) for row, name in enumerate(chosen.rows)]
