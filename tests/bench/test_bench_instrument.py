"""What models do is counted exactly, whoever calls them; nothing is left behind, and no verdict is another one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import GenerationMixin

from verifier import family as families
from verifier.bench import children
from verifier.bench.clock import Kind
from verifier.bench.instrument import Instrument, instrument
from verifier.bench.orders import Order
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec


class Model(nn.Module):
    """Two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class ToyFamily:
    """What of a family the instrument counts."""

    name = "toy"

    def build(self, config: Mapping[str, Any]) -> Model:
        return Model()

    @contextlib.contextmanager
    def taps(self, model: nn.Module) -> Iterator[str]:
        yield "taps"


class Hooks:
    """Hook points, of which there are none."""

    def names(self) -> Mapping[str, Any]:
        return {}

    @contextlib.contextmanager
    def hooked(self, forward: Mapping[str, Any], backward: Mapping[str, Any]) -> Iterator[None]:
        yield


class Modes:
    """Only copies."""

    def __init__(self, subject: ToySubject) -> None:
        self._subject = subject

    def copy(self) -> ToySubject:
        return CopiedSubject(self._subject.model)


class ToySubject:
    """Runs its model; one of its capabilities is a property, one an attribute, one a method."""

    __slots__ = ("hooks", "model")
    capabilities = frozenset({"hooks", "modes", "restore"})
    changes: frozenset[str] = frozenset()

    def __init__(self, model: Model) -> None:
        self.model = model
        self.hooks = Hooks()

    @property
    def modes(self) -> Modes:
        return Modes(self)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(self.model(inputs))

    def restore(self, canonical: Mapping[str, Any]) -> Mapping[str, Any]:
        return canonical

    def close(self) -> None: ...


class CopiedSubject(ToySubject):
    """A copy is of another class, with a forward of its own."""

    __slots__ = ()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(inputs)


class ToyAdapter:
    name, version = "toy", "1"

    def wrap(self, model: Model) -> ToySubject:
        return ToySubject(model)


def counted(tool: Instrument) -> dict[Kind, tuple[int, int]]:
    return {kind: (one.calls, one.watched_calls) for kind, one in tool.clock.tallies.items() if one.calls}


X = torch.ones(2, 3)


def used(tool: Instrument) -> tuple[Any, Any]:
    family: Any = tool.family(ToyFamily())  # type: ignore[arg-type]
    adapter: Any = tool.adapter(ToyAdapter())  # type: ignore[arg-type]
    return family, adapter


def test_builds_forwards_and_parts_of_hfs_model() -> None:
    with instrument() as tool:
        family, _ = used(tool)
        models = [family.build({}) for _ in range(3)]
        models[0](X)
        with family.taps(models[1]) as taps:
            models[1](X)
        models[2].first(X)
        assert (family.name, taps) == ("toy", "taps")
        assert counted(tool) == {Kind.BUILD: (3, 0), Kind.FORWARD: (2, 1), Kind.PART: (1, 0)}


def test_wraps_and_forwards_of_subjects_and_of_their_copies() -> None:
    with instrument() as tool:
        family, adapter = used(tool)
        subject = adapter.wrap(family.build({}))
        assert (type(subject), adapter.name, adapter.version) == (ToySubject, "toy", "1")
        subject.forward(X)
        with subject.hooks.hooked({}, {}):
            subject.forward(X)
        copied = subject.modes.copy()
        copied.forward(X)
        subject.restore(subject.hooks.names())
        assert counted(tool) == {
            Kind.BUILD: (1, 0),
            Kind.WRAP: (2, 0),
            Kind.SUBJECT: (3, 1),
            Kind.OTHER: (2, 0),
        }


def test_backwards_by_whichever_door() -> None:
    with instrument() as tool:
        model = Model()
        model(X).sum().backward()
        torch.autograd.backward(model(X).sum())
        torch.autograd.grad(model(X).sum(), list(model.parameters()))
        assert counted(tool) == {Kind.PART: (3, 0), Kind.BACKWARD: (3, 0)}


