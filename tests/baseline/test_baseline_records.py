"""What a record keeps of its baseline: written and read back, refused where it is broken, and merged."""

from __future__ import annotations

import json
from datetime import date

import pytest
from known_toys import RUN, failure, held, settled, spec, specs

from verifier import record
from verifier.errors import UsageError
from verifier.record.excusing import checks_looking_at_less
from verifier.record.known_failure import EntryState, read_settled, settled_to_json


def test_a_settled_failure_crosses_json():
    for one in (
        settled(),
        settled(EntryState.CHANGED, "said"),
        settled(EntryState.EXPIRED, expires=date(2027, 1, 31)),
    ):
        assert read_settled(json.loads(json.dumps(settled_to_json(one)))) == one


def test_what_is_written_is_read(make):
    against = held(
        settled(),
        settled(EntryState.CHANGED, "said", fingerprint="second22", also=("a",), expires=date(2027, 1, 31)),
        asked={"only": ["qkv"]},
        ran={"qkv.rows": 12},
    )
    assert make(against=against).held == against


def test_a_record_without_a_baseline_has_none(make):
    assert make().held is None


def test_of_a_run_that_was_taken_up_again_the_later_replay_counts(tmp_path):
    with record.Writer(tmp_path) as writer:
        writer.run(RUN)
        writer.held(held(settled(EntryState.KNOWN), settled(fingerprint="second22")))
        writer.held(held(settled(EntryState.FIXED)))
    assert record.read(tmp_path).held == held(settled(EntryState.FIXED))


LINE = {"kind": "known", **settled_to_json(settled())}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            {"kind": "baseline", "path": "k", "asked": {}, "ran": {"a.b": "many"}},
            "`ran.*` must be a whole number",
        ),
        ({"kind": "baseline", "path": "k", "asked": {}}, "ran"),
        ({"kind": "baseline", "path": 3, "asked": {}, "ran": {}}, "path"),
        ({**LINE, "state": "forgiven"}, "a known failure's `state` cannot be 'forgiven'"),
        ({**LINE, "fingerprint": 7}, "`fingerprint` must be a text, not 7"),
        ({**LINE, "reason": None}, "`reason` must be a text, not None"),
        ({**LINE, "said": []}, "`said` must be a text or null, not []"),
        ({**LINE, "also": "x"}, "`also` must be a list, not 'x'"),
        ({**LINE, "excepted": [1]}, "`excepted[0]` must be a text, not 1"),
        ({**LINE, "expires": "soon"}, "a known failure's `expires` is no day"),
        ({**LINE, "expires": 20270131}, "a known failure's `expires` must be a day"),
        ({**LINE, "rule": "bias and"}, "'bias and' is no rule"),
        ({**LINE, "spec": []}, "`spec` must be an object, not []"),
        ({**LINE, "spec": {"family": "toy"}}, "a known failure, at `spec`, has no `config`"),
        ({**LINE, "spec": {**spec().to_json(), "dtypes": 5}}, "`spec.dtypes` must be a list, not 5"),
        (LINE, "stands there twice"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(make, line, said):
    path = make(against=held(settled())).path
    lines = path.read_text().splitlines()
    place = 3 if line["kind"] == "known" else 1
    path.write_text("\n".join([*lines[:place], json.dumps(line), *lines[place:]]) + "\n")
    with pytest.raises(UsageError) as caught:
        record.read(path)
    assert said in str(caught.value)
    assert f"line {place + 1}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_known_failure_without_a_baseline_is_refused(make):
    path = make().path
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, json.dumps(LINE), *rest]) + "\n")
    with pytest.raises(UsageError, match="a known failure, and no baseline before it"):
        record.read(path)


def test_no_record_says_of_an_outcome_that_it_is_known(make):
    path = make().path
    path.write_text(path.read_text().replace('"verdict":"fail"', '"verdict":"known"').replace('"fail"', '"known"'))
    with pytest.raises(UsageError, match="an outcome's `verdict` cannot be 'known'"):
        record.read(path)


# --- merging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("one", "two", "worst"),
    [
        (EntryState.KNOWN, EntryState.KNOWN, EntryState.KNOWN),
        (EntryState.KNOWN, EntryState.FIXED, EntryState.FIXED),
        (EntryState.KNOWN, EntryState.EXPIRED, EntryState.EXPIRED),
        (EntryState.KNOWN, EntryState.NOT_RUN, EntryState.KNOWN),
        (EntryState.FIXED, EntryState.CHANGED, EntryState.CHANGED),
    ],
)
def test_of_an_entry_that_fared_differently_the_worst_counts(make, turned, one, two, worst):
    records = [
        make(cases=specs()[number::2], against=held(settled(state)), name=str(number))
        for number, state in enumerate((one, two))
    ]
    found = record.merge_records(records[::-1] if turned else records)
    assert [one.state for one in found.held.settled] == [worst]


def test_entries_are_merged_in_the_order_of_the_file(make):
    records = [
        make(cases=specs()[number::2], against=held(settled(), settled(fingerprint="second22")), name=str(number))
        for number in range(2)
    ]
    assert [one.failure.fingerprint for one in record.merge_records(records).held.settled] == [
        failure().fingerprint,
        "second22",
    ]


@pytest.mark.parametrize("other", [None, held(settled(), path="another.toml"), held(settled(), ran={"qkv.rows": 1})])
def test_records_that_were_held_against_different_baselines_are_not_merged(make, other):
    one = make(cases=specs()[:6], against=held(settled()), name="1")
    two = make(cases=specs()[6:], against=other, name="2")
    with pytest.raises(UsageError, match="not all held against the same baseline"):
        record.merge_records([one, two])


def test_shards_that_were_held_against_a_baseline_are_held_against_it_together(make):
    against = held(settled(), ran={"qkv.rows": 13})
    records = [
        make(cases=specs()[number::2], against=against, name=str(number), asked={"shard": f"{number + 1}/2"})
        for number in range(2)
    ]
    [whole] = record.join_shards(records)
    assert whole.held == against
    assert checks_looking_at_less(records[0]) == {}
    assert checks_looking_at_less(whole) == {"qkv.rows": (13, 12)}
