"""A green run means something: every check has a planted fault, and sees it for what it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from falcons import DIMS, SPREAD, spec
from made_once import MadeOnce

from verifier import checks, family, faults
from verifier.adapter import Adapter, Subject
from verifier.cases import matrix
from verifier.cases.circumstances import PLAIN, is_allowed
from verifier.cases.spec import CaseSpec
from verifier.checks import runner
from verifier.commands import selftest as command
from verifier.errors import ExitStatus
from verifier.families.falcon import FalconFamily
from verifier.faults import selftest
from verifier.faults.mutants import Delegate, Fault, Mutation, Plant, in_adapter
from verifier.faults.selftest import MOST_REFUSED, MOST_VALID, MutantResult, choose_trials
from verifier.judging.outcome import NotApplicable, Outcome, Verdict
from verifier.requests.request import RunRequest

FALCON = family.load("falcon")
FAULTS = faults.list_faults(FALCON)
PAIRS = [(fault.name, identity) for fault in FAULTS for identity in fault.caught_by]
RAISING = {fault.name for fault in FAULTS if fault.raises}


Kills = Mapping[tuple[str, str], MutantResult]


@pytest.fixture(scope="module")
def kills(made_once: MadeOnce) -> Kills:
    """The whole self-test, run once for all processes."""

    def run() -> Kills:
        return {(kill.fault, kill.check): kill for kill in selftest.run("falcon", "bridge")}

    found: Kills = made_once.value("self-test", run)
    return found


@pytest.mark.slow
def test_every_planted_fault_is_caught_by_each_of_its_checks(kills: Kills) -> None:
    def uncaught(kill: MutantResult) -> str | None:
        if kill.unable is not None:
            return kill.unable
        if kill.outcome is None:
            return f"{kill.check} does not see it: {kill.what}; tried on {kill.tried} cases"
        return None if kill.outcome.check == kill.check else f"it is caught by {kill.outcome.check}"

    assert {pair: why for pair in PAIRS if (why := uncaught(kills[pair])) is not None} == {}


@pytest.mark.slow
def test_each_is_caught_as_a_difference_and_not_by_accident(kills: Kills) -> None:
    def otherwise(fault: str, outcome: Outcome | None) -> bool:
        wanted = {Verdict.ERROR} if fault in RAISING else {Verdict.FAIL, Verdict.UPSTREAM}
        return outcome is None or outcome.verdict not in wanted

    assert {pair: kill.outcome for pair, kill in kills.items() if otherwise(pair[0], kill.outcome)} == {}


@pytest.mark.slow
def test_every_pair_is_tried_and_no_other(kills: Kills) -> None:
    assert list(kills) == PAIRS


@pytest.mark.nightly  # four minutes
def test_a_quick_run_catches_every_planted_fault_whose_flags_meet_in_it() -> None:
    found = list(selftest.run("falcon", "bridge", quick=True))
    assert [(kill.fault, kill.check) for kill in found if kill.survived] == []
    # Four flags must have one value each, which do not meet in a covering of pairs.
    assert [kill.fault for kill in found if kill.unable is not None] == ["one-combination-wrong"]


def test_every_check_has_a_fault() -> None:
    covered = {identity for fault in FAULTS for identity in fault.caught_by}
    assert covered == {check.id for check in checks.registered()}


def test_faults_have_names_of_their_own_and_say_what_is_wrong() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(len(fault.what) > 10 for fault in FAULTS)


def test_each_is_planted_in_the_adapter_or_in_the_family(bridge: Adapter) -> None:
    for fault in FAULTS:
        broken_family, broken_adapter = fault.plant(FALCON, bridge)
        assert (broken_family is FALCON) != (broken_adapter is bridge), fault.name
        assert family.is_family(broken_family), fault.name


def test_each_shows_in_circumstances_that_there_are() -> None:
    for fault in FAULTS:
        assert fault.circumstances, fault.name
        assert all(is_allowed(PLAIN | dict(one)) for one in fault.circumstances), fault.name
        spec(DIMS, circumstances=tuple(fault.circumstances))  # refuses axes and values that there are not


# --- how it is run ---------------------------------------------------------------------------------------------------


def test_a_check_that_no_fault_is_for_is_a_survivor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "list_faults", lambda _family: ())
    found = list(selftest.run("falcon", "bridge"))
    assert [kill.check for kill in found] == [check.id for check in checks.registered()]
    assert all(kill.survived for kill in found)


def planted(monkeypatch: pytest.MonkeyPatch, adapter: str = "bridge", **of: Any) -> MutantResult:
    """What becomes of this fault alone under its one check."""
    fault = Fault(**{"name": "planted", "what": "something is wrong", "caught_by": ["qkv.heads"], **of})
    monkeypatch.setattr(faults, "list_faults", lambda _family: (fault,))
    return next(selftest.run("falcon", adapter))


def breaks(split: Callable[..., Any]) -> Plant:
    return in_adapter(Mutation(split=split))


def raises(*_: Any) -> Any:
    raise LookupError("the fault itself is broken")


@pytest.mark.slow
def test_an_exception_is_no_proof_of_a_catch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planted(monkeypatch, plant=breaks(raises)).survived
    assert not planted(monkeypatch, plant=breaks(raises), raises=True).survived


@pytest.mark.slow
def test_a_fault_that_nothing_here_can_have_cannot_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(*_: Any) -> Any:
        raise NotApplicable("no model is like this")

    kill = planted(monkeypatch, plant=breaks(impossible))
    assert (kill.survived, kill.tried, kill.unable) == (False, 0, "NotApplicable: no model is like this")


def test_a_fault_is_tried_until_it_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    expand = next(fault for fault in FAULTS if fault.name == "split-kv-expanded")
    kill = planted(monkeypatch, plant=expand.plant)
    assert kill.case is not None
    assert kill.outcome is not None
    tried = [one for one in choose_trials(matrix.cases(FALCON, "falcon")) if one.valid]
    assert tried.index(kill.case) + 1 == kill.tried


def test_a_fault_is_looked_at_in_its_own_circumstances_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: set[tuple[str, ...]] = set()

    def run_case(spec: CaseSpec, *_: Any) -> Iterator[Outcome]:
        looked_at.add(tuple(map(str, spec.circumstances)))
        return iter([Outcome(check="qkv.heads", verdict=Verdict.PASS)])

    monkeypatch.setattr(runner, "run_case", run_case)
    planted(monkeypatch, plant=breaks(raises), circumstances=[{"mask": "left"}, {}])
    assert looked_at == {("{'mask': 'left'}", "{}")}
    looked_at.clear()
    planted(monkeypatch, plant=breaks(raises))
    assert looked_at == {("{'grad': 'grad'}",)}


def test_a_fault_that_is_none_is_a_survivor(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = planted(monkeypatch, plant=lambda one, other: (one, other))
    assert (kill.survived, kill.outcome, kill.unable) == (True, None, None)
    assert kill.tried > MOST_VALID


@pytest.mark.slow
def test_what_an_adapter_does_not_offer_cannot_be_tried_and_does_not_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = planted(monkeypatch, f"{__name__}:Bare", plant=breaks(raises))
    assert (kill.survived, kill.outcome, kill.tried) == (False, None, 0)
    assert "the adapter offers no weights" in (kill.unable or "")


class Bare:
    """An adapter without capabilities."""

    name = "bare"
    version = "1"

    def wrap(self, model: Any) -> Any:
        return BareSubject(model)


class BareSubject(Subject):
    """HF's own model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, inputs: Any) -> Any:
        from verifier.reference import models

        return models.forward(self.model, inputs)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("kill", "status"),
    [
        ([], ExitStatus.INCONCLUSIVE),
        ([MutantResult(fault="a", what="…", check="qkv.rows", tried=3)], ExitStatus.INCONCLUSIVE),
        (
            [
                MutantResult(
                    fault="a", what="…", check="qkv.rows", outcome=Outcome(check="qkv.rows", verdict=Verdict.FAIL)
                )
            ],
            ExitStatus.CONFORMS,
        ),
        ([MutantResult(fault="a", what="…", check="qkv.rows", unable="no weights")], ExitStatus.CONFORMS),
    ],
    ids=["nothing", "survived", "caught", "unable"],
)
@pytest.mark.usefixtures("capsys")
def test_a_survivor_makes_it_inconclusive(
    monkeypatch: pytest.MonkeyPatch, kill: list[MutantResult], status: ExitStatus
) -> None:
    monkeypatch.setattr(selftest, "run", lambda *_, **__: iter(kill))
    asked = RunRequest(family="falcon", adapters=("bridge",))
    assert command.selftest(asked, as_markdown=False, json_file=None) is status


