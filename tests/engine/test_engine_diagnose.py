"""Closer looks: told as evidence, in the plan's order of cases, and a death in one costs nothing that is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verifier.engine import events, inline
from verifier.engine.run import run
from verifier.judging.evidence import Evidence, Ladder


def _looking(plan, *checks):
    return replace(plan, wanted={spec.id: checks for spec in plan.specs}, diagnose=True)


@pytest.mark.parametrize("how", ["workers", "inline"])
def test_a_look_tells_evidence_and_no_outcome(plan, how):
    wanted = _looking(plan("Zeros", only=("build.adapter", "forward.logits"), count=2), "forward.logits")
    seen = list(run(wanted, workers=2) if how == "workers" else inline.run(wanted))
    assert not any(isinstance(event, events.OutcomeReady) for event in seen)
    found = [event.evidence for event in seen if isinstance(event, events.EvidenceReady | events.LadderReady)]
    evidence = [one for one in found if isinstance(one, Evidence)]
    assert {one.case for one in evidence} == {spec.id for spec in wanted.specs}
    assert all(one.check == "forward.logits" and one.fingerprint for one in evidence)
    assert {one.case for one in found if isinstance(one, Ladder)} == {spec.id for spec in wanted.specs}
    assert seen[-1].stop is events.Stop.COMPLETE


def test_a_death_in_a_look_is_believed_at_once_and_blames_nobody(plan):
    seen = list(run(_looking(plan("Quits", count=2), "build.adapter"), workers=1))
    assert not any(isinstance(event, events.OutcomeReady | events.WorkerLost) for event in seen)
    finished = [event.case for event in seen if isinstance(event, events.CaseFinished)]
    assert len(finished) == len(set(finished)) == 2
    assert seen[-1].stop is events.Stop.COMPLETE