def test_calls_under_a_mode_are_watched() -> None:
    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    with instrument() as tool:
        model = Model()
        with Mode():
            model(X)
        model(X)
        assert counted(tool) == {Kind.PART: (2, 1)}


def test_an_exception_comes_through_the_adapter() -> None:
    class Raises(ToyAdapter):
        def wrap(self, model: Model) -> ToySubject:
            raise ValueError("no")

    with instrument() as tool:
        adapter: Any = tool.adapter(Raises())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no") as caught:
            adapter.wrap(Model())
        selves = [entry.frame.f_locals.get("self") for entry in caught.traceback]
        assert any(one is adapter for one in selves)
        assert counted(tool) == {Kind.WRAP: (1, 0)}


def test_what_is_no_subject_is_left_alone() -> None:
    class Gives(ToyAdapter):
        def wrap(self, model: Any) -> Any:
            return model

    before = dict(vars(Model))
    with instrument() as tool:
        adapter: Any = tool.adapter(Gives())  # type: ignore[arg-type]
        model = Model()
        assert adapter.wrap(model) is model
        assert dict(vars(Model)) == before


def test_nothing_is_left_behind() -> None:
    watched = (nn.Module, GenerationMixin, ToySubject, CopiedSubject, Hooks, Modes, torch.autograd)
    before = [dict(vars(one)) for one in watched]
    with instrument() as tool:
        family, adapter = used(tool)
        subject = adapter.wrap(family.build({}))
        subject.modes.copy()
        changed = [one for one, then in zip(watched, before, strict=True) if dict(vars(one)) != then]
        assert changed == list(watched)
    assert [dict(vars(one)) for one in watched] == before


def test_nothing_is_left_behind_by_an_exception() -> None:
    before = dict(vars(nn.Module))
    with pytest.raises(KeyError), instrument():
        raise KeyError
    assert dict(vars(nn.Module)) == before


# --- on the checks themselves ----------------------------------------------------------------------------------------

WRONG = """
from verifier_bridge.verifier_adapter import BridgeAdapter

class Wrong(BridgeAdapter):
    name = "wrong"
    def wrap(self, model):
        if model.config.alibi:
            raise RuntimeError("not with ALiBi")
        model.get_output_embeddings().weight.data.mul_(2)
        type(model).patched = True
        return super().wrap(model)
"""


@pytest.mark.parametrize("adapter", ["bridge", "wrong_adapter:Wrong"])
def test_verdicts_are_those_without_it(adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong_adapter.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path)
    specs = matrix.cases(families.load("falcon"), "falcon")
    cases = [first(specs, valid=True, alibi=alibi) for alibi in (False, True)] + [first(specs, valid=False)]
    only = () if adapter == "bridge" else ("build", "hooks", "forward.logits", "backward.hooks", "state.changes")

    def runs(*, instrumented: bool) -> list[Any]:
        order = Order(family="falcon", adapter=adapter, only=only, cases=tuple(cases), instrumented=instrumented)
        return [(run.case, run.verdicts) for run in children.measure(order)]

    with_it = runs(instrumented=True)
    assert with_it == runs(instrumented=False)
    found = {verdict for _, verdicts in with_it for _, verdict, _ in verdicts}
    assert ("fail" in found) == (adapter != "bridge")
    assert [case for case, _ in with_it] == [spec.id for spec in cases]


def test_a_case_that_is_run_again_costs_what_it_cost() -> None:
    spec = first(matrix.cases(families.load("falcon"), "falcon"), valid=True)
    order = Order(family="falcon", adapter="bridge", only=("hooks.values",), cases=(spec,), repeats=3)
    tallies = [{kind: one.calls for kind, one in run.inside.items()} for run in children.measure(order)]
    assert len(tallies) == 3
    assert tallies == tallies[:1] * 3
    assert tallies[0][Kind.FORWARD] > 3


def first(specs: list[CaseSpec], *, valid: bool, **flags: object) -> CaseSpec:
    return next(spec for spec in specs if spec.valid == valid and flags.items() <= spec.config.items())
