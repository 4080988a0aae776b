"""Right adapters in other styles: no circumstance calls one wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from falcons import KINDS, spec
from hugging_face import FORWARD_ALONE, MODULE_HOOKS
from offering_less import COPIES_INSIDE, NO_CACHE, TWENTY_POINTS, WEIGHTS_ONLY
from other_arithmetic import EXPANDED_HEADS, FLOAT64_TABLES, FUSED_BIAS, OWN_EAGER
from torch import nn
from verifier_bridge import Bridge
from verifier_bridge.verifier_adapter import BridgeAdapter, BridgeSubject

from verifier.adapter import Adapter, Inputs, Output
from verifier.cases.circumstances import PLAIN, Circumstance, is_allowed, read_rows
from verifier.cases.dealing import can_be_called
from verifier.families.falcon import FalconFamily
from verifier.judging.outcome import Verdict
from verifier.observing.circumstances.row import Row, RowResult, not_resting_on_failures

ROPE, ALIBI, NEW = "one-norm-multi-query-rope", "sequential-own-keys-alibi", "two-norms-grouped-rope"
FAMILY = FalconFamily()
FAR = {"mask": "ones", "positions": "far"}

_NO_CACHE = {"past": {"none"}, "history": {"fresh", "masked", "longer", "edited", "raised", "backward"}}
_CALLED_ALONE = {
    "past": {"none"},
    "mode": {"eval"},
    "checkpointing": {"off"},
    "history": {"fresh", "masked", "longer", "backward", "interleaved"},
    "model": {"built", "saved"},
}
# By adapter the values of axes for which it offers what they need; all values of an axis that is not named.
OFFERS: Mapping[str, Mapping[str, set[str]]] = {
    "forward-alone": _CALLED_ALONE,
    "weights-only": _CALLED_ALONE,
    "module-hooks": {**_CALLED_ALONE, "history": {*_CALLED_ALONE["history"], "edited", "raised", "nested"}},
    "no-cache": _NO_CACHE,
}
ADAPTERS: Mapping[str, Any] = {
    one.name: one
    for one in (
        FORWARD_ALONE,
        MODULE_HOOKS,
        OWN_EAGER,
        EXPANDED_HEADS,
        FUSED_BIAS,
        FLOAT64_TABLES,
        WEIGHTS_ONLY,
        NO_CACHE,
        COPIES_INSIDE,
        TWENTY_POINTS,
    )
}


def look(adapter: Adapter, kind: str, values: Circumstance, *only: str) -> RowResult:
    """Look at an adapter in one circumstance of a kind of block, at some observables only or at all."""
    circumstance = {**PLAIN, **values}
    assert is_allowed(circumstance)
    return Row(spec(KINDS[kind]), FAMILY, circumstance).run(adapter, only)


def wrong_in(result: RowResult) -> list[str]:
    """List what is called wrong in a circumstance."""
    return [
        f"{observable} at {one.where}: {one.message}"
        for observable, findings in not_resting_on_failures(result).items()
        for one in findings
        if one.verdict is Verdict.FAIL
    ] + [f"{observable} raises {error!r}" for observable, error in result.errors.items()]


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("forward-alone", ALIBI, {"grad": "grad", "attention": "other"}),
        ("forward-alone", NEW, {"grad": "grad", "tokens": "embeddings"}),
        ("module-hooks", ALIBI, {"grad": "grad", "tokens": "embeddings", "history": "edited"}),
        ("module-hooks", ROPE, {"dtype": "bfloat16", "attention": "other"}),
        ("own-eager", NEW, {"dtype": "float16", "dims": "extreme"}),
        ("own-eager", ALIBI, {"dtype": "bfloat16", "mask": "left"}),
        ("expanded-heads", NEW, {"grad": "grad", "past": "chunk"}),
        ("expanded-heads", NEW, {"model": "copied", "mask": "gaps"}),
        ("fused-bias", ALIBI, {"dtype": "bfloat16"}),
        ("fused-bias", NEW, {"grad": "autocast", "dtype": "float32"}),
        ("float64-tables", ROPE, FAR | {"dtype": "bfloat16", "model": "cast", "dims": "wide"}),
        ("float64-tables", NEW, FAR | {"grad": "grad"}),
        ("weights-only", ROPE, {"grad": "grad", "history": "backward"}),
        ("weights-only", ALIBI, {"grad": "grad", "history": "longer"}),
        ("no-cache", NEW, {"history": "longer", "dtype": "float32"}),
        ("no-cache", ALIBI, {"mode": "train", "grad": "grad", "checkpointing": "on"}),
        ("copies-inside", ROPE, {"grad": "frozen", "model": "moved"}),
        ("copies-inside", ALIBI, {"model": "loaded"}),
        ("twenty-points", ALIBI, {"grad": "grad", "history": "nested"}),
        ("twenty-points", NEW, {"past": "generation"}),
    ],
)
def test_a_right_adapter_is_right_where_its_style_shows(name: str, kind: str, values: dict[str, str]) -> None:
    result = look(ADAPTERS[name], kind, values)
    assert (result.refused, result.not_offered) == (None, None)
    assert result.findings.keys() - {"state.settings"}
    assert wrong_in(result) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("forward-alone", {"past": "asked"}),
        ("forward-alone", {"mode": "train"}),
        ("forward-alone", {"history": "nested"}),
        ("forward-alone", {"model": "written"}),
        ("module-hooks", {"past": "token"}),
        ("weights-only", {"past": "generation"}),
        ("weights-only", {"model": "data"}),
        ("no-cache", {"past": "cropped"}),
        ("no-cache", {"history": "generated"}),
    ],
)
def test_what_an_adapter_does_not_offer_is_not_asked_of_it(name: str, values: dict[str, str]) -> None:
    result = look(ADAPTERS[name], ROPE, values)
    assert result.not_offered is not None
    assert wrong_in(result) == []


def is_offered(name: str, row: Circumstance) -> bool:
    return all(row[axis] in values for axis, values in OFFERS.get(name, {}).items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ROPE, ALIBI, NEW])
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_right_adapter_is_right_in_a_sample_of_all_circumstances(name: str, kind: str) -> None:
    case = spec(KINDS[kind])
    able = [row for row in read_rows() if is_offered(name, row) and can_be_called(FAMILY, case, row)]
    wrong = {}
    for row in random.Random(f"{name} {kind}").sample(able, 20):
        result = look(ADAPTERS[name], kind, row)
        assert result.not_offered is None
        found = wrong_in(result)
        if found:
            wrong[str({axis: value for axis, value in row.items() if value != PLAIN[axis]})] = found[:3]
    assert wrong == {}


# --- and a wrong one is wrong still ----------------------------------------------------------------------------------


@dataclass
class Changed(BridgeAdapter):
    """A bridge whose subjects are of another class."""

    kind: type[BridgeSubject]

    def wrap(self, model: nn.Module) -> BridgeSubject:
        return self.kind(Bridge(model))


class HalvesLogits(BridgeSubject):
    """Wrong in every call, alike on both sides of any choice between right models."""

    def forward(self, inputs: Inputs) -> Output:
        output = super().forward(inputs)
        return Output(logits=output.logits * 0.5, loss=output.loss, cache=output.cache)


@pytest.mark.parametrize(
    "values", [{"attention": "other"}, {"model": "cast", "dtype": "bfloat16"}, {"model": "moved", "dtype": "bfloat16"}]
)
def test_that_there_are_several_right_models_excuses_no_other(values: dict[str, str]) -> None:
    result = look(Changed(HalvesLogits), ALIBI, values, "forward.outputs")
    assert [one.split()[0] for one in wrong_in(result)][:1] == ["forward.outputs"]


class RaisesInSecondDerivative(BridgeSubject):
    """Its logits have a gradient that cannot be differentiated again."""

    def forward(self, inputs: Inputs) -> Output:
        output = super().forward(inputs)
        return Output(logits=_Once.apply(output.logits), loss=output.loss, cache=output.cache)  # type: ignore[no-untyped-call]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("this has no second derivative")
        return gradients[0]


def test_what_hugging_faces_kernels_do_not_raise_is_an_error_of_the_adapter() -> None:
    result = look(Changed(RaisesInSecondDerivative), ROPE, {"grad": "grad", "tokens": "embeddings"}, "backward.double")
    assert "this has no second derivative" in str(result.errors["backward.double"])


class DoublesGradients(BridgeSubject):
    """Shows weights, and no component by which the harness could clear gradients; each is twice what it is."""

    components = modes = None  # type: ignore[assignment]

    @property
    def weights(self) -> Any:
        right = BridgeSubject.weights.fget(self)  # type: ignore[attr-defined]
        return _Doubled(right)


class _Doubled:
    def __init__(self, right: Any) -> None:
        self.right = right

    def __getattr__(self, name: str) -> Any:
        return getattr(self.right, name)

    def gradients(self) -> Mapping[str, torch.Tensor]:
        return {name: 2 * one for name, one in self.right.gradients().items()}


def test_gradients_of_an_adapter_without_components_are_looked_at() -> None:
    result = look(Changed(DoublesGradients), ROPE, {"grad": "grad"}, "backward.weights")
    assert any(one.startswith("backward.weights") for one in wrong_in(result))
