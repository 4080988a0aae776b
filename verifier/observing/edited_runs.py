"""Run Hugging Face's model and the subject with edited activations or gradients, and read the effect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs
from verifier.canonical import RESULT, Point
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, Scenario
from verifier.family import Family
from verifier.judging.numerics import Judge, float64_judge, moved_rows, noise_from_float32, row_noise
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.observing.dependencies import Dependencies, read_dependencies
from verifier.observing.interventions import (
    KINDS,
    UNEDITED,
    Change,
    Intervention,
    Kind,
    Plan,
    batch,
    plan_gradient_interventions,
    plan_interventions,
    prompts,
    scaling_edits,
)
from verifier.observing.reuse import memoized_for_equal_models
from verifier.reference import models
from verifier.reference.random_weights import generator

What = Literal["values", "gradients", "both"]
"""What an edit acts on: a point's value, the gradient that comes back to the point, or both."""


def _logits(case: Case, dtype: str, inputs: Inputs, edits: Mapping[str, Edit]) -> tuple[Tensor, frozenset[str]]:
    """Run HF's model with these edits: its logits, and the points that were edited."""
    model = case.reference.model(dtype)
    with torch.no_grad(), case.family.taps(model, names=[], edits=edits) as taps:
        logits = models.forward(model, inputs).logits
    return logits, frozenset(taps.values)


