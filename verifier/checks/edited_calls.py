"""Interventions in every way of calling a model: with padding, from embeddings, with a cache, while it generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.adapter import Inputs, Subject
from verifier.canonical import LOGIT_AXES, RESIDUAL, Point
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, Scenario
from verifier.checks import check, decoding
from verifier.checks.subjects import real_logits
from verifier.judging.numerics import Judge, compare_bitwise, float64_judge, noise_from_float32
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations, edited_runs, interventions, localization
from verifier.observing.activations import hooked
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.observing.reuse import memoized_for_equal_models
from verifier.reference import models


def ungated_points(case: Case) -> list[Point]:
    """Select the points that agree with HF and need no switch: one forward can edit all of them."""
    case.subject.agreeing_rows()
    found = [
        one for one in localization.agreeing_points(case) if activations.hook_points(case)[one.name].switch is None
    ]
    if not found:
        raise NotApplicable("every hook point has a switch")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A way of calling a model.

    Attributes:
        name: for people.
        scenario: whose tokens, mask and positions are given.
        reported_by: the check that reports another model where it is called so, without an edit.
        run: gives the logits of the first rows, as many as it likes.
    """

    name: str
    scenario: Scenario
    reported_by: str
    run: Callable[[Subject], Tensor]

    def compare(self, case: Case, where: str, logits: Tensor, truth: Tensor, judge: Judge) -> Finding:
        """Judge the logits of a run in this way."""
        count, names = len(logits), case.reference.scenario(self.scenario).rows
        defined = real_logits(case, self.scenario)[:count]
        return judge.compare(where, logits, truth[:count], defined=defined, rows=names[:count], axes=LOGIT_AXES)


def _call_with(case: Case, name: str, scenario: Scenario, reported_by: str) -> _Call:
    def run(subject: Subject) -> Tensor:
        return subject.forward(case.reference.inputs(scenario)).logits

    return _Call(name=name, scenario=scenario, reported_by=reported_by, run=run)


def _calls(case: Case) -> Iterator[_Call]:
    def of_one(subject: Subject) -> Tensor:
        ids = case.reference.inputs().input_ids
        assert ids is not None
        return subject.forward(Inputs(input_ids=ids[:1])).logits

    def with_gradients(subject: Subject) -> Tensor:
        with torch.enable_grad():
            return subject.forward(case.reference.inputs()).logits.detach()

    def decode_in_pieces(subject: Subject) -> Tensor:
        return decoding.decode_in_pieces(subject.forward, case.reference.inputs(), (-2, -1, 0))

    yield _call_with(case, "with padding", Scenario.PADDED, "forward.left_padding")
    yield _call_with(case, "with padding and positions", Scenario.PADDED_POSITION_IDS, "forward.padded_position_ids")
    yield _call_with(case, "from embeddings", Scenario.INPUTS_EMBEDS, "forward.inputs_embeds")
    yield _Call(name="on one row", scenario=Scenario.PLAIN, reported_by="forward.batch", run=of_one)
    yield _Call(name="with gradients", scenario=Scenario.PLAIN, reported_by="forward.gradients", run=with_gradients)
    if case.subject.wrapped().cache is not None:
        yield _Call(name="with a cache", scenario=Scenario.PLAIN, reported_by="cache.stepwise", run=decode_in_pieces)


def _judge_edited(case: Case, way: _Call, points: Sequence[Point], where: str) -> Finding | None:
    """What the subject gives with these points edited, judged; None where HF's model is not changed by it."""
    truth = edited_runs.scale_in_reference(case, way.scenario, tuple(points))
    if not truth.acts:
        return None
    edits = {name: edit for name, edit in interventions.scaling_edits(points).items() if name in truth.edited}
    with torch.no_grad(), hooked(case, case.subject.wrapped(), forward=edits):
        logits = way.run(case.subject.wrapped())
    return way.compare(case, where, logits, truth.logits, truth.judge)


def _failing_alone(case: Case, way: _Call, points: Sequence[Point]) -> Iterator[tuple[Point, Finding]]:
    """The points at which an edit of that one alone goes wrong."""
    for point in points:
        found = _judge_edited(case, way, [point], f"{point.name}, {way.name}")
        if found is not None and found.verdict is Verdict.FAIL:
            yield point, found


def _locate_failure(case: Case, way: _Call, points: Sequence[Point], found: Finding) -> Finding:
    """Return the finding of points edited together; where it fails, that of the first point that fails alone."""
    if found.verdict is not Verdict.FAIL:
        return found
    return next((alone for _, alone in _failing_alone(case, way, points)), found)


