"""What the harness says of adapters that were written without a look at its checks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from falcons import KINDS, spec
from right_but_red_attention import Adapter
from transformers import FalconForCausalLM

from verifier import checks
from verifier.checks.runner import run_case
from verifier.families.falcon import FalconFamily
from verifier.judging.outcome import Verdict

CACHED_ANSWER = "_can_set_attn_implementation_cached_value"
"""Hugging Face's own note, on the class, whether its attention implementation can be switched."""


@pytest.fixture
def unasked() -> Iterator[None]:
    """Nobody in this process has switched a Falcon's attention implementation yet, nor seems to have afterwards."""
    before = vars(FalconForCausalLM).get(CACHED_ANSWER)
    if before is not None:
        delattr(FalconForCausalLM, CACHED_ANSWER)
    yield
    if CACHED_ANSWER in vars(FalconForCausalLM):
        delattr(FalconForCausalLM, CACHED_ANSWER)
    if before is not None:
        setattr(FalconForCausalLM, CACHED_ANSWER, before)


@pytest.mark.usefixtures("unasked")
def test_a_public_switch_of_attention_is_no_contamination(falcon: FalconFamily) -> None:
    """The adapter is right: what Hugging Face writes on its class, when it is asked, is Hugging Face's own answer."""
    chosen = checks.select(["build.surroundings", "forward.logits"])
    ran = run_case(spec(KINDS["one-norm-multi-query-rope"]), falcon, Adapter(), chosen)
    outcomes = {outcome.check: outcome for outcome in ran}
    assert hasattr(FalconForCausalLM, CACHED_ANSWER)
    assert {name: one.verdict for name, one in outcomes.items()} == {
        "build.surroundings": Verdict.PASS,
        "forward.logits": Verdict.PASS,
    }
