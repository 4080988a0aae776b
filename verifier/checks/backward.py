"""Check gradients: at hook points and of parameters, read and replaced."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs, Subject
from verifier.canonical import Point
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, Scenario
from verifier.checks import FailedAt, check, edited_calls
from verifier.checks.subjects import real_logits, require_dtype
from verifier.errors import one_line
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import (
    compare_bitwise,
    compare_derivative,
    float64_judge,
    gradient_judge,
    noise_from_float32,
)
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations, edited_runs, localization, working_precision
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.observing.interventions import prompts, scaling_edits


def _points_to_judge(case: Case) -> list[Point]:
    """The points that are asked for gradients: those whose values are right, in a model whose logits are."""
    case.subject.agreeing_rows()
    return localization.agreeing_points(case)


def _read_all_gradients(case: Case, scenario: Scenario) -> tuple[dict[str, Tensor], Counter[str]]:
    """Read the gradients at all points in one backward, and how often each point gets one."""
    gradients: dict[str, Tensor] = {}
    shown: Counter[str] = Counter()
    for switch, names in activations.by_switch(case, [point.name for point in _points_to_judge(case)]).items():
        seen = activations.subject_gradients(case, scenario, switch)
        gradients |= {name: seen.gradients[name] for name in names if name in seen.gradients}
        shown.update(name for name in seen.gradients_fired if name in names)
    return gradients, shown


def _read_gradient_alone(case: Case, point: Point) -> activations.Seen:
    """A forward and a backward with a reader of this point's gradient, and no other hook."""
    along = case.reference.cotangent()
    return activations.observe(
        case, case.subject.wrapped(), [], case.reference.inputs(), along=along, gradients_of=[point.name]
    )


@contextlib.contextmanager
def _blaming(
    points: Iterable[Point], run: Callable[[Point], object], *, what: str = "a backward hook"
) -> Iterator[None]:
    """Turn an error of autograd inside the context into a failure at the first hook point that raises it alone.

    Args:
        points: those that are hooked at once inside the context.
        run: does the same with one of them.
        what: hooks them, for people.

    Raises:
        FailedAt: there was an error.
    """
    try:
        yield
    except (Blocked, NotApplicable):
        raise
    except Exception as error:
        for point in points:
            try:
                run(point)
            except Exception as raised:
                raise FailedAt(point.name, f"{what} there raises {one_line(raised)}") from raised
        message = f"{what} at every point raises {one_line(error)}, at none of them alone"
        raise FailedAt("all points together", message) from error


def _judge_gradients(case: Case, gradients: Mapping[str, Tensor], points: Sequence[Point]) -> list[Finding]:
    """Judge the gradients at these points on plain tokens, the last point first, as gradients come."""
    missing = [from_condition(one.name, "no gradient") for one in reversed(points) if one.name not in gradients]
    compared = localization.compare_points(case, Scenario.PLAIN, gradients, of="gradients", points=points)
    return [*missing, *reversed(localization.annotate_inputs(case, compared, backwards=True))]


def _differentiate(case: Case, subject: Subject, **hooks: Mapping[str, Edit]) -> Tensor:
    """Run a forward and a backward on plain tokens; `hooks` are those of `activations.hooked`.

    Returns:
        The logits `[batch, pos, d_vocab]`.
    """
    with torch.enable_grad(), activations.hooked(case, subject, **hooks):
        logits = subject.forward(case.reference.inputs()).logits
        logits.backward(case.reference.cotangent().to(logits))
    return logits.detach()


