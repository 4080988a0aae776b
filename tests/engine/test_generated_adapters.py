"""Two hundred hostile adapters, generated from the adapter protocol, each cost their case and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from generated_adapters import MEMBERS, Act, Generated, choose
from verifier_bridge.verifier_adapter import BridgeAdapter

from verifier import adapter, checks
from verifier.cases import matrix
from verifier.cases.circumstances import differences
from verifier.cases.dealing import WITH_GRADIENTS
from verifier.cases.spec import CaseSpec, Depth
from verifier.engine import events, inline, messages
from verifier.engine.plan import Plan
from verifier.errors import type_name
from verifier.judging.outcome import BLOCKED, Outcome, Verdict
from verifier.observing.circumstances.covering import told_as_met

CHOSEN = choose(6 * len(MEMBERS))
IN_DEFAULT_RUN, IN_SLOW_RUN = 40, 4  # every so many-th


def run_when(number: int) -> Any:
    """The mark of an adapter by its place: those of the default run, of the slow one, and of every night."""
    if number % IN_DEFAULT_RUN == 0:
        return ()
    return pytest.mark.slow if number % IN_SLOW_RUN == 0 else pytest.mark.nightly


# Each takes as long as a dozen others.
_LONG = ("state.memory", "weights.writing", "weights.processed_points", "backward.gradcheck", "component.dtypes")
OF_A_HOSTILE_CASE = tuple(
    check.id
    for check in checks.own_checks()
    if check.id not in _LONG and (check.area != "reference" or check.id == "reference.acceptance")
)
OF_AN_INNOCENT_CASE = ("reference.acceptance", "build.adapter", "forward.logits", "hooks.values", "weights.values")

# Only circumstances that these cases are not dealt use them.
_NOT_USED = ("cache.crop", "modes.to", "modes.checkpointing", "modes.load_state_dict")
# What nobody else asks: by the place of the member the areas that may fail.
_AREAS = {
    "adapter": {"build"},
    "restore": {"weights"},
    "facts": {"build"},
    "processings": {"weights"},
    "cache": {"cache", "state", "forward"},
    "modes": {"state", "component", "forward", "cache"},
}


@pytest.fixture(scope="module")
def cases(falcon) -> dict[bool, CaseSpec]:
    """A small case with ALiBi, in which the adapters are hostile, and one without."""
    made = [spec for spec in matrix.cases(falcon, "falcon") if spec.valid and spec.label is None]
    sizes = {"batch": 2, "length": 6, "long": 9, "dtypes": ("float32",)}
    return {
        hostile: replace(
            next(spec for spec in made if spec.config["alibi"] is hostile),
            depth=Depth.SAMPLED if hostile else Depth.ALL,
            circumstances=(differences(WITH_GRADIENTS),),
            **sizes,
        )
        for hostile in (True, False)
    }


def outcomes_of(one: object, *specs: tuple[CaseSpec, tuple[str, ...]]) -> list[dict[str, Outcome]]:
    """Run cases in this process, one after the other: of each the outcomes, which any pipe takes."""
    reference, found = adapter.register_instance(one), []
    for spec, only in specs:
        with told_as_met():  # the plainest circumstance of each failure is not what is looked at here
            seen = list(inline.run(Plan(family="falcon", adapter=reference, specs=(spec,), only=only)))
        assert seen[-1].stop is events.Stop.COMPLETE
        assert any(isinstance(event, events.CaseFinished) for event in seen)
        told = [event for event in seen if isinstance(event, events.OutcomeReady)]
        for event in told:
            assert messages.decode(messages.encode(event)) == event or event.outcome.measured != event.outcome.measured
        found.append({event.outcome.check: event.outcome for event in told})
    return found


def test_the_cases_are_ones_in_which_the_bridge_is_right(cases):
    for told in outcomes_of(BridgeAdapter(), (cases[True], OF_A_HOSTILE_CASE), (cases[False], OF_AN_INNOCENT_CASE)):
        assert {check for check, outcome in told.items() if outcome.verdict.is_finding} == set()
        assert "forward.logits" in told


def test_every_member_of_the_protocol_is_hostile_in_several_ways():
    for member in MEMBERS:
        acts = [act for chosen, act in CHOSEN if chosen == member]
        assert len(acts) >= 6
        assert any(act.raises for act in acts)
        assert any(act.returns for act in acts)


@pytest.mark.parametrize(
    ("member", "act"),
    [pytest.param(*one, id=f"{one[0]} {one[1].name}", marks=run_when(number)) for number, one in enumerate(CHOSEN)],
)
def test_a_hostile_adapter_costs_its_case(cases, member: str, act: Act):
    hostile, innocent = outcomes_of(
        Generated(member, act), (cases[True], OF_A_HOSTILE_CASE), (cases[False], OF_AN_INNOCENT_CASE)
    )
    assert {outcome.verdict for outcome in innocent.values()} == {Verdict.PASS}
    assert set(OF_AN_INNOCENT_CASE) <= innocent.keys()
    failing = {check: outcome for check, outcome in hostile.items() if outcome.verdict.is_finding}
    assert "reference.acceptance" not in failing
    place = member.partition(".")[0]
    assert {check.partition(".")[0] for check in failing} <= _AREAS.get(place, {check.area for check in ALL})
    for outcome in hostile.values():
        _, blocked, by = (outcome.message or "").partition(BLOCKED)
        if outcome.verdict is Verdict.SKIP and blocked:
            assert by in failing or by.startswith("build.parameters or"), f"{outcome.check} is blocked by {by}"
    if act.raises is not None:
        assert failing or member in _NOT_USED
        expected = type_name(act.raises())
        for outcome in failing.values():
            if outcome.verdict is Verdict.ERROR:
                assert outcome.exception == expected
                assert outcome.site.endswith("generated_adapters.py:__call__")


ALL = checks.own_checks()
