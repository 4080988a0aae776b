"""What a run shows: HF's activations and gradients, and what a subject's hooks saw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from falcons import DIMS, KINDS, spec
from torch import Tensor

from verifier.adapter import Adapter
from verifier.canonical import points, template_of
from verifier.cases.spec import Scenario
from verifier.families.falcon import FalconFamily
from verifier.faults.altered_hooks import altered, at, shown_as
from verifier.faults.mutants import Delegate, MutantAdapter
from verifier.judging.outcome import Blocked, NotApplicable
from verifier.observing import activations, dependencies, localization
from verifier.observing.case import Case
from verifier.reference import models

CONFIG = KINDS["two-norms-grouped-rope"]


@pytest.fixture(scope="module")
def case(falcon: FalconFamily, bridge: Adapter) -> Case:
    return Case(spec(CONFIG), falcon, bridge)


def test_values_are_hfs_and_the_logits_too(case: Case) -> None:
    found = activations.reference_trace(case)
    assert found.values.keys() == {*(point.name for point in case.reference.points), "logits"}
    with torch.no_grad():
        logits = models.forward(case.reference.model(), case.reference.inputs()).logits
    torch.testing.assert_close(found.values["logits"], logits, rtol=0, atol=1e-13)
    assert not any(value.requires_grad for value in found.values.values())


def test_a_gradient_is_that_of_the_weighted_logits(case: Case) -> None:
    found, along = activations.reference_trace(case), case.reference.cotangent()
    embed = case.reference.model().get_input_embeddings().weight
    loss = (models.forward(case.reference.model(), case.reference.inputs()).logits * along).sum()
    (whole,) = torch.autograd.grad(loss, embed)
    torch.testing.assert_close(found.weights["embed.W_E"], whole, rtol=0, atol=1e-11)
    rows = torch.zeros_like(whole)
    ids = case.reference.inputs().input_ids
    assert ids is not None
    (final,) = torch.autograd.grad(
        (models.forward(case.reference.model(), case.reference.inputs()).logits * along).sum(),
        case.reference.model().transformer.ln_f.bias,
    )
    rows.index_add_(0, ids.flatten(), found.gradients["hook_embed"].flatten(0, 1))
    # Tied: what comes through the embedding is the rest of what comes through the unembedding.
    head = torch.einsum("bpv,bpd->vd", along, _last_hidden(case))
    torch.testing.assert_close(rows + head, whole, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.weights["ln_final.b"], final, rtol=0, atol=1e-11)


def _last_hidden(case: Case) -> Tensor:
    with torch.no_grad():
        hidden: Tensor = case.reference.model().transformer(case.reference.inputs().input_ids).last_hidden_state
    return hidden


def test_no_loss_stands_on_padding(case: Case) -> None:
    along, real = case.reference.cotangent(Scenario.PADDED), case.reference.scenario(Scenario.PADDED).real
    assert bool((along[~real] == 0).all())
    assert bool((along[real] != 0).any(-1).all())


def test_what_weighs_the_logits_is_the_same_in_every_dtype(case: Case) -> None:
    exact = case.reference.cotangent()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(exact.to(dtype).double(), exact)


def test_noise_is_known_of_all_that_is_known(case: Case) -> None:
    found, noise = activations.reference_trace(case), activations.noise(case)
    assert noise.values.keys() | {"logits"} == found.values.keys()
    assert noise.gradients.keys() == found.gradients.keys()
    assert noise.weights.keys() == found.weights.keys()
    assert all(one > 0 for part in (noise.values, noise.gradients, noise.weights) for one in part.values())


def test_what_was_seen_is_in_the_order_of_the_forward_and_gradients_in_the_other(case: Case) -> None:
    names = ["hook_embed", "blocks.0.hook_resid_post", "ln_final.hook_normalized"]
    seen = activations.observe(
        case,
        case.subject.wrapped(),
        reversed(names),
        case.reference.inputs(),
        along=case.reference.cotangent(),
    )
    assert seen.fired == names
    assert seen.gradients_fired == names[::-1]
    assert seen.values["hook_embed"].data_ptr() != seen.kept["hook_embed"].data_ptr()


def test_points_are_asked_one_switch_at_a_time(case: Case) -> None:
    groups = activations.by_switch(case, ["blocks.1.attn.hook_result", "hook_embed", "blocks.0.attn.hook_result"])
    first, second = groups
    assert first is None
    assert groups[first] == ["hook_embed"]
    assert groups[second] == ["blocks.1.attn.hook_result", "blocks.0.attn.hook_result"]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        (None, None),
        (("batch", "pos", "head"), None),
        (("pos", "batch", "head"), (1, 0, 2)),
        (("head", "batch", "pos"), (1, 2, 0)),
        (("batch", "pos", "d_model"), None),
    ],
)
def test_axes_in_another_order_are_put_in_order(given: tuple[str, ...] | None, order: tuple[int, ...] | None) -> None:
    assert activations.order_of_axes(given, ("batch", "pos", "head")) == order


def test_places_are_named_once_for_all_layers() -> None:
    names = [f"blocks.{layer}.{end}" for end in ("a", "b", "c", "d", "e") for layer in range(3)]
    assert activations.by_template(names) == "blocks.{i}.a, blocks.{i}.b, blocks.{i}.c, blocks.{i}.d and 1 more"


def test_an_adapter_without_a_canonical_point_is_not_asked(falcon: FalconFamily, bridge: Adapter) -> None:
    nameless = MutantAdapter(bridge, lambda _model: altered(names=lambda names: {}))
    with pytest.raises(NotApplicable, match="none of the model's canonical hook points"):
        activations.shared_points(Case(spec(CONFIG), falcon, nameless))


# --- where a difference starts ---------------------------------------------------------------------------------------


def test_points_that_differ_are_not_among_those_that_agree(falcon: FalconFamily, bridge: Adapter) -> None:
    wrong = MutantAdapter(
        bridge, lambda _model: altered(forward=at("blocks.0.attn.hook_z", shown_as(lambda value: value * 2)))
    )
    case = Case(spec(CONFIG), falcon, wrong)
    points = {point.name for point in case.reference.points}
    assert points - {point.name for point in localization.agreeing_points(case)} == {"blocks.0.attn.hook_z"}


def test_where_nothing_agrees_what_needs_it_is_blocked(falcon: FalconFamily, bridge: Adapter) -> None:
    wrong = MutantAdapter(bridge, lambda _model: altered(forward=at("", shown_as(lambda value: value * 2))))
    with pytest.raises(Blocked, match=r"hooks\.values"):
        localization.agreeing_points(Case(spec({**DIMS, "num_hidden_layers": 0}), falcon, wrong))


def test_a_right_subject_has_no_start_of_a_difference(case: Case) -> None:
    assert localization.first_divergence(case) is None


CHOICES = "blocks.1.mlp.hook_expert_indices"


class Choosing(Delegate):
    """Falcon whose second MLP is said to choose experts: those that its largest hidden units name."""

    def points(self, config: Any) -> Any:
        kinds = {one.kind.template for one in self.original.points(config)}
        around = [kind for kind in kinds if "{i}" not in kind]
        inner = sorted(kinds - set(around))
        return points(around, by_layer=[inner, [*inner, template_of(CHOICES)]])

    @contextlib.contextmanager
    def taps(self, model: Any, *, names: Any = None, edits: Any = None) -> Iterator[Any]:
        others = {name: edit for name, edit in (edits or {}).items() if name != CHOICES}
        with self.original.taps(model, names=names, edits=others) as taps:
            yield _WithChoices(taps, (edits or {}).get(CHOICES))


class _WithChoices(Delegate):
    def __init__(self, original: Any, edit: Any) -> None:
        super().__init__(original)
        self.edit = edit

    @property
    def values(self) -> dict[str, Tensor]:
        values = dict(self.original.values)
        hidden = values.get("blocks.1.mlp.hook_pre")
        if hidden is None:
            return values
        chosen = hidden[..., :4].topk(2, dim=-1).indices
        return {**values, CHOICES: chosen if self.edit is None else self.edit(chosen)}


def test_whole_numbers_are_values_without_gradients(falcon: FalconFamily, bridge: Adapter) -> None:
    case = Case(spec(CONFIG), cast("Any", Choosing(falcon)), bridge)
    found, noise = activations.reference_trace(case), activations.noise(case)
    assert found.values[CHOICES].dtype == torch.int64
    assert CHOICES not in found.gradients
    assert found.gradients.keys() == noise.gradients.keys() == found.values.keys() - {CHOICES, "logits"}
    assert noise.values[CHOICES] < 1e-12
    before = dependencies.reference_dependencies(case)
    assert "blocks.0.hook_attn_out" in before[CHOICES]
    assert not any(CHOICES in inputs for inputs in before.values())
