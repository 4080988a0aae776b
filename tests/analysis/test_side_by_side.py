"""Several records side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_records import FLAGS, outcome, rows_fail, specs

from verifier.analysis.side_by_side import compare_views, name_views
from verifier.analysis.view import view_record
from verifier.judging.outcome import Verdict

Q, Z = "blocks.0.attn.hook_q", "blocks.0.attn.hook_z"


def _failing(*checks, where=Q, when=lambda config: config["bias"]):
    def fails(spec, check):
        return outcome(check, Verdict.FAIL, where=where) if check in checks and when(spec.config) else None

    return fails


def test_a_single_record_has_nothing_beside_it(make):
    assert compare_views([view_record(make(specs()))]) is None
    assert compare_views([]) is None


def test_each_area_has_the_worst_of_each_record(make):
    right, wrong = view_record(make(specs())), view_record(make(specs(), rows_fail))
    found = compare_views([right, wrong])
    assert list(found.areas) == ["reference", "build", "qkv", "forward"]
    assert [(one.verdict, one.numbers) for one in found.areas["qkv"]] == [
        (Verdict.PASS, ()),
        (Verdict.FAIL, ("1",)),
    ]
    assert {one.verdict for one in found.areas["forward"]} == {Verdict.PASS}


def test_an_area_that_one_record_lacks_is_empty_there(make):
    record = make(specs())
    fewer = replace(record, entries=tuple(one for one in record.entries if one.outcome.check != "qkv.rows"))
    assert [one.verdict for one in compare_views([view_record(fewer), view_record(record)]).areas["qkv"]] == [
        None,
        Verdict.PASS,
    ]


def test_failures_that_all_have_come_first_and_others_have_no_count(make):
    one = view_record(make(specs(), _failing("qkv.rows", "forward.logits")))
    other = view_record(make(specs(), _failing("forward.logits", "build.adapter", when=lambda config: config["alibi"])))
    third = view_record(make(specs(), _failing("forward.logits", "build.adapter", where=Z)))
    found = compare_views([one, other, third])
    assert [(shared.check, shared.place, shared.cases) for shared in found.shared] == [
        ("forward.logits", Q, (6, 6, None)),
        ("qkv.rows", Q, (6, None, None)),
        ("build.adapter", Q, (None, 6, None)),
        ("build.adapter", Z, (None, None, 6)),
        ("forward.logits", Z, (None, None, 6)),
    ]


def test_records_without_failures_share_none(make):
    found = compare_views([view_record(make(specs())), view_record(make(specs()))])
    assert found.shared == ()


def _rows(*views):
    return [
        (
            {name: values for name, values in row.flags.items() if values is not None},
            row.cases,
            tuple(cell and cell.verdict for cell in row.cells),
        )
        for row in compare_views(views).rows
    ]


def test_combinations_that_fared_alike_in_every_record_share_a_row(make):
    by_bias = view_record(make(specs(), rows_fail))
    by_alibi = view_record(make(specs(), _failing("qkv.rows", when=lambda config: config["alibi"])))
    good, bad = Verdict.PASS, Verdict.FAIL
    assert _rows(by_bias, by_alibi) == [
        ({"bias": (False,), "alibi": (False,)}, 3, (good, good)),
        ({"bias": (False,), "alibi": (True,)}, 3, (good, bad)),
        ({"bias": (True,), "alibi": (False,)}, 3, (bad, good)),
        ({"bias": (True,), "alibi": (True,)}, 3, (bad, bad)),
    ]
    assert _rows(by_bias, by_bias) == [({"bias": (False,)}, 6, (good, good)), ({"bias": (True,)}, 6, (bad, bad))]


def test_a_combination_that_one_record_lacks_is_empty_there(make):
    all_ = view_record(make(specs()))
    some = view_record(make([spec for spec in specs() if spec.config["bias"]]))
    assert _rows(all_, some) == [
        ({"bias": (False,)}, 6, (Verdict.PASS, None)),
        ({"bias": (True,)}, 6, (Verdict.PASS, Verdict.PASS)),
    ]


def test_a_refusal_that_is_as_it_should_be_is_told_from_one_that_is_not(make):
    cases = specs(lambda config: config["bias"])
    right, wrong = view_record(make(cases)), view_record(make(cases, _failing("build.refusal")))
    assert _rows(right, wrong) == [
        ({"bias": (False,)}, 6, (Verdict.PASS, Verdict.PASS)),
        ({"bias": (True,)}, 6, (None, Verdict.FAIL)),
    ]


@pytest.mark.parametrize(
    "run",
    [
        {"family": "other"},
        {"flags": {**FLAGS, "kv_heads": [None, 1, 4, 8]}},
        {"flags": {name: values for name, values in FLAGS.items() if name != "alibi"}},
    ],
)
def test_records_of_other_families_or_flags_have_no_combinations_in_common(make, run):
    one, other = view_record(make(specs(), rows_fail)), view_record(make(specs(), rows_fail, **run))
    for found in (compare_views([one, other]), compare_views([other, one])):
        assert found.rows == ()
        assert len(found.shared) == 1
        assert len(found.areas["qkv"]) == 2


def test_records_are_called_by_what_tells_them_apart(make):
    one = make(specs())
    newer = replace(one, run=replace(one.run, adapter_version="2"))
    assert name_views([view_record(one), view_record(newer)]) == ("toy × mine 1", "toy × mine 2")
    places = [replace(one, path=Path(folder) / "record.jsonl") for folder in ("monday", "tuesday")]
    assert name_views([view_record(place) for place in places]) == ("toy × mine 1 (monday)", "toy × mine 1 (tuesday)")
    same = [view_record(places[0]), view_record(places[0]), view_record(newer)]
    assert len(set(name_views(same))) == 3
