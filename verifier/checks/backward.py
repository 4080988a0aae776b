"""Check gradients: reading them changes nothing, they can be taken behind any hook, and are of what is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs
from verifier.canonical import Point
from verifier.checks import FailedAt, check
from verifier.errors import all_but_interrupts, one_line
from verifier.judging.numerics import (
    compare_bitwise,
    compare_derivative,
    float64_judge,
)
from verifier.judging.outcome import Blocked, Finding, NotApplicable
from verifier.observing import activations, localization
from verifier.observing.case import Case


def _points_to_judge(case: Case) -> list[Point]:
    """The points that are asked for gradients: those whose values are right, in a model whose logits are."""
    case.subject.agreeing_rows()
    return [point for point in localization.agreeing_points(case) if not point.kind.is_discrete]


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
    except all_but_interrupts() as error:
        for point in points:
            try:
                run(point)
            except all_but_interrupts() as raised:
                raise FailedAt(point.name, f"{what} there raises {one_line(raised)}") from raised
        message = f"{what} at every point raises {one_line(error)}, at none of them alone"
        raise FailedAt("all points together", message) from error


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
            with torch.enable_grad(), activations.hooked(case, subject, forward=dict.fromkeys(names, write)):
                logits = subject.forward(case.reference.inputs()).logits
                logits.backward(case.reference.cotangent().to(logits))

    with _blaming(points, lambda point: run([point]), what="an edit in place"):
        run(points)
    return Finding()


@check("backward.gradcheck", needs=["hooks"], applies="sampled")
def gradcheck(case: Case) -> list[Finding]:
    """The subject's gradient at its first activation agrees with finite differences of its logits.

    With hooks on every point that hand on copies of values and gradients, by finite differences in a random direction
    (a gradcheck in its fast mode). A failure means that the graph that is differentiated is not the function
    that is computed.
    """
    points = _points_to_judge(case)
    first = points[0]
    subject, ids = case.subject.wrapped(), case.reference.inputs().input_ids
    assert ids is not None
    ids = ids[:2, :4]  # finite differences are exact enough on a short text alone
    others = [one.name for one in points[1:] if activations.hook_points(case)[one.name].switch is None]
    edits: dict[str, Edit] = {name: lambda value: value.clone() for name in others}

    def logits(start: Tensor) -> Tensor:
        with activations.hooked(case, subject, forward={**edits, first.name: lambda _: start}, backward=edits):
            return subject.forward(Inputs(input_ids=ids)).logits

    with torch.no_grad():
        seen = activations.observe(case, subject, [first.name], Inputs(input_ids=ids))
    with torch.enable_grad():
        return [compare_derivative(first.name, logits, seen.values[first.name], seed=case.spec.seed)]
