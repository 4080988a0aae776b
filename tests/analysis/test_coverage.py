"""What of the config space was exercised, and what never was."""

from __future__ import annotations

import itertools
from dataclasses import replace

from made_records import DIMS, FLAGS, specs

from verifier.analysis.coverage import DimCoverage, MissingPair, ValueCoverage, measure_coverage
from verifier.cases.spec import CaseSpec

PAIRS = sum(len(one) * len(other) for one, other in itertools.combinations(FLAGS.values(), 2))


def test_of_a_whole_matrix_every_value_and_every_pair_was_there(make):
    found = measure_coverage(make(specs()))
    assert (found.pairs, found.met, found.missing) == (PAIRS, PAIRS, ())
    assert [(one.flag, one.value) for one in found.values] == [
        (flag, value) for flag, values in FLAGS.items() for value in values
    ]
    assert {one.flag: one.valid for one in found.values} == {"bias": 6, "alibi": 6, "kv_heads": 4}
    assert found.strange == {}


def test_pairs_that_hf_refuses_are_named_with_how_often_it_did(make):
    found = measure_coverage(make(specs(lambda config: config["bias"] and config["alibi"])))
    assert found.missing == (MissingPair(values={"bias": True, "alibi": True}, refused=3),)
    assert found.met == PAIRS - 1
    assert found.values[1] == ValueCoverage(flag="bias", value=True, valid=3, refused=3)


def test_pairs_that_nobody_tried_are_told_from_refused_ones(make):
    found = measure_coverage(make([spec for spec in specs() if not (spec.config["bias"] and spec.config["alibi"])]))
    assert found.missing == (MissingPair(values={"bias": True, "alibi": True}, refused=0),)


def test_a_pair_that_some_valid_case_has_is_met_whatever_others_say(make):
    corner = replace(specs()[-1], label="corner", length=9, valid=False, reason="HF says no")
    assert measure_coverage(make([*specs(), corner])).missing == ()


def test_a_value_that_never_was_in_a_valid_case_misses_every_pair(make):
    found = measure_coverage(make([spec for spec in specs() if spec.config["kv_heads"] != 4]))
    assert [one for one in found.values if not one.valid] == [
        ValueCoverage(flag="kv_heads", value=4, valid=0, refused=0)
    ]
    assert len(found.missing) == 4
    assert all(pair.values["kv_heads"] == 4 for pair in found.missing)


def test_a_flag_that_is_left_out_has_its_plainest_value(make):
    found = measure_coverage(make([CaseSpec(family="toy", config={**DIMS, "alibi": True})]))
    assert [(one.flag, one.value) for one in found.values if one.valid] == [
        ("bias", False),
        ("alibi", True),
        ("kv_heads", None),
    ]


def test_values_that_the_family_does_not_list_stand_apart(make):
    def spec(**config):
        return CaseSpec(family="toy", config={**DIMS, **config})

    refused = replace(spec(kv_heads=99), valid=False, reason="HF says no")
    found = measure_coverage(make([spec(kv_heads=8), spec(kv_heads=2), spec(bias=1), refused]))
    assert found.strange == {"kv_heads": (2, 8), "bias": (1,)}  # 1 is not True
    assert sum(one.valid for one in found.values if one.flag == "kv_heads") == 1


def test_dims_and_inputs_say_which_values_they_had(make):
    cases = [
        CaseSpec(family="toy", config={**DIMS, "hidden_size": size}, length=length)
        for size, length in ((64, 11), (8, 11), (16, 30))
    ]
    refused = CaseSpec(family="toy", config={**DIMS, "hidden_size": 4}, valid=False, reason="HF says no")
    found = {one.name: one for one in measure_coverage(make([*cases, refused])).dims}
    assert found["hidden_size"] == DimCoverage(name="hidden_size", values=(8, 16, 64), cases=3)
    assert found["length"] == DimCoverage(name="length", values=(11, 30), cases=3)
    assert found["layers"].values == (2,)
    assert not set(found) & set(FLAGS)


def test_values_of_several_kinds_are_in_one_order(make):
    values = ["b", None, 3, True, 2.5, "a"]
    cases = [CaseSpec(family="toy", config={"x": value}) for value in values]
    (dim,) = [one for one in measure_coverage(make(cases)).dims if one.name == "x"]
    assert dim.values == (2.5, 3, "a", "b", None, True)
    assert measure_coverage(make(cases[::-1])) == measure_coverage(make(cases))


def test_a_record_without_cases_exercised_nothing(make):
    found = measure_coverage(make([]))
    assert (found.met, len(found.missing), found.dims) == (0, PAIRS, ())
