"""What a call must leave as it is, under adapters that do not."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy
import pytest
import torch
from falcons import KINDS, spec
from torch import Tensor, nn

from verifier.adapter import Adapter, Edit, Inputs, Output, Subject
from verifier.cases.circumstances import complete
from verifier.families.falcon import FalconFamily
from verifier.faults import circumstances as faults
from verifier.faults import hooks as hook_faults
from verifier.faults import state as state_faults
from verifier.faults.altered_hooks import altered
from verifier.faults.mutants import Fault, MutantAdapter, Mutation
from verifier.judging.outcome import Finding, Verdict
from verifier.observing.circumstances import untouched
from verifier.observing.circumstances.row import Row

pytestmark = pytest.mark.thinned(4)

CONFIG = KINDS["two-norms-grouped-rope"]
EVERYTHING = {"mask": "left", "positions": "given", "labels": "given"}

Failures = Callable[..., list[Finding]]


@pytest.fixture(autouse=True)
def settings_as_before() -> Iterator[None]:
    """Whatever a test's adapter sets, the next test finds as it was."""
    state = torch.get_rng_state(), random.getstate(), numpy.random.get_state()
    dtype, threads, precision = torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    benchmark = torch.backends.cudnn.benchmark
    with warnings.catch_warnings():
        yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    torch.backends.cudnn.benchmark = benchmark
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    numpy.random.set_state(state[2])


@pytest.fixture
def failures(falcon: FalconFamily, bridge: Adapter) -> Failures:
    """What fails of an observable in a circumstance under an adapter: the bridge if none is given."""

    def run(observable: str, adapter: Adapter | None = None, **values: str) -> list[Finding]:
        circumstance = complete(values, {})
        assert circumstance is not None
        result = Row(spec(CONFIG), falcon, circumstance).run(adapter or bridge, (observable, "forward.outputs"))
        assert result.errors == {}
        assert result.refused is None
        assert result.not_offered is None
        findings = result.findings[observable]
        assert findings
        return [finding for finding in findings if finding.verdict is Verdict.FAIL]

    return run


@pytest.fixture
def mutant(bridge: Adapter) -> Callable[..., Adapter]:
    """The bridge with a forward of its own, or with something done when it wraps."""

    def make(
        *,
        forward: Callable[[Subject, Inputs], Output] | None = None,
        at_wrap: Callable[[nn.Module], None] | None = None,
    ) -> Adapter:
        return MutantAdapter(bridge, lambda _model: Mutation(forward=forward, model=at_wrap))

    return make


@pytest.mark.parametrize("observable", sorted(untouched.OBSERVABLES))
@pytest.mark.parametrize("values", [{}, {"grad": "grad", **EVERYTHING}], ids=["plain", "everything"])
def test_the_bridge_leaves_everything_as_it_is(failures: Failures, observable: str, values: Mapping[str, str]) -> None:
    if observable == "state.misuse":
        values = {**values, "history": "raised"}
    assert failures(observable, **values) == []


# --- the caller's tensors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("input_ids", "ids"),
        ("attention_mask", "mask"),
        ("position_ids", "positions"),
        ("labels", "labels"),
    ],
)
def test_a_tensor_of_the_callers_that_is_written_into(
    failures: Failures, mutant: Callable[..., Adapter], field: str, place: str
) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        given: Tensor | None = getattr(inputs, field)
        if given is not None and inputs.labels is not None:
            given[0, -1] = 2
        return output

    (found,) = failures("state.caller", mutant(forward=forward), **EVERYTHING)
    assert found.where == place
    assert found.message == "it is written into"


def test_embeddings_that_are_written_into(failures: Failures, mutant: Callable[..., Adapter]) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        with torch.no_grad():
            if inputs.inputs_embeds is not None:
                inputs.inputs_embeds[0, 0] = 0
        return output

    (found,) = failures("state.caller", mutant(forward=forward), tokens="embeddings")
    assert (found.where, found.message) == ("inputs_embeds", "they are written into")


# --- random numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.rand(1), lambda: torch.manual_seed(0), random.random, lambda: numpy.random.rand(1)],
    ids=["torch", "a seed", "Python", "numpy"],
)
@pytest.mark.parametrize("where", ["wrapping", "random numbers drawn by a call"])
def test_a_random_number_that_is_drawn(
    failures: Failures, mutant: Callable[..., Adapter], draw: Callable[[], Any], where: str
) -> None:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        draw()
        return subject.forward(inputs)

    adapter = mutant(at_wrap=lambda _model: draw()) if where == "wrapping" else mutant(forward=forward)
    assert [finding.where for finding in failures("state.random", adapter)] == [where]


def test_a_dropout_draws_as_hugging_faces_does(failures: Failures) -> None:
    assert failures("state.random", mode="dropout") == []


