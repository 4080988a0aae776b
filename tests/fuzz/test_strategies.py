"""A family's config space as a strategy of Hypothesis."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

import verifier
from verifier import falcon_configs, family
from verifier.errors import UsageError
from verifier.fuzz.strategies import configs_of

FALCON = family.load("falcon")
QUICK = settings(
    max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@functools.cache
def plainest() -> dict[str, Any]:
    """The config that all others shrink to."""
    found: dict[str, Any] = find(falcon_configs(as_dict=True), lambda config: True, settings=QUICK)
    return found


@QUICK
@given(config=falcon_configs())
def test_hugging_face_accepts_and_runs_every_config(config: Any) -> None:
    assert type(config) is transformers.FalconConfig
    model = transformers.FalconForCausalLM(config).eval()
    tokens = torch.arange(4)[None] % config.vocab_size
    with torch.no_grad():
        assert model(tokens).logits.shape == (1, 4, config.vocab_size)


@QUICK
@given(config=falcon_configs(as_dict=True, alibi=True, num_kv_heads=None))
def test_what_is_fixed_has_one_value(config: dict[str, Any]) -> None:
    assert config["alibi"] is True
    assert config["num_kv_heads"] == plainest()["num_kv_heads"]
    assert FALCON.refusal(config) is None


def test_configs_shrink_to_the_plainest_one() -> None:
    from verifier.fuzz.fields import space

    everything = space(FALCON, "falcon")
    assert dict(everything.spec(everything.plainest).config) == plainest()


@pytest.mark.slow
def test_what_fails_shrinks_to_what_it_fails_for() -> None:
    found = find(falcon_configs(as_dict=True), lambda config: config["bias"] and config["alibi"], settings=QUICK)
    assert {name for name in found if found[name] != plainest()[name]} == {"bias", "alibi"}


@pytest.mark.slow
def test_without_valid_some_are_refused() -> None:
    refused = find(
        falcon_configs(valid=False, as_dict=True), lambda config: FALCON.refusal(config) is not None, settings=QUICK
    )
    assert FALCON.refusal(refused)
    config = find(falcon_configs(valid=False), lambda config: True, settings=QUICK)
    assert isinstance(config, transformers.FalconConfig)


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ({"alibbi": True}, "did you mean 'alibi'"),
        ({"alibi": "perhaps"}, "perhaps"),
        ({"batch": 2}, "'batch' is no field of a config"),
    ],
)
def test_what_cannot_be_fixed_is_told_at_once(fixed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        falcon_configs(**fixed)


def test_every_registered_family_has_one() -> None:
    for name in family.registered():
        strategy = getattr(verifier, f"{name}_configs")
        assert strategy.__name__ == f"{name}_configs"
        assert isinstance(strategy(), st.SearchStrategy)


def test_other_names_are_no_attributes() -> None:
    for name in ("phi_configs", "_configs", "falcon", "runs"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(verifier, name)
    with pytest.raises(UsageError, match="unknown family 'falcno'"):
        configs_of("falcno")
