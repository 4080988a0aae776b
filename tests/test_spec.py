"""A case is plain data, and its id says which case it is and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from verifier.errors import UsageError
from verifier.spec import CaseSpec

SPEC = CaseSpec(
    family="falcon",
    config={"hidden_size": 24, "alibi": True, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    label="a corner",
    seed=3,
    dtypes=("float32",),
)


def test_the_id_is_the_same_on_every_machine() -> None:
    assert SPEC.id == "eb6pdzvh"


@pytest.mark.parametrize(
    "change",
    [{"label": None}, {"label": "other"}, {"valid": False, "reason": "no"}, {"depth": "thorough"}],
    ids=["none", "label", "valid", "depth"],
)
def test_what_a_case_is_called_and_whether_it_is_valid_do_not_count(change: dict[str, Any]) -> None:
    assert dataclasses.replace(SPEC, **change).id == SPEC.id


@pytest.mark.parametrize(
    "change",
    [
        {"family": "other"},
        {"config": {**SPEC.config, "alibi": None}},
        {"seed": 4},
        {"batch": 6},
        {"length": 12},
        {"long": 132},
        {"dtypes": ("float32", "float16")},
        {"device": "cuda"},
        {"checkpoint": "a/folder"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_can_change_a_verdict_counts(change: dict[str, Any]) -> None:
    assert dataclasses.replace(SPEC, **change).id != SPEC.id


def test_a_depth_that_no_check_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="depth is one of valid, spread, thorough, not 'deep'"):
        dataclasses.replace(SPEC, depth="deep")


def test_every_field_is_written() -> None:
    assert SPEC.to_json().keys() == {field.name for field in dataclasses.fields(CaseSpec)}


def test_a_case_comes_back_from_a_file_as_it_went() -> None:
    back = CaseSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert back == SPEC
    assert back.id == SPEC.id


def test_what_a_file_says_beside_it_is_left_aside() -> None:
    assert CaseSpec.from_json({**SPEC.to_json(), "kind": "case", "case": "abcdefgh"}) == SPEC


def test_what_a_file_leaves_out_is_as_in_a_new_case() -> None:
    assert CaseSpec.from_json({"family": "falcon", "config": {}}) == CaseSpec(family="falcon", config={})


@pytest.mark.parametrize("data", [{}, {"family": "falcon"}, {"config": {}}, {"family": 3, "config": {}}])
def test_a_case_without_family_or_config_is_the_files_fault(data: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="a case needs a `family`"):
        CaseSpec.from_json(data)