# --- on which cases --------------------------------------------------------------------------------------------------


def test_trials_are_few_valid_then_corners_then_refused(falcon: FalconFamily) -> None:
    specs = matrix.cases(falcon, "falcon")
    found = choose_trials(specs)
    valid = [one for one in found if one.valid]
    assert found == [*valid, *(one for one in found if not one.valid)]
    assert len(found) - len(valid) == MOST_REFUSED
    assert len({one.reason for one in found if not one.valid}) == MOST_REFUSED
    assert {one.label for one in valid} >= {one.label for one in specs if one.valid and one.label}
    assert len([one for one in valid if one.label is None]) <= MOST_VALID


def test_every_two_values_of_every_two_flags_meet_in_them(falcon: FalconFamily) -> None:
    specs = [one for one in matrix.cases(falcon, "falcon") if one.valid and one.label is None]

    def meetings(cases: list[Any]) -> set[tuple[object, ...]]:
        flags = falcon.flags()
        return {
            pair for case in cases for pair in itertools.combinations([(name, case.config[name]) for name in flags], 2)
        }

    possible = meetings(specs)
    missed = possible - meetings([one for one in choose_trials(specs) if one.valid])
    assert len(missed) <= len(possible) // 10


def test_trials_are_always_the_same(falcon: FalconFamily) -> None:
    specs = matrix.cases(falcon, "falcon")
    assert [one.id for one in choose_trials(specs)] == [one.id for one in choose_trials(specs)]


def test_no_case_is_tried_twice(falcon: FalconFamily) -> None:
    ids = [one.id for one in choose_trials(matrix.cases(falcon, "falcon"))]
    assert len(set(ids)) == len(ids)


def test_few_cases_are_all_tried() -> None:
    specs = [spec(config) for config in SPREAD.values()]
    assert {one.id for one in choose_trials(specs)} <= {one.id for one in specs}
    assert len(choose_trials(specs)) >= len(specs) - 2


def test_what_a_mutant_does_not_break_is_the_originals(bridge: Adapter) -> None:
    delegate = Delegate(bridge)
    assert (delegate.name, delegate.version) == (bridge.name, bridge.version)
