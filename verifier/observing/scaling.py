"""Every activation multiplied by a number of its own, in Hugging Face's model and in the subject.

Such an edit is the same in each row and at each position, so it can be made in any way of calling a model: with
padding, piece by piece with a cache, with gradients. All points are edited in one forward, and as no two numbers are
the same, one edit that does not act, or acts elsewhere, shows in what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.canonical import Point
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, Scenario
from verifier.judging.numerics import Judge, float64_judge, moved_rows, noise_from_float32
from verifier.observing.case import Case
from verifier.reference import models

What = Literal["values", "gradients", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What came of it in Hugging Face's model.

    Attributes:
        edited: the points that were passed: embeddings that are given are no token's.
        logits: `[batch, pos, d_vocab]`.
        noise: of those.
        acts: whether they are others than without the edits.
    """

    edited: frozenset[str]
    logits: Tensor
    noise: float
    acts: bool

    @property
    def judge(self) -> Judge:
        """Judges what a subject gives under the same edits."""
        return float64_judge(self.noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledGradients:
    """The same of a backward, in which gradients may be multiplied too.

    Attributes:
        seen_at: the point at which nothing is edited, the model's first.
        at: HF's gradient there.
        weights: of HF's parameters, by canonical name.
        noise: of each of them by name, the point's among them.
    """

    seen_at: Point
    at: Tensor
    weights: Mapping[str, Tensor]
    noise: Mapping[str, float]


def factors(points: Sequence[Point]) -> dict[str, float]:
    """By point: numbers between four fifths and one. None is more, because a mask's lowest number would overflow."""
    return {point.name: 1 - (place + 1) / (5 * (len(points) + 1)) for place, point in enumerate(points)}


def edits(points: Sequence[Point]) -> dict[str, Edit]:
    """What multiplies each point's value, or the gradient there."""

    def by(factor: float) -> Edit:
        return lambda value: value * factor

    return {name: by(factor) for name, factor in factors(points).items()}


def scale_in_reference(case: Case, scenario: Scenario, points: Sequence[Point]) -> Scaled:
    """What HF's model gives with these points edited."""
    names = tuple(point.name for point in points)
    return case.shared_reference.memoize(
        ("scaled", case.shared_reference.run_key(scenario), names), lambda: _run(case, scenario, points)
    )


def _run(case: Case, scenario: Scenario, points: Sequence[Point]) -> Scaled:
    def run(dtype: str) -> tuple[Tensor, frozenset[str]]:
        model = case.reference.model(dtype)
        with torch.no_grad(), case.family.taps(model, names=[], edits=edits(points)) as taps:
            logits = models.forward(model, case.reference.inputs(scenario, dtype)).logits
        return logits, frozenset(taps.values)

    (true, edited), (rough, _) = run(SEMANTIC_DTYPE), run(SINGLE)
    real = case.reference.scenario(scenario).real[..., None]
    noise = noise_from_float32(true, rough, real)
    shown, unedited = (one.masked_fill(~real, 0.0) for one in (true, case.reference.output(scenario).logits))
    return Scaled(edited=edited, logits=true, noise=noise, acts=bool(moved_rows(shown, unedited, noise).any()))


def scale_gradients_in_reference(case: Case, points: Sequence[Point], what: What = "both") -> ScaledGradients:
    """HF's gradients on plain tokens with these points' values edited, or the gradients there."""
    names = tuple(point.name for point in points)
    return case.shared_reference.memoize(("scaled gradients", names, what), lambda: _backward(case, points, what))


def _backward(case: Case, points: Sequence[Point], what: What) -> ScaledGradients:
    seen_at = case.reference.points[0]

    def both(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor:
            edited = value.clone() if what == "gradients" else edit(value)
            assert edited is not None
            if what != "values":
                edited.register_hook(edit)
            return edited

        return act

    def run(dtype: str) -> dict[str, Tensor]:
        model = case.reference.model(dtype)
        there = {name: both(edit) for name, edit in edits(points).items()}
        with torch.enable_grad(), case.family.taps(model, names=[seen_at.name], edits=there) as taps:
            logits = models.forward(model, case.reference.inputs(dtype=dtype)).logits
        at, weights = case.reference.gradients(model, logits, {seen_at.name: taps.values[seen_at.name]})
        return {**weights, **at}

    true, rough = run(SEMANTIC_DTYPE), run(SINGLE)
    noise = {name: noise_from_float32(value, rough[name]) for name, value in true.items()}
    at = true.pop(seen_at.name)
    return ScaledGradients(seen_at=seen_at, at=at, weights=true, noise=noise)