@check("backward.hooks", needs=["hooks"])
def hooks(case: Case) -> Iterator[Finding]:
    """With a backward hook on every point at once, the gradient at each is HF's, and each is shown it once.

    HF's gradients are taken of its tapped activations, with no hook of any module. The loss is a random weighting of
    the logits of real tokens, in the pairwise cases with padding too. A failure means that attribution and
    gradient-based patching are of another model; the place is the first one on the way back from the logits.
    """
    points = _points_to_judge(case)
    with _blaming(points, partial(_read_gradient_alone, case)):
        found = {scenario: _read_all_gradients(case, scenario) for scenario in case.reference.traced_scenarios}
    for scenario, (gradients, shown) in found.items():
        for point in reversed(points):
            if shown[point.name] != 1:
                words = f"its backward hook fires {shown[point.name]} times" if shown[point.name] else "no gradient"
                yield from_condition(point.name, f"{words} in one backward")
        rows = case.subject.agreeing_rows(scenario)
        made = localization.compare_points(case, scenario, gradients, of="gradients", points=points, rows=rows)
        yield from reversed(localization.annotate_inputs(case, made, backwards=True))


@check("backward.alone", needs=["hooks"], applies="sampled")
def alone(case: Case) -> list[Finding]:
    """A backward hook on each point alone, with none elsewhere, gets HF's gradient too.

    Run for a few models of each kind of block. A failure means that a gradient is right only while other hooks are
    there.
    """
    points = _points_to_judge(case)
    gradients: dict[str, Tensor] = {}
    for point in points:
        with _blaming([point], partial(_read_gradient_alone, case)):
            gradients |= _read_gradient_alone(case, point).gradients
    return _judge_gradients(case, gradients, points)


def _leave_gradients(case: Case, subject: Subject, *, hooked: bool = False) -> None:
    """Run a forward and backward that leaves gradients in the parameters, with every hook there is, or none."""
    names = [point.name for point in activations.shared_points(case)] if hooked else []
    copies: dict[str, Edit] = dict.fromkeys(activations.by_switch(case, names).get(None, []), Tensor.clone)
    _differentiate(case, subject, forward=copies, backward=copies)


def _judge_weight_gradients(case: Case, subject: Subject, where: str = "{}", *, backwards: int = 1) -> list[Finding]:
    """Judge by canonical name the gradients that several backwards left in the parameters."""
    truth, noise = activations.reference_trace(case).weights, activations.noise(case).weights
    given: Mapping[str, Tensor] = require(subject.weights).gradients()
    return [
        float64_judge(noise[name] * backwards).compare(where.format(name), given[name], true * backwards)
        if name in given
        else from_condition(where.format(name), "it has no gradient")
        for name, true in reversed(list(truth.items()))  # as gradients come
    ]


_WITH_GRADIENTS = "weights with gradients"  # as a case remembers them


@check("backward.parameters", needs=["weights"])
def parameters(case: Case) -> list[Finding]:
    """The gradient that a backward leaves in each weight is HF's, the fused one's compared through the split.

    With no hook, and in the pairwise cases with hooks on every point that hand on copies of values and gradients. A
    failure means that what is trained or attributed to through the adapter is another model's.
    """
    case.subject.agreeing_rows()
    subject = case.subject.wrap(case.reference.build_for_adapter())
    _leave_gradients(case, subject)
    without = _judge_weight_gradients(case, subject)
    case.memo.memoize(_WITH_GRADIENTS, lambda: frozenset(require(subject.weights).gradients()))
    hooked = case.spec.is_pairwise and subject.hooks is not None
    if not hooked or _any_fails(without):
        return without
    _leave_gradients(case, subject, hooked=True)  # gradients are added to those that are there
    return [*without, *_judge_weight_gradients(case, subject, "{}, hooked", backwards=2)]


@check("backward.inputs_embeds", applies="pairwise")
def inputs_embeds(case: Case) -> list[Finding]:
    """The gradient with respect to embeddings that are given in the place of tokens is HF's, padding or not.

    A failure means that saliency, integrated gradients and tuned prompts, all of which start at the embeddings, are of
    another model, or of none.
    """
    rows, scenario = case.subject.agreeing_rows(activations.EMBEDS), case.reference.scenario(activations.EMBEDS)
    along, subject = case.reference.cotangent(activations.EMBEDS), case.subject.wrapped()
    found = activations.gradient_at_embeds(
        lambda inputs: subject.forward(inputs).logits,
        case.reference.inputs(activations.EMBEDS),
        along * rows[:, None, None],
    )
    truth = activations.embeds_gradient(case)
    noise = noise_from_float32(truth, activations.embeds_gradient(case, SINGLE), scenario.real[..., None])
    defined = real_logits(case, activations.EMBEDS)
    return [float64_judge(noise).compare("inputs_embeds", found, truth, defined=defined, rows=scenario.rows)]


