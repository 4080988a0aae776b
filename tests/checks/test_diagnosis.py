"""A closer look at a failing case: its ladder starts where the fault is, and the map shows which head is wrong."""

from __future__ import annotations

import pytest
from falcons import spec
from one_check import DEFAULT

from verifier import checks
from verifier.checks.diagnosis import MOST_PLACES, diagnose_case
from verifier.faults.altered_hooks import showing
from verifier.faults.mutants import Delegate, Mutation
from verifier.judging.evidence import Evidence, Ladder
from verifier.judging.outcome import Verdict


@pytest.fixture(scope="session")
def look(falcon, bridge):
    """Looks at a case of the family with these checks; gives what they compared, by check, and the ladder."""

    def run(*ids, adapter=None, config=DEFAULT, **more):
        chosen = [check for check in checks.registered() if check.id in ids]
        found = list(diagnose_case(spec(config, **more), falcon, adapter or bridge, chosen))
        ladders = [one for one in found if isinstance(one, Ladder)]
        return {one.check: one for one in found if isinstance(one, Evidence)}, ladders[0] if ladders else None

    return run


def _second_head(value):
    value = value.clone()
    value[:, :, 1] *= 1.5
    return value


def test_the_ladder_starts_where_the_fault_is(look, broken):
    evidence, ladder = look("forward.logits", adapter=broken(Mutation(edits={"1.attn.hook_z": _second_head})))
    assert ladder.starts.where == "blocks.1.attn.hook_z"
    before = [rung for rung in ladder.forward if rung.where.startswith("blocks.0.")]
    assert before
    assert all(rung.verdict is Verdict.PASS for rung in before)
    assert ladder.forward[-1].where == "logits"
    assert ladder.forward[-1].verdict is Verdict.FAIL
    assert evidence["forward.logits"].fingerprint
    assert not ladder.missing


def test_the_map_shows_the_wrong_head(look, broken):
    evidence, _ = look("hooks.values", adapter=broken(showing("0.attn.hook_z", _second_head)))
    difference = evidence["hooks.values"].difference
    assert difference.where == "blocks.0.attn.hook_z"
    assert difference.heat.axes == ("head", "pos")
    wrong = [any(value > difference.bound for value in row) for row in difference.heat.values]
    assert wrong == [False, True, False, False, False, False]
    assert {one.index[2] for one in difference.worst} == {1}


def test_gradients_differ_from_the_logits_back(look, broken):
    # What an edit adds has no gradient, so values are right before it and gradients behind it on the way back are not.
    scaled = broken(Mutation(edits={"1.hook_attn_out": lambda value: value * 2 - value.detach()}))
    _, ladder = look("backward.identity", adapter=scaled)
    assert ladder.starts is None
    assert ladder.starts_backward is not None
    assert ladder.starts_backward.where.startswith("blocks.1.")
    failing = {rung.where for rung in ladder.backward if rung.verdict is Verdict.FAIL}
    assert "ln_final.hook_normalized" not in failing
    assert "hook_embed" in failing


def test_every_place_that_a_check_compares_is_told_in_order(look, broken):
    evidence, _ = look("hooks.values", adapter=broken(showing("hook_embed", lambda value: value * 1.5)))
    places = evidence["hooks.values"].places
    assert places[0].where == "hook_embed"
    assert [one.verdict for one in places[:2]] == [Verdict.FAIL, Verdict.PASS]
    assert len(places) + evidence["hooks.values"].more > 30
    assert len(places) <= MOST_PLACES


class _NoHooks(Delegate):
    """The right adapter, whose subjects have no hooks."""

    def wrap(self, model):
        subject = Delegate(self.original.wrap(model))
        subject.hooks = None
        return subject


def test_without_hooks_the_ladder_is_the_logits_alone(look, bridge):
    _, ladder = look("forward.logits", adapter=_NoHooks(bridge))
    assert [rung.where for rung in ladder.forward] == ["logits"]
    assert ladder.backward == ()
    assert ladder.missing == {"backward": "the adapter offers no hooks"}


def test_what_does_not_run_has_an_empty_ladder_that_says_why(look, broken):
    def raises(_subject, _inputs):
        raise RuntimeError("no")

    evidence, ladder = look("build.forward", adapter=broken(Mutation(forward=raises)))
    assert evidence["build.forward"].fingerprint
    assert evidence["build.forward"].places == ()
    assert ladder.forward == ladder.backward == ()
    assert ladder.missing == dict.fromkeys(("forward", "backward"), "blocked by build.forward")


def test_a_check_of_hugging_face_alone_gets_no_ladder(look):
    evidence, ladder = look("reference.attention")
    assert set(evidence) == {"reference.attention"}
    assert ladder is None


def test_a_failure_that_does_not_come_again_has_no_fingerprint(look):
    evidence, _ = look("forward.logits")
    assert evidence["forward.logits"].fingerprint is None
    assert evidence["forward.logits"].difference is None