def acting_points(case: Case) -> list[Point]:
    """Select the points at which edits have HF's effect on plain tokens; simpler checks report the others.

    Raises:
        Blocked: together they have another one.
    """
    points, plainly = ungated_points(case), _call_with(case, "plainly", Scenario.PLAIN, "forward.logits")

    def wrong(chosen: Sequence[Point]) -> bool:
        found = _judge_edited(case, plainly, chosen, plainly.name)
        return found is not None and found.verdict is Verdict.FAIL

    if wrong(points):
        failing = {point for point, _ in _failing_alone(case, plainly, points)}
        points = [point for point in points if point not in failing]
        if not failing or not points or wrong(points):
            raise Blocked("intervene.replace")
    return points


@check("intervene.calls", needs=["hooks"], applies="pairwise")
def calls(case: Case) -> list[Finding]:
    """Edits act as in HF's model however it is called: with padding, positions, embeddings, a cache, gradients, on one
    row.

    Every point is multiplied by a number of its own, all at once. A failure means that steering, patching or ablating
    does nothing, or something else, as soon as a model is called as people call it.
    """
    points = acting_points(case)
    blocked: list[Blocked] = []
    findings: list[Finding] = []
    for way in _calls(case):
        try:
            case.subject.agreeing_rows(way.scenario)
        except Blocked as error:
            blocked.append(error)
            continue
        found = _judge_edited(case, way, points, f"all points, {way.name}")
        if found is None:
            continue
        if found.verdict is Verdict.FAIL and _fails_unedited(case, way):
            blocked.append(Blocked(way.reported_by))
            continue
        findings.append(_locate_failure(case, way, points, found))
    if blocked and not findings:
        raise blocked[0]
    return findings


def _fails_unedited(case: Case, way: _Call) -> bool:
    """Whether the subject differs from HF without an edit, too."""
    with torch.no_grad():
        logits = way.run(case.subject.wrapped())
    truth, judge = case.reference.output(way.scenario).logits, case.noise.judge(way.scenario)
    found = way.compare(case, way.name, logits, truth, judge)
    return found.verdict is Verdict.FAIL


@check("intervene.layers", needs=["hooks"])
def layers(case: Case) -> list[Finding]:
    """Edits in every second layer act in those alone, with no hook in the others, where there are three layers or more.

    A failure means that layers are taken for each other: `blocks.1` for `blocks.10`, whose name begins so.
    """
    if len({point.layer for point in case.reference.points if point.layer is not None}) <= 2:
        raise NotApplicable("the model has no more than two layers")
    chosen = [point for point in acting_points(case) if point.layer is not None and point.layer % 2]
    way = _call_with(case, "in every second layer", Scenario.PLAIN, "forward.logits")
    found = _judge_edited(case, way, chosen, f"all points, {way.name}")
    if found is None:
        raise NotApplicable("HF's model is not changed by these edits")
    return [_locate_failure(case, way, chosen, found)]


STEPS = 3  # tokens that are generated under an edit


@check("intervene.generation", needs=["hooks", "cache"], applies="pairwise")
def generation(case: Case) -> list[Finding]:
    """What is generated while a point is edited are the tokens that HF's model, edited so, chooses.

    The numbers of an activation of the stream are put in reverse at every step. A failure means that a model that is
    steered writes what it would have written anyway, or something else.
    """
    point = next((one for one in reversed(ungated_points(case)) if one.axes == RESIDUAL), None)
    if point is None:
        raise NotApplicable("the adapter shows no activation of the width of the stream")
    prompt, subject = case.reference.inputs().input_ids, case.subject.wrapped()
    assert prompt is not None
    theirs, logits, noise = _generate_in_reference(case, point.name)
    with torch.no_grad(), hooked(case, subject, forward={point.name: _reverse}):
        ours = require(subject.cache).generate(prompt.clone(), max_new_tokens=STEPS)
    length = prompt.shape[1]
    if not isinstance(ours, Tensor) or ours.shape != theirs.shape:
        return [compare_bitwise(point.name, ours, theirs)]
    return [float64_judge(noise).compare_choices(point.name, ours[:, length:], theirs[:, length:], logits)]


def _reverse(value: Tensor) -> Tensor:
    return value.flip(-1)


@memoized_for_equal_models
def _generate_in_reference(case: Case, name: str) -> tuple[Tensor, Tensor, float]:
    """Generate with HF's model while this hook point is edited, one forward over the whole text for each token.

    Returns:
        The text `[batch, pos]`, the logits `[batch, step, d_vocab]` that it was chosen by, and their noise.
    """

    def last(dtype: str, ids: Tensor) -> Tensor:
        model = case.reference.model(dtype)
        with torch.no_grad(), case.family.taps(model, names=[], edits={name: _reverse}):
            return models.forward(model, Inputs(input_ids=ids)).logits[:, -1:]

    prompt = case.reference.inputs().input_ids
    assert prompt is not None
    ids, found = prompt, []
    for _ in range(STEPS):
        found.append(last(SEMANTIC_DTYPE, ids))
        ids = torch.cat([ids, found[-1].argmax(-1)], dim=1)
    return ids, torch.cat(found, dim=1), noise_from_float32(found[0], last(SINGLE, prompt))