def _graph(
    case: Case, dtype: str, inputs: Inputs, edits: Mapping[str, Edit], what: What
) -> tuple[Any, Tensor, dict[str, Tensor]]:
    """Run HF's model with these edits: the model, its logits, and its first point's value by name, in one graph."""

    def on(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor:
            edited = value.clone() if what == "gradients" else edit(value)
            assert edited is not None
            if what != "values":
                edited.register_hook(edit)
            return edited

        return act

    model, first = case.reference.model(dtype), case.reference.points[0].name
    there = {name: on(edit) for name, edit in edits.items()}
    with torch.enable_grad(), case.family.taps(model, names=[first], edits=there) as taps:
        logits = models.forward(model, inputs).logits
    return model, logits, {first: taps.values[first]}


# --- interventions: a row each --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Every intervention of a case, and its effect in Hugging Face's model.

    Attributes:
        interventions: in the order of their rows.
        changes: by point.
        ids: `[row, pos]`.
        results: HF's logits `[row, pos, d_vocab]`, or its gradients `[row, pos, d_model]` at one point.
        noise: `[row]`, of the results.
        acts: `[row]`, whether the edit changes the results.
    """

    interventions: tuple[Intervention, ...]
    changes: Mapping[str, Change]
    ids: Tensor
    results: Tensor
    noise: Tensor
    acts: Tensor


def run_interventions(case: Case) -> Experiment:
    """Run every intervention on activations in HF's model, once; the results are logits."""

    def run(dtype: str, ids: Tensor, edits: Mapping[str, Edit]) -> Tensor:
        return _logits(case, dtype, Inputs(input_ids=ids), edits)[0]

    return case.shared_reference.memoize(
        ("experiment", case.spec.is_pairwise), lambda: _run_plan(case, plan_interventions(case), run)
    )


@memoized_for_equal_models
def run_gradient_interventions(case: Case) -> Experiment:
    """Replace every gradient of the case in HF's model, once; the results are the gradients at its first point.

    All gradients flow to the first point, so the effect of each replacement is seen there.
    """

    def run(dtype: str, ids: Tensor, edits: Mapping[str, Edit]) -> Tensor:
        _, logits, first = _graph(case, dtype, Inputs(input_ids=ids), edits, "gradients")
        (gradient,) = models.differentiate(logits, draw_cotangent(case, ids), list(first.values()))
        return gradient

    return _run_plan(case, plan_gradient_interventions(case), run)


def draw_cotangent(case: Case, ids: Tensor) -> Tensor:
    """Draw what logits are multiplied with to be differentiated: `[row, pos, d_vocab]`, alike in each row.

    Args:
        case: of the vocabulary and the seed.
        ids: `[row, pos]`, the tokens of the run.
    """
    vocab = case.reference.model().get_input_embeddings().weight.shape[0]
    source = generator("replaced gradients", case.spec.seed)
    draw = torch.randn(1, ids.shape[1], vocab, generator=source, dtype=torch.float64)
    return draw.to(ids.device).repeat(len(ids), 1, 1)


def _run_plan(case: Case, plan: Plan, run: Callable[[str, Tensor, Mapping[str, Edit]], Tensor]) -> Experiment:
    """Run every intervention in HF's model, in float64 and, to measure the noise, in float32.

    The points with the largest tensors have a small batch of their own.

    Args:
        case: the case whose model is run.
        plan: all interventions.
        run: gives the results `[row, …]` of a model in a dtype for ids `[row, pos]` under edits.
    """
    interventions, changes = plan
    count = UNEDITED + len(interventions)
    ids = prompts(case, count)
    results: Tensor | None = None
    noise = torch.zeros(count, dtype=torch.float64)
    wide = {one.point.name for one in interventions if one.point.axes == RESULT}
    for names in (changes.keys() - wide, wide):
        rows, edits = batch(changes, [name for name in changes if name in names])
        exact, single = (run(dtype, ids[rows], edits) for dtype in (SEMANTIC_DTYPE, SINGLE))
        if results is None:
            results = exact.new_zeros(count, *exact.shape[1:])
        results[rows] = exact
        noise[rows] = row_noise(exact, single)
    assert results is not None
    return Experiment(
        interventions=interventions,
        changes=changes,
        ids=ids,
        results=results,
        # An edit that makes the results exactly zero has no noise; a subject still rounds as without the edit.
        noise=noise.clamp(min=float(noise[0])),
        acts=moved_rows(results, results[:1], float(noise[0])),
    )


def run_in_subject(
    case: Case,
    experiment: Experiment,
    points: Iterable[Point],
    run: Callable[[Tensor, Mapping[str, Edit]], Tensor],
    *,
    kinds: Sequence[Kind] = KINDS,
    in_place: bool = False,
) -> dict[int, Tensor]:
    """Run the interventions at some points in the subject, one run for each hook switch.

    Args:
        case: the case whose subject is run.
        experiment: the interventions.
        points: where they are run; a point without interventions adds no row.
        run: gives the results `[row, …]` for ids `[row, pos]` and edits.
        kinds: which interventions are run.
        in_place: whether the edits write into the tensor they are given.

    Returns:
        By row its result `[…]`. Row 0, without an edit, comes from the first run.
    """
    found: dict[int, Tensor] = {}
    chosen = {one.row for one in experiment.interventions if one.kind in kinds}
    edited = [point.name for point in points if point.name in experiment.changes]
    for names in activations.by_switch(case, edited).values():
        rows, edits = batch(experiment.changes, names, wanted=chosen.__contains__, in_place=in_place)
        results = run(experiment.ids[rows], edits)
        for place, row in enumerate(rows):
            found.setdefault(row, results[place])
    return found


def reference_dependencies(case: Case) -> Dependencies:
    """Find which point of HF's model depends on which, once for each set of points: their blocks are wired alike."""
    key = (id(case.family), tuple(point.name for point in case.reference.points))
    if key not in _dependencies:
        _dependencies[key] = (case.family, _find_dependencies(case))
    return _dependencies[key][1]


# By the family's identity and its points. The family is kept alive, so that no other one gets its identity.
_dependencies: dict[tuple[int, tuple[str, ...]], tuple[Family, Dependencies]] = {}


def _find_dependencies(case: Case) -> Dependencies:
    interventions, changes = plan_interventions(case)
    replacements = [one for one in interventions if one.kind == "replace" and one.extent == "everywhere"]
    edits, rows = {}, {}
    for row, one in enumerate(replacements, start=UNEDITED):
        change, name = changes[one.point.name], one.point.name
        edits[name], rows[name] = change.select_rows([one.row], first=row).edit(), row
    model, ids = case.reference.model(), prompts(case, UNEDITED + len(replacements))
    with torch.no_grad(), case.family.taps(model, edits=edits) as taps:
        models.forward(model, Inputs(input_ids=ids))
    return read_dependencies(taps.values, activations.noise(case).values, rows)


# --- scaling: every point in one forward ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledRun:
    """The effect of `scaling_edits` in a forward of Hugging Face's model.

    Attributes:
        edited: the points that the forward passed; given embeddings pass none of the tokens'.
        logits: `[batch, pos, d_vocab]`.
        noise: of the logits.
        acts: whether the edits change the logits.
    """

    edited: frozenset[str]
    logits: Tensor
    noise: float
    acts: bool

    @property
    def judge(self) -> Judge:
        """Judges the logits of a subject under the same edits."""
        return float64_judge(self.noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledGradients:
    """The effect of `scaling_edits` on the gradients of Hugging Face's model.

    Attributes:
        seen_at: the model's first point, which is not edited.
        at: HF's gradient there.
        weights: the gradients of HF's parameters, by canonical name.
        noise: of each gradient: by canonical weight, and by the name of `seen_at`.
    """

    seen_at: Point
    at: Tensor
    weights: Mapping[str, Tensor]
    noise: Mapping[str, float]


@memoized_for_equal_models
def scale_in_reference(case: Case, scenario: Scenario, points: tuple[Point, ...]) -> ScaledRun:
    """Run HF's model on a scenario with these points scaled.

    Args:
        case: the case.
        scenario: of the run.
        points: whose values are scaled.

    Returns:
        HF's logits with the points scaled, their noise, and whether the scaling moves any logits.
    """
    (exact, edited), (single, _) = (
        _logits(case, dtype, case.reference.inputs(scenario, dtype), scaling_edits(points))
        for dtype in (SEMANTIC_DTYPE, SINGLE)
    )
    real = case.reference.scenario(scenario).real[..., None]
    noise = noise_from_float32(exact, single, real)
    scaled, unedited = (one.masked_fill(~real, 0.0) for one in (exact, case.reference.output(scenario).logits))
    return ScaledRun(edited=edited, logits=exact, noise=noise, acts=bool(moved_rows(scaled, unedited, noise).any()))


@memoized_for_equal_models
def scale_gradients_in_reference(case: Case, points: tuple[Point, ...], what: What = "both") -> ScaledGradients:
    """Differentiate HF's model on plain tokens with these points' values scaled, the gradients there, or both.

    Args:
        case: the case.
        points: that are scaled.
        what: whether their values, their gradients, or both are scaled.

    Returns:
        The gradients at the model's first point and of the weights, with their noise.
    """

    def gradients(dtype: str) -> dict[str, Tensor]:
        model, logits, first = _graph(case, dtype, case.reference.inputs(dtype=dtype), scaling_edits(points), what)
        at, weights = case.reference.gradients(model, logits, first)
        return {**weights, **at}

    seen_at = case.reference.points[0]
    exact, single = gradients(SEMANTIC_DTYPE), gradients(SINGLE)
    noise = {name: noise_from_float32(value, single[name]) for name, value in exact.items()}
    return ScaledGradients(seen_at=seen_at, at=exact.pop(seen_at.name), weights=exact, noise=noise)
