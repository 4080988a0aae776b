"""A case is plain data, and its id says which case it is and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from verifier.cases.spec import CaseSpec, applies_to
from verifier.errors import UsageError

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
    [{"label": None}, {"label": "other"}, {"valid": False, "reason": "no"}, {"depth": "sampled"}],
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
    with pytest.raises(UsageError, match="`depth` must be one of all, pairwise, sampled, not 'deep'"):
        dataclasses.replace(SPEC, depth="deep")


@pytest.mark.parametrize(("former", "depth"), [("valid", "all"), ("spread", "pairwise"), ("thorough", "sampled")])
def test_a_depth_of_an_earlier_version_is_read_and_the_new_name_written(former: str, depth: str) -> None:
    spec = CaseSpec.from_json({**SPEC.to_json(), "depth": former})
    assert spec == dataclasses.replace(SPEC, depth=depth)
    assert (spec.id, spec.to_json()["depth"]) == (SPEC.id, depth)
    assert applies_to(former, dataclasses.replace(SPEC, depth="sampled"))
    assert [applies_to(one, spec) for one in ("valid", "spread", "thorough")] == [
        applies_to(one, spec) for one in ("valid", "pairwise", "sampled")
    ]


def test_every_field_is_written() -> None:
    every = {field.name for field in dataclasses.fields(CaseSpec) if field.init}
    looked_at = dataclasses.replace(SPEC, circumstances=({"dtype": "bfloat16"}, {}))
    assert looked_at.to_json().keys() == every
    assert CaseSpec.from_json(json.loads(json.dumps(looked_at.to_json()))) == looked_at
    # Without any it is written as it was before there were circumstances.
    assert SPEC.to_json().keys() == every - {"circumstances"}


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
    with pytest.raises(UsageError, match=r"a case(?: has no|'s) `(?:family|config)`"):
        CaseSpec.from_json(data)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("batch", "5", "a case's `batch` must be a whole number, not '5'"),
        ("length", 11.0, "a case's `length` must be a whole number, not 11.0"),
        ("long", True, "a case's `long` must be a whole number, not True"),
        ("padding", None, "a case's `padding` must be a whole number, not None"),
        ("seed", [0], "a case's `seed` must be a whole number, not [0]"),
        ("valid", 1, "a case's `valid` must be true or false, not 1"),
        ("label", 3, "a case's `label` must be a text or null, not 3"),
        ("device", None, "a case's `device` must be a text, not None"),
        ("scale", "2.0", "a case's `scale` must be a number, not '2.0'"),
        ("scale", 0.0, "a case's `scale` must be a number above 0, not 0.0"),
        ("scale", float("nan"), "a case's `scale` must be a number above 0, not nan"),
        ("scale", 10**400, "a case's `scale` is a number out of range"),
        ("depth", 2, "a case's `depth` must be a text, not 2"),
        ("depth", "deep", "a case's `depth` cannot be 'deep': it must be one of all, pairwise, sampled"),
        ("dtypes", "float32", "a case's `dtypes` must be a list, not 'float32'"),
        ("dtypes", [32], "a case's `dtypes[0]` must be a text, not 32"),
        (
            "dtypes",
            ["bfloat61"],
            "a case's `dtypes` must be of float32, bfloat16, float16, not 'bfloat61' (did you mean 'bfloat16'?)",
        ),
    ],
)
def test_a_field_that_holds_something_else_is_one_line(field: str, value: object, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        CaseSpec.from_json({**SPEC.to_json(), field: value})
    assert str(raised.value) == said


def test_what_is_said_of_a_field_is_short_and_harmless() -> None:
    with pytest.raises(UsageError) as raised:
        CaseSpec.from_json({**SPEC.to_json(), "batch": "\x1b[31m\n" + "5" * 10_000})
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 120


def test_a_whole_number_for_the_scale_is_that_number() -> None:
    assert CaseSpec.from_json({**SPEC.to_json(), "scale": 2}).id == dataclasses.replace(SPEC, scale=2.0).id
