"""What an adapter changes of its process while it is at a case is told of that case, and no other one meets it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hostile import last_outcomes

from verifier import family
from verifier.cases import matrix
from verifier.engine.run import run
from verifier.judging.outcome import Verdict

ONLY = ("reference.acceptance", "build.adapter", "build.forward", "build.surroundings")


@pytest.mark.parametrize(
    ("adapter", "check", "where"),
    [
        ("SetsDtype", "state.process", "default dtype"),
        ("PatchesJson", "state.process", "json.dumps"),
        ("PatchesHF", "build.surroundings", "class transformers.models.falcon.modeling_falcon.FalconMLP: forward"),
        ("ChangesAtTheEnd", "state.process", "gradient mode"),
        ("SeedsAtTheEnd", "state.process", "random numbers of Python"),
    ],
)
def test_what_a_case_leaves_behind_is_its_own(plan, adapter, check, where):
    wanted = plan(adapter, count=3, only=(*ONLY, check))
    outcomes = last_outcomes(run(wanted, workers=1))
    (guilty,) = (spec.id for spec in wanted.specs if spec.config["bias"])
    failing = {key: outcome for key, outcome in outcomes.items() if outcome.verdict.gates}
    assert list(failing) == [(guilty, check)]
    assert failing[guilty, check].where == where
    others = {outcome.verdict for (case, _), outcome in outcomes.items() if case != guilty}
    assert others == {Verdict.PASS}


def test_a_check_of_a_spoilt_process_is_blocked_by_the_one_that_says_what_was_changed(plan):
    specs = matrix.cases(family.load("falcon"), "falcon")
    guilty = next(spec for spec in specs if spec.valid and spec.config["bias"] and spec.is_pairwise)
    for only, teller in ((ONLY[:3], "state.process"), (ONLY, "build.surroundings")):
        wanted = replace(plan("SetsDtype", only=only), specs=(guilty,))
        outcomes = last_outcomes(run(wanted, workers=1))
        assert outcomes[guilty.id, "build.adapter"].verdict is Verdict.PASS
        assert outcomes[guilty.id, "build.forward"].message == f"blocked by {teller}"
        assert outcomes[guilty.id, teller].verdict is Verdict.FAIL
