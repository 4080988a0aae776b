"""Interventions as rows of one batch: what each row is, and that it is what editing alone would be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from falcons import KINDS, spec
from torch import Tensor

from verifier.adapter import Adapter, Inputs
from verifier.canonical import SCALE
from verifier.families.falcon import FalconFamily
from verifier.observing import edited_runs
from verifier.observing.case import Case
from verifier.observing.edited_runs import Experiment
from verifier.observing.interventions import EXTENTS, UNEDITED, Intervention, region
from verifier.observing.interventions import KINDS as EDITS
from verifier.reference import models


@pytest.fixture(scope="module", params=["sequential-own-keys-alibi", "two-norms-grouped-rope"])
def case(request: pytest.FixtureRequest, falcon: FalconFamily, bridge: Adapter) -> Case:
    return Case(spec(KINDS[request.param]), falcon, bridge)


@pytest.fixture(scope="module")
def experiment(case: Case) -> Experiment:
    return edited_runs.run_interventions(case)


def of(experiment: Experiment, name: str) -> dict[tuple[str, str], Intervention]:
    return {(one.kind, one.extent): one for one in experiment.interventions if one.point.name == name}


def test_every_point_has_every_edit(case: Case, experiment: Experiment) -> None:
    everything = {(kind, extent) for kind in EDITS for extent in EXTENTS}
    for point in case.reference.points:
        wanted = {one for one in everything if one[0] != "zero"} if point.axes == SCALE else everything
        assert of(experiment, point.name).keys() == wanted


def test_every_row_is_one_edit_and_every_edit_acts(case: Case, experiment: Experiment) -> None:
    rows = [one.row for one in experiment.interventions]
    assert rows == list(range(UNEDITED, len(experiment.ids)))
    assert bool(experiment.acts[UNEDITED:].all())
    assert not bool(experiment.acts[0])


def test_rows_are_the_first_prompt_but_for_the_second_one(experiment: Experiment) -> None:
    first, second, *others = experiment.ids
    assert not torch.equal(first, second)
    assert all(torch.equal(one, first) for one in others)


def alone(case: Case, ids: Tensor, name: str, edit: Any) -> Tensor:
    """HF's logits of one row, with that edit and no other."""
    model = case.reference.model()
    with torch.no_grad(), case.family.taps(model, names=[], edits={name: edit}):
        return models.forward(model, Inputs(input_ids=ids)).logits


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("end", ["attn.hook_k", "hook_mlp_out", "attn.hook_pattern", "attn.hook_result"])
def test_a_row_is_what_its_edit_alone_gives(case: Case, experiment: Experiment, end: str, kind: str) -> None:
    name = f"blocks.1.{end}"
    one, change = of(experiment, name)[kind, EXTENTS[1]], experiment.changes[name]
    here = one.row - change.first
    model = case.reference.model()
    with torch.no_grad(), case.family.taps(model, names=[name]) as taps:
        models.forward(model, Inputs(input_ids=experiment.ids[:UNEDITED]))
    second = taps.values[name][1]

    def edit(value: Tensor) -> Tensor:
        changed = value.clone()
        where = region(one.point.axes, tuple(value.shape[1:]), one.extent, value.device)
        put = change.put[here].masked_fill(~where, 0.0)
        made = {"replace": put, "add": value[0] + put, "zero": torch.zeros_like(value[0]), "swap": second}[kind]
        changed[0] = torch.where(where, made, value[0])
        return changed

    torch.testing.assert_close(
        alone(case, experiment.ids[:1], name, edit)[0], experiment.results[one.row], rtol=0, atol=1e-13
    )


def test_one_head_at_one_position_is_that_and_no_more(case: Case) -> None:
    by_name = {point.name: point for point in case.reference.points}
    z, scores = by_name["blocks.0.attn.hook_z"], by_name["blocks.0.attn.hook_attn_scores"]
    where = region(z.axes, (5, 6, 4), EXTENTS[1], torch.device("cpu"))  # [pos, head, d_head]
    assert where.nonzero()[:, :2].unique(dim=0).tolist() == [[2, 5]]
    assert int(where.sum()) == 4
    where = region(scores.axes, (6, 5, 5), EXTENTS[1], torch.device("cpu"))  # [head, query, key]
    assert where.nonzero().tolist() == [[5, 2, key] for key in range(3)]


def test_of_attention_only_what_may_be_seen_is_edited(case: Case) -> None:
    point = next(point for point in case.reference.points if point.name.endswith("hook_pattern"))
    where = region(point.axes, (6, 5, 5), EXTENTS[0], torch.device("cpu"))
    assert torch.equal(where, torch.ones(6, 5, 5, dtype=torch.bool).tril())


def test_a_replaced_scale_is_none_to_divide_by_zero_with(experiment: Experiment) -> None:
    for one in experiment.interventions:
        if one.point.axes == SCALE and one.kind in ("replace", "add") and one.extent == EXTENTS[0]:
            change = experiment.changes[one.point.name]
            assert bool((change.put[one.row - change.first] > 0).all())


def test_noise_is_that_of_the_row(experiment: Experiment) -> None:
    scale = experiment.results.square().mean((1, 2)).sqrt() * torch.finfo(torch.float64).eps
    assert bool((experiment.noise >= scale).all())
    assert bool((experiment.noise < 1e6 * scale).all())


# --- gradients -------------------------------------------------------------------------------------------------------


def test_replaced_gradients_act_and_are_what_replacing_alone_gives(case: Case) -> None:
    experiment = edited_runs.run_gradient_interventions(case)
    assert bool(experiment.acts[UNEDITED:].all())
    model = case.reference.model()
    for one in experiment.interventions[:: len(experiment.interventions) // 7]:
        change = experiment.changes[one.point.name]
        here = one.row - change.first

        def replaced(gradient: Tensor, change: Any = change, here: int = here) -> Tensor:
            return gradient * change.keep[here] + change.put[here]

        def edit(value: Tensor, replaced: Any = replaced) -> Tensor:
            handed_on = value.clone()
            handed_on.register_hook(replaced)
            return handed_on

        first = case.reference.points[0].name
        with torch.enable_grad(), case.family.taps(model, names=[first], edits={one.point.name: edit}) as taps:
            logits = models.forward(model, Inputs(input_ids=experiment.ids[:1])).logits
        (found,) = models.differentiate(
            logits, edited_runs.draw_cotangent(case, experiment.ids[:1]), [taps.values[first]]
        )
        torch.testing.assert_close(found[0], experiment.results[one.row], rtol=0, atol=1e-11)


def test_gradients_are_seen_at_the_first_point_which_is_not_edited(case: Case) -> None:
    experiment = edited_runs.run_gradient_interventions(case)
    assert case.reference.points[0].name not in experiment.changes