# --- settings --------------------------------------------------------------------------------------------------------


def _add_a_filter() -> None:
    warnings.filterwarnings("ignore", message="of the adapter's")


SETTERS: Mapping[str, Callable[[], object]] = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "gradient mode": lambda: torch.set_grad_enabled(False),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "float32 matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "threads": lambda: torch.set_num_threads(3),
    "filters of warnings": _add_a_filter,
    "torch.backends.cudnn.benchmark": lambda: setattr(
        torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark
    ),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", SETTERS)
def test_a_setting_that_is_left_otherwise(failures: Failures, mutant: Callable[..., Adapter], name: str) -> None:
    (found,) = failures("state.settings", mutant(at_wrap=lambda _model: SETTERS[name]()))
    assert found.message == f"a subject's life changes {name}"


def test_settings_are_read_by_name_and_stay_as_they_are() -> None:
    before = untouched.settings()
    assert before == untouched.settings()
    assert set(SETTERS) <= before.keys()
    ((_, finding),) = untouched.changed_settings(before, "nothing")
    assert finding.verdict is Verdict.PASS


# --- modes -----------------------------------------------------------------------------------------------------------


def test_parameters_that_are_frozen_when_they_are_wrapped(failures: Failures, bridge: Adapter) -> None:
    adapter = planted(faults.wrapping_freezes, bridge)
    (found,) = failures("state.modes", adapter)
    assert found.message == "it is False, and the model's was True"


def test_parameters_that_are_thawed(failures: Failures, mutant: Callable[..., Adapter]) -> None:
    def thaw(model: nn.Module) -> None:
        model.requires_grad_(True)

    (found,) = failures("state.modes", mutant(at_wrap=thaw), grad="frozen")
    assert found.message == "it is True, and the model's was False"


def test_parameters_that_a_call_freezes(failures: Failures, bridge: Adapter) -> None:
    def mutate(model: nn.Module) -> Mutation:
        def forward(subject: Subject, inputs: Inputs) -> Output:
            output = subject.forward(inputs)
            model.requires_grad_(False)
            return output

        return Mutation(forward=forward)

    (found,) = failures("state.modes", MutantAdapter(bridge, mutate))
    assert found.message == "it is changed by a call"


# --- what is left of a call ------------------------------------------------------------------------------------------


def planted(fault: Fault, adapter: Adapter) -> Adapter:
    """The adapter with a fault, which is none of its family's."""
    found: Any = fault.plant(None, adapter)[1]  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        (faults.newest_output_kept, "the logits"),
        (state_faults.logits_kept, "the logits"),  # detached
        (hook_faults.hook_never_removed, "a hook"),
    ],
    ids=["output", "logits", "hook"],
)
def test_what_is_alive_after_a_call(failures: Failures, bridge: Adapter, fault: Fault, place: str) -> None:
    found = failures("state.released", planted(fault, bridge))
    assert place in [finding.where for finding in found]


@pytest.mark.parametrize(
    ("fault", "history"),
    [(hook_faults.switch_stays_on, "fresh"), (faults.switch_left_on_by_exception, "raised")],
    ids=["always", "exception"],
)
def test_a_switch_that_is_left_on(failures: Failures, bridge: Adapter, fault: Fault, history: str) -> None:
    found = failures("hooks.gone", planted(fault, bridge), history=history)
    assert [finding.where for finding in found] == ["a switch"]


def test_a_misspelt_point_that_is_taken(failures: Failures, bridge: Adapter) -> None:
    (found,) = failures("hooks.misspelt", planted(faults.misspelt_point_taken, bridge))
    assert found.where == "ln_final.hook_normalizedy"


# --- mistakes of the caller ------------------------------------------------------------------------------------------


def test_an_exception_in_a_hook_that_is_swallowed(failures: Failures, bridge: Adapter) -> None:
    (found,) = failures("state.misuse", planted(hook_faults.hook_swallows, bridge), history="raised")
    assert found.where == "an exception in a hook"


def test_an_exception_in_a_hook_of_gradients_that_is_swallowed(failures: Failures, bridge: Adapter) -> None:
    def swallowing(_name: str, edit: Edit) -> Edit:
        def act(gradient: Tensor) -> Tensor | None:
            try:
                return edit(gradient)
            except Exception:
                return None

        return act

    adapter = MutantAdapter(bridge, lambda _model: altered(backward=swallowing))
    (found,) = failures("state.misuse", adapter, history="raised", grad="grad")
    assert found.where == "an exception in a hook of gradients"


def test_a_misnamed_state_dict_that_is_loaded(failures: Failures, bridge: Adapter) -> None:
    (found,) = failures("state.misuse", planted(faults.misnamed_state_loaded, bridge), model="loaded")
    assert found.where == "a state dict with a misnamed entry"