@check("backward.interleaved", needs=["hooks"], applies="pairwise")
def interleaved(case: Case) -> list[Finding]:
    """The gradients of a forward are HF's although another forward came between it and its backward.

    With readers on every point that are there for both. A failure means that a forward leaves what its backward needs
    where the next one finds it, so that losses of two prompts (a contrast, a logit difference) have wrong gradients.
    """
    points = edited_calls.ungated_points(case)
    subject, along = case.subject.wrapped(), case.reference.cotangent()
    try:
        case.subject.output(Scenario.ONE_TOKEN)
    except Exception as error:
        raise Blocked("forward.lengths") from error

    def run(chosen: Sequence[Point]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def reader(name: str) -> Edit:
            def read(gradient: Tensor) -> None:
                found.setdefault(name, gradient.detach().clone())

            return read

        readers = {one.name: reader(one.name) for one in chosen}
        with torch.enable_grad(), activations.hooked(case, subject, backward=readers):
            first = subject.forward(case.reference.inputs()).logits
            subject.forward(case.reference.inputs(Scenario.ONE_TOKEN))
            first.backward(along.to(first))
        return found

    with _blaming(points, lambda point: run([point])):
        seen = run(points)
    of_one_forward = activations.subject_gradients(case).gradients
    compared = localization.compare_points(case, Scenario.PLAIN, of_one_forward, of="gradients", points=points)
    right = {one.where for one in compared if one.verdict is not Verdict.FAIL}
    judged = [point for point in points if point.name in right]
    if not judged:
        raise Blocked("backward.hooks")
    return _judge_gradients(case, seen, judged)


@check("backward.identity", needs=["hooks"], applies="pairwise")
def identity(case: Case) -> list[Finding]:
    """Hooks that read gradients change no bit of the logits, and none of the gradients that others read.

    A failure means that what makes hooks safe (clones, patched forwards) makes another model.
    """
    points = _points_to_judge(case)
    with _blaming(points, partial(_read_gradient_alone, case)):
        seen = activations.subject_gradients(case)
    with torch.enable_grad():
        bare = case.subject.wrapped().forward(case.reference.inputs()).logits
    made = [compare_bitwise("logits", seen.logits, bare.detach())]
    readable = [one for one in points if one.name in seen.gradients]
    if readable:
        first = readable[0]  # all gradients flow to it, so what others do shows there
        judge = float64_judge(activations.noise(case).gradients[first.name])
        lone = _read_gradient_alone(case, first).gradients.get(first.name)
        made.append(judge.compare(first.name, lone, seen.gradients[first.name]))
    return made


@check("backward.replace", needs=["hooks"], applies="pairwise")
def replaced(case: Case) -> Iterator[Finding]:
    """A gradient that a backward hook replaces, everywhere or in one head at one position, has HF's effect upstream.

    Seen at the model's first point. A failure means that stopping or editing gradients at a hook does something else,
    or nothing.
    """
    points = _points_to_judge(case)
    experiment = edited_runs.run_gradient_interventions(case)
    first = case.reference.points[0]
    if first not in points:
        raise NotApplicable(f"the adapter does not show HF's {first.name}, at which replaced gradients are seen")
    with _blaming(points[1:], lambda point: _replace_gradients(case, [point])):
        given = _replace_gradients(case, points)
    failing: set[str] = set()
    for one in experiment.interventions:
        name = one.point.name
        if one.row not in given or name in failing or not bool(experiment.acts[one.row]):
            continue
        made = float64_judge(float(experiment.noise[one.row])).compare(
            name, given[one.row], experiment.results[one.row], axes=first.axes[1:]
        )
        if made.verdict is Verdict.FAIL:
            failing.add(name)
            bare = float64_judge(float(experiment.noise[0])).compare(name, given[one.row], experiment.results[0])
            words = "replacing its gradient changes nothing" if bare.verdict is not Verdict.FAIL else made.message
            made = replace(made, message=f"{words} ({one.kind}, {one.extent}; seen at {first.name})")
        yield made


def _replace_gradients(case: Case, points: Sequence[Point]) -> Mapping[int, Tensor]:
    subject, first = case.subject.wrapped(), case.reference.points[0]

    def run(ids: Tensor, edits: Mapping[str, Edit]) -> Tensor:
        seen: list[Tensor] = []

        def read(gradient: Tensor) -> None:
            seen.append(gradient.detach().clone())

        along = edited_runs.draw_cotangent(case, ids)
        with torch.enable_grad(), activations.hooked(case, subject, backward={**edits, first.name: read}):
            subject.forward(Inputs(input_ids=ids)).logits.backward(along)
        return seen[0] if seen else torch.zeros(0)

    experiment = edited_runs.run_gradient_interventions(case)
    return edited_runs.run_in_subject(case, experiment, points, run)


@check("backward.in_place", needs=["hooks"], applies="pairwise")
def in_place(case: Case) -> Finding:
    """Gradients can be taken of a forward in which hooks wrote into the tensors that they were given.

    A failure means that autograd refuses what a hook did in place (`z[:, :, head] = 0; return z`), because what is
    handed to hooks is needed for the backward too.
    """
    points, subject = _points_to_judge(case), case.subject.wrapped()

    def write(value: Tensor) -> Tensor:
        return value.mul_(1)

    def run(chosen: Sequence[Point]) -> None:
        for names in activations.by_switch(case, [point.name for point in chosen]).values():
            _differentiate(case, subject, forward=dict.fromkeys(names, write))

    with _blaming(points, lambda point: run([point]), what="an edit in place"):
        run(points)
    return Finding()


@check("backward.checkpointing", needs=["modes", "hooks"], applies="pairwise")
def checkpointing(case: Case) -> list[Finding]:
    """Under gradient checkpointing in training mode the gradients at hook points and of weights are HF's.

    With readers at every point, and with edits. The reference never checkpoints. A failure means that what is
    recomputed is not what was computed, with hooks in it or because of them.
    """
    points = _points_to_judge(case)
    no_dropouts: dict[str, Any] = dict.fromkeys(case.family.dropouts(), 0.0)
    subject = case.subject.wrap(case.reference.build_for_adapter(**no_dropouts))
    require(subject.modes).train(True)
    require(subject.modes).checkpointing(True)
    ungated = [point for point in points if activations.hook_points(case)[point.name].switch is None]

    def run(chosen: Sequence[Point]) -> activations.Seen:
        names, along = [point.name for point in chosen], case.reference.cotangent()
        return activations.observe(case, subject, names, case.reference.inputs(), along=along)

    with _blaming(ungated, lambda point: run([point])):
        seen = run(ungated)
    made = [case.compare_logits("logits", seen.logits)]
    made += [from_condition(one.name, "no gradient") for one in reversed(ungated) if one.name not in seen.gradients]
    made += reversed(localization.compare_points(case, Scenario.PLAIN, seen.gradients, of="gradients", points=ungated))
    if subject.weights is not None:
        made += _judge_weight_gradients(case, subject)
    if _any_fails(made):
        return made
    _, others = _first_and_edited_points(case)
    behind = _judge_behind_edits(case, subject, others, "values")
    return [*made, *(replace(one, where=f"{one.where}, behind edits") for one in behind)]


def _judge_behind_edits(
    case: Case, subject: Subject, points: Sequence[Point], what: edited_runs.What, *, weights: bool = False
) -> Iterator[Finding]:
    """Judge the gradients at the model's first point, and of weights, behind edits of the others.

    Args:
        case: whose reference it is.
        subject: what is run; for weights one whose parameters have no gradients yet.
        points: those that are edited.
        what: their values, the gradients there, or both.
        weights: whether the weights' gradients are judged.
    """
    truth, edits = edited_runs.scale_gradients_in_reference(case, tuple(points), what), scaling_edits(points)
    seen: list[Tensor] = []
    name = truth.seen_at.name

    def read(gradient: Tensor) -> None:
        seen.append(gradient.detach().clone())

    forward = {} if what == "gradients" else edits
    backward = {**({} if what == "values" else edits), name: read}
    _differentiate(case, subject, forward=forward, backward=backward)
    if weights:
        given: Mapping[str, Tensor] = require(subject.weights).gradients()
        for weight, true in reversed(list(truth.weights.items())):
            if weight in given:  # else `backward.parameters` reports it
                yield float64_judge(truth.noise[weight]).compare(weight, given[weight], true)
    yield float64_judge(truth.noise[name]).compare(name, seen[0] if seen else None, truth.at)


def _any_fails(comparisons: Iterable[Finding]) -> bool:
    return any(one.verdict is Verdict.FAIL for one in comparisons)


@check("backward.edited", needs=["hooks"], applies="pairwise")
def edited(case: Case) -> list[Finding]:
    """Behind edits the gradients are those of HF's model with the same edits in it, of values and of gradients at once.

    Every point but the first is multiplied by a number of its own, and so is the gradient there; what comes of it is
    seen at the first point and in the weights. A failure means that attribution through a patched or steered forward
    is that of the model without the edit, or of another one.
    """
    first, points = _first_and_edited_points(case)

    def judged(what: edited_runs.What) -> list[Finding]:
        subject = case.subject.wrap(case.reference.build_for_adapter())
        return list(_judge_behind_edits(case, subject, points, what, weights=subject.weights is not None))

    def alone(point: Point, what: edited_runs.What = "values") -> list[Finding]:
        return list(_judge_behind_edits(case, case.subject.wrapped(), [point], what))

    what: edited_runs.What = "both"
    with _blaming(points, alone, what="an edit"):
        made = judged(what)
        if not _any_fails(made):
            return made
        values: list[Finding] = judged("values")
    if case.subject.wrapped().weights is not None and parameters.run(case).verdict is Verdict.FAIL:
        raise Blocked("backward.parameters")
    if _any_fails(values):
        made, what = values, "values"
    elif _any_fails(judged("gradients")):
        return values  # `backward.replace` reports that gradients cannot be edited
    for point in points:
        found = next((one for one in alone(point, what) if one.verdict is Verdict.FAIL), None)
        if found is not None:
            edits = "an edit" if what == "values" else "edits of its value and its gradient at once"
            return [replace(found, where=point.name, message=f"behind {edits}, at {first.name}: {found.message}")]
    return made


def _first_and_edited_points(case: Case) -> tuple[Point, list[Point]]:
    """The model's first point, whose gradient is HF's without an edit, and those at which edits have HF's effect.

    Raises:
        NotApplicable: the adapter does not show the first, or no other.
        Blocked: the first one's gradient is another one anyway.
    """
    points, first = edited_calls.acting_points(case), case.reference.points[0]
    others = [point for point in points if point != first]
    if first not in points or not others:
        raise NotApplicable(f"the adapter does not show HF's {first.name}, at which gradients behind edits are seen")
    seen = activations.subject_gradients(case).gradients
    if _any_fails(localization.compare_points(case, Scenario.PLAIN, seen, of="gradients", points=[first])):
        raise Blocked("backward.hooks")
    return first, others


@check("backward.gradcheck", needs=["hooks"], applies="sampled")
def gradcheck(case: Case) -> list[Finding]:
    """The subject's gradient at its first activation agrees with finite differences of its logits.

    With hooks on every point that hand on copies of values and gradients, by finite differences in a random direction
    (a gradcheck in its fast mode). A failure means that the graph that is differentiated is not the function
    that is computed.
    """
    points = _points_to_judge(case)
    first = points[0]
    subject, ids = case.subject.wrapped(), prompts(case, 2)
    others = [one.name for one in points[1:] if activations.hook_points(case)[one.name].switch is None]
    edits: dict[str, Edit] = {name: lambda value: value.clone() for name in others}

    def logits(start: Tensor) -> Tensor:
        with activations.hooked(case, subject, forward={**edits, first.name: lambda _: start}, backward=edits):
            return subject.forward(Inputs(input_ids=ids)).logits

    with torch.no_grad():
        seen = activations.observe(case, subject, [first.name], Inputs(input_ids=ids))
    with torch.enable_grad():
        return [compare_derivative(first.name, logits, seen.values[first.name], seed=case.spec.seed)]


def _weights_with_gradients(case: Case) -> frozenset[str]:
    """The weights that have a gradient after a backward in float64."""

    def make() -> frozenset[str]:
        subject = case.subject.wrap(case.reference.build_for_adapter())
        _leave_gradients(case, subject)
        return frozenset(require(subject.weights).gradients())

    return case.memo.memoize(_WITH_GRADIENTS, make)


def _judge_precision(case: Case, dtype: str) -> Iterator[Finding]:
    """Judge the gradients in a working dtype against those of the same weights in float64."""
    require_dtype(case, dtype)
    case.subject.agreeing_rows()
    theirs, subject = working_precision.measure_gradients(case, dtype), case.subject.wrapped(dtype)
    first = case.reference.points[0].name
    along, inputs = case.reference.cotangent(), case.reference.inputs(dtype=dtype)
    can_hook = subject.hooks is not None and first in activations.hook_points(case)
    given: Mapping[str, Tensor] = {}
    if can_hook and activations.hook_points(case)[first].switch is None:
        given = activations.observe(case, subject, [first], inputs, along=along).gradients
    else:
        logits = subject.forward(inputs).logits
        logits.backward(along.to(logits))
    given = {**given, **require(subject.weights).gradients()}
    double = _weights_with_gradients(case)  # `backward.parameters` reports a weight that has no gradient there
    for name, true in reversed(list(theirs.truth.items())):
        if name in given:
            again = partial(working_precision.resampled_gradient_noise, case, dtype, name)
            made = gradient_judge(theirs.noise[name], again).compare(name, given[name], true)
            yield replace(made, message=f"{dtype}: {made.message}" if made.message else None)
        elif name in double:
            yield from_condition(name, f"{dtype}: it has no gradient, as it has in {SEMANTIC_DTYPE}")


@check("backward.float32", needs=["weights"], applies="pairwise")
def float32(case: Case) -> Iterator[Finding]:
    """In float32 gradients are as near to those of the same weights in float64 as HF's own are.

    Of every weight, and at the model's first point. A failure means that the adapter's backward loses precision that
    HF's keeps.
    """
    return _judge_precision(case, "float32")


@check("backward.bfloat16", needs=["weights"], applies="pairwise")
def bfloat16(case: Case) -> Iterator[Finding]:
    """In bfloat16 gradients are as near to those of the same weights in float64 as HF's own are.

    Of every weight, and at the model's first point. A failure means that the adapter's backward loses precision that
    HF's keeps.
    """
    return _judge_precision(case, "bfloat16")


@check("backward.float16", needs=["weights"], applies="pairwise")
def float16(case: Case) -> Iterator[Finding]:
    """In float16 gradients are as near to those of the same weights in float64 as HF's own are.

    Of every weight, and at the model's first point. A failure means that the adapter's backward loses precision that
    HF's keeps.
    """
    return _judge_precision(case, "float16")
