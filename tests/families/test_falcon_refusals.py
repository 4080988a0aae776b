"""Falcon's `refusal` is what Hugging Face does: on every flag combination, every corner, and at random."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from verifier.cases import matrix
from verifier.families.falcon import FalconFamily
from verifier.families.falcon_configs import CORNERS, DIMS, FLAGS, PRESETS
from verifier.families.falcon_refusals import refusal

Config = Mapping[str, Any]
FAMILY = FalconFamily()
IDS = torch.randint(0, 8, (2, 7), generator=torch.Generator().manual_seed(0))


def refused_by_hf(config: Config) -> str | None:
    """What HF says against the config, when it is built or in its first forward."""
    try:
        model = FAMILY.build(config, dtype=torch.float32, device="cpu", attention="sdpa", seed=0)
        with torch.no_grad():
            model(IDS, use_cache=False)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def check(config: Config) -> None:
    mine, theirs = refusal(config), refused_by_hf(copy.deepcopy(dict(config)))
    assert (mine is None) == (theirs is None), f"the family says {mine!r}, HF {theirs!r}"


@pytest.mark.slow
@pytest.mark.parametrize("new", FLAGS["new_decoder_architecture"])
@pytest.mark.parametrize("parallel", FLAGS["parallel_attn"])
@pytest.mark.parametrize("multi_query", FLAGS["multi_query"])
def test_it_is_what_hf_does_on_the_whole_product(new: bool, parallel: bool, multi_query: bool) -> None:
    fixed = {"new_decoder_architecture": new, "parallel_attn": parallel, "multi_query": multi_query}
    configs = [case.config for case in matrix.cases(FAMILY, "falcon") if case.label is None]
    here = [config for config in configs if all(config[name] == value for name, value in fixed.items())]
    assert len(here) == 48
    for config in here:
        check(config)


@pytest.mark.parametrize("corner", CORNERS)
def test_it_is_what_hf_does_on_each_corner(corner: str) -> None:
    check({**DIMS, **CORNERS[corner]})


@pytest.mark.parametrize("preset", PRESETS)
def test_it_accepts_each_preset(preset: str) -> None:
    assert refusal(PRESETS[preset]) is None


# One value for what a published config has, then what a hand-edited or a broken one may have.
BOOLEAN = (True, False, None, 1, "yes")
LIKELY: Mapping[str, tuple[Any, ...]] = {
    "new_decoder_architecture": (True, False, None),
    "multi_query": (True, False, None),
    "alibi": (True, False, None),
    "parallel_attn": (True, False, None),
    "num_ln_in_parallel_attn": (None, 1, 2, 0, 3, -1, True),
    "bias": BOOLEAN,
    "num_kv_heads": (None, 1, 2, 3, 4, 6, 12, 0, -1, -2, 5, 24, True, 4.0),
}
ODD: Mapping[str, tuple[Any, ...]] = {
    "new_decoder_architecture": BOOLEAN,
    "alibi": BOOLEAN,
    "hidden_size": (12, 24, 36, 60, 72, 73, 4, 0, -4, 72.0, None),
    "num_attention_heads": (1, 2, 3, 4, 6, 12, 0, -1, None),
    "num_hidden_layers": (0, 1, 2, -1, None),
    "ffn_hidden_size": (None, 10, 0, -1, 10.0),
    "vocab_size": (9, 8, 0, -1, None),
    "max_position_embeddings": (8, 4, 0, -1, None),
    "layer_norm_epsilon": (1e-5, 0.0, -1.0, "1e-5", None),
    "hidden_dropout": (0.0, 0, 1, 1.5, -0.1, None, True),
    "attention_dropout": (0.0, 0, 1, 1.5, -0.1, None, "0"),
    "activation": ("gelu", "relu", "xielu", "no such", None, 3),
    "tie_word_embeddings": (True, False, None),
    "rope_parameters": (
        None,
        {},
        {"rope_theta": 100.0},
        {"rope_type": "default"},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
        {"rope_type": "linear", "rope_theta": 1e4},
        {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        {"rope_type": "no such", "rope_theta": 1e4},
    ),
}
PLAIN: Config = {**DIMS, "vocab_size": 9, "num_hidden_layers": 1}


def some_of(space: Mapping[str, tuple[Any, ...]]) -> st.SearchStrategy[dict[str, Any]]:
    """A config that has some of these values, any of them or none."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in space.items()})


seldom = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@settings(seldom, max_examples=400)
@given(some_of(LIKELY), st.sampled_from([72, 36, 60, 24, 12]))
@example({"num_kv_heads": -1, "multi_query": False}, 72)
@example({"num_kv_heads": -1, "new_decoder_architecture": True}, 72)
@example({"num_kv_heads": 0, "new_decoder_architecture": True}, 72)
def test_it_is_what_hf_does_with_flags_and_heads(flags: Config, hidden_size: int) -> None:
    check({**PLAIN, **flags, "hidden_size": hidden_size})


@pytest.mark.slow
@settings(seldom, max_examples=400)
@given(some_of(LIKELY), some_of(ODD).map(lambda drawn: dict(list(drawn.items())[:3])))
def test_it_is_what_hf_does_with_what_is_odd(flags: Config, odd: Config) -> None:
    check({**PLAIN, **flags, **odd})


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ODD.items() for value in values], ids=str
)
def test_it_is_what_hf_does_with_one_odd_value(name: str, value: object) -> None:
    check({**PLAIN, name: value})


WHOLE_EPSILON = """
from transformers import FalconConfig
try:
    FalconConfig(layer_norm_epsilon=1)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
def test_a_whole_number_is_no_epsilon() -> None:
    """To HF as it comes: a library in this process may have taught HF's validation otherwise for every model."""
    assert refusal({**PLAIN, "layer_norm_epsilon": 1}) == "layer_norm_epsilon must be float or None, not 1"
    run = subprocess.run([sys.executable, "-c", WHOLE_EPSILON], capture_output=True, text=True, check=True)
    assert run.stdout == "StrictDataclassFieldValidationError\n"


@pytest.mark.parametrize("config", [{**DIMS, **CORNERS[corner]} for corner in CORNERS], ids=CORNERS)
def test_a_reason_is_a_line_for_people(config: Config) -> None:
    reason = refusal(config)
    assert reason is None or (len(reason) > 10 and "\n" not in reason)


@pytest.mark.parametrize(
    "kind",
    [
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0},
        {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0},
        {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 1},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 0.5},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": None},
        {"rope_type": "dynamic", "rope_theta": 1e4, "factor": "2"},
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": None, "rope_theta": 1e4},
        {"rope_theta": 1e4, "factor": 2.0},
    ],
    ids=str,
)
def test_it_is_what_hf_does_with_other_rotary_embeddings(kind: Config) -> None:
    check({**PLAIN, "rope_parameters": kind})


NEEDS_NO_TORCH = """
import sys
from verifier.families import falcon, falcon_configs
family = falcon.FalconFamily()
corners = [{**family.dims(), **corner} for corner in family.corners().values()]
configs = [family.dims(), *family.presets().values(), *corners]
for config in configs:
    if family.refusal(config) is None:
        assert family.points(config)
assert family.flags() and family.dropouts()
heavy = {"torch", "transformers", "hypothesis", "numpy"} & sys.modules.keys()
print("imported:", *sorted(heavy))
"""


def test_what_is_said_of_configs_needs_neither_torch_nor_transformers() -> None:
    run = subprocess.run([sys.executable, "-c", NEEDS_NO_TORCH], capture_output=True, text=True, check=True)
    assert run.stdout == "imported:\n"
