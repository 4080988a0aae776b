"""What is to be run."""

from __future__ import annotations

from dataclasses import replace

from verifier.cases.spec import CaseSpec, Depth
from verifier.engine.environment import usable_cores, versions
from verifier.engine.events import CheckInfo
from verifier.engine.plan import applicable, count_outcomes, drop_repeated

CHECKS = (
    CheckInfo(id="reference.acceptance", doc="", applies="always"),
    CheckInfo(id="build.adapter", doc="", applies="valid"),
    CheckInfo(id="build.refusal", doc="", applies="invalid"),
)
VALID = CaseSpec(family="toy", config={"a": 1})
REFUSED = CaseSpec(family="toy", config={"a": 2}, valid=False, reason="two is too much")


def test_checks_apply_to_what_they_are_for():
    assert applicable(VALID, CHECKS) == ("reference.acceptance", "build.adapter")
    assert applicable(REFUSED, CHECKS) == ("reference.acceptance", "build.refusal")


def test_a_deeper_case_is_looked_at_by_more_checks():
    deeper = [CheckInfo(id=applies, doc="", applies=applies) for applies in ("valid", "pairwise", "sampled")]
    looked_at = {str(depth): applicable(replace(VALID, depth=depth), deeper) for depth in Depth}
    assert looked_at == {
        "all": ("valid",),
        "pairwise": ("valid", "pairwise"),
        "sampled": ("valid", "pairwise", "sampled"),
    }
    assert applicable(replace(REFUSED, depth="sampled"), deeper) == ()


def test_every_outcome_is_expected():
    assert count_outcomes([VALID, REFUSED], CHECKS) == 4
    assert count_outcomes([VALID, REFUSED], CHECKS[2:]) == 1


def test_one_case_under_two_names_is_run_once_under_the_first():
    assert drop_repeated([VALID, replace(VALID, label="corner"), REFUSED]) == (VALID, REFUSED)


def test_versions_name_what_results_depend_on_and_whose_the_adapter_is():
    assert {"python", "torch", "transformers", "hypothesis", "adapter-verifier"} <= versions("bridge").keys()
    assert "verifier_bridge.verifier_adapter (sources)" in versions("bridge")
    assert "absent (sources)" not in versions("absent:Adapter")


def test_there_is_a_core_to_run_on():
    assert usable_cores() >= 1
