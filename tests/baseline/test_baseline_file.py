"""A baseline's file: what it means, and the one line that is said of each way in which it can be wrong."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from known_toys import ENTRY, ID, file

from verifier.baseline.file import read
from verifier.errors import UsageError
from verifier.judging.outcome import short_id


def _said(path: Path, **how: Any) -> str:
    with pytest.raises(UsageError) as caught:
        read(path, **how)
    said = str(caught.value)
    assert repr(str(path)) in said
    assert "\n" not in said
    return said


def test_what_a_finished_file_says_is_read(tmp_path):
    path = file(
        tmp_path / "k.toml",
        {"also": '["alibi=true"]', "excepted": '["heads=4"]', "expires": "2027-01-31"},
        head='[asked]\nonly = ["qkv"]\neverywhere = true\n[ran]\n"qkv.rows" = 12\n',
    )
    found = read(path)
    assert (found.family, found.adapter, found.path) == ("toy", "mine:Adapter", str(path))
    assert found.asked == {"only": ["qkv"], "everywhere": True}
    assert found.ran == {"qkv.rows": 12}
    [one] = found.failures
    assert (one.fingerprint, one.check, one.rule) == (ID, "qkv.rows", "bias")
    assert (one.also, one.excepted) == (("alibi=true",), ("heads=4",))
    assert (one.reason, one.issue, one.expires) == ("the rows are in another order", "#7", date(2027, 1, 31))
    assert (one.spec.family, one.spec.config) == ("toy", {"bias": True})


def test_another_content_has_another_digest(tmp_path):
    one, two = file(tmp_path / "1.toml", {}), file(tmp_path / "2.toml", {"reason": '"another"'})
    assert read(one).digest == short_id(one.read_text())
    assert read(one).digest != read(two).digest


@pytest.mark.parametrize("kept", ["issue", "expires"])
def test_one_of_issue_and_day_is_enough(tmp_path, kept):
    entry = {"issue": None, "expires": None, kept: {"issue": '"#7"', "expires": "2027-01-31"}[kept]}
    assert len(read(file(tmp_path / "k.toml", entry)).failures) == 1


@pytest.mark.parametrize("rule", ['""', None, '"every case"', "\"kind == 'b' and (not bias or 1 < heads < 6)\""])
def test_what_may_be_a_rule_is_one(tmp_path, rule):
    assert len(read(file(tmp_path / "k.toml", {"rule": rule})).failures) == 1


def test_a_file_without_entries_accepts_nothing(tmp_path):
    assert read(file(tmp_path / "k.toml")).failures == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"schema = ", "is not TOML: "),
        (b"\xff\xfe", "is not UTF-8 at byte 0"),
        (b"a = " + b"[" * 20_000, "is nested too deep"),
        (b"", "schema None; this version of verifier reads schema 1"),
    ],
)
def test_what_is_no_baseline_at_all_is_refused(tmp_path, content, said):
    path = tmp_path / "k.toml"
    path.write_bytes(content)
    assert said in _said(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    assert "cannot read the baseline" in _said(tmp_path / "k.toml")
    assert "cannot read the baseline" in _said(tmp_path)


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ({"schema": "2"}, "schema 2; this version of verifier reads schema 1"),
        ({"schema": '"1"'}, "schema '1'; this version"),
        ({"famly": '"toy"'}, "the baseline has an unknown key 'famly' (did you mean 'family'?)"),
        ({"failures": "[]"}, "the baseline has an unknown key 'failures' (did you mean 'failure'?)"),
        ({"family": None}, "the baseline has no `family`"),
        ({"adapter": "3"}, "the baseline's `adapter` must be a text, not 3"),
        ({"asked": "3"}, "`asked` must be a table, not 3"),
        ({"asked": "{olny = ['qkv']}"}, "[asked] has an unknown key 'olny' (did you mean 'only'?)"),
        ({"asked": "{only = 2027-01-31}"}, "[asked] only must be true or false or a text or a list"),
        ({"asked": "{only = [[1]]}"}, "[asked] only's `[0]` must be true or false or a text, not [1]"),
        ({"ran": "[]"}, "`ran` must be a table, not []"),
        ({"ran": "{'qkv.rows' = 1.5}"}, "[ran] qkv.rows must be a whole number"),
        ({"ran": "{'qkv.rows' = true}"}, "[ran] qkv.rows must be a whole number"),
        ({"ran": "{'qkv.rows' = -1}"}, "[ran] qkv.rows must be a whole number"),
        ({"failure": "{id = 'a'}"}, "each entry begins with [[failure]]"),
        ({"failure": "[1]"}, "each entry begins with [[failure]]"),
    ],
)
def test_what_is_wrong_with_the_whole_is_said(tmp_path, top, said):
    assert said in _said(file(tmp_path / "k.toml", **top))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"resaon": '"x"'}, f"failure {ID} has an unknown key 'resaon' (did you mean 'reason'?)"),
        ({"id": None}, "failure number 1 has no `id`"),
        ({"id": "7"}, "failure number 1's `id` must be a text, not 7"),
        ({"check": None}, f"failure {ID} has no `check`"),
        ({"case": None}, f"failure {ID} has no `case`"),
        ({"reason": '""'}, f"failure {ID} has no reason: write why it is accepted into `reason`"),
        ({"reason": '"  "'}, f"failure {ID} has no reason"),
        ({"reason": None}, f"failure {ID} has no reason"),
        ({"reason": "7"}, f"failure {ID}'s `reason` must be a text, not 7"),
        ({"issue": '" "'}, f"failure {ID} has neither an issue nor a day on which it expires"),
        ({"issue": None}, f"failure {ID} has neither an issue nor a day on which it expires"),
        ({"expires": '"2027-01-31"'}, "`expires` must be a day (2027-01-31, without quotes), not '2027-01-31'"),
        ({"expires": "2027-01-31T10:00:00"}, "`expires` must be a day (2027-01-31, without quotes), not "),
        ({"expires": "2027"}, "`expires` must be a day (2027-01-31, without quotes), not "),
        ({"rule": '"bias and"'}, f"failure {ID}: 'bias and' is no rule: write names, values"),
        ({"rule": '"len(bias)"'}, f"failure {ID}: 'len(bias)' is no rule: write names, values"),
        ({"rule": '"-bias == 1"'}, f"failure {ID}: '-bias == 1' is no rule: write names"),
        ({"rule": '"{[1]: 2} == bias"'}, f"failure {ID}: '{{[1]: 2}} == bias' is no rule: write names"),
        ({"rule": "true"}, f"failure {ID}'s `rule` must be a text, not True"),
        ({"also": '"bias=true"'}, f"failure {ID}'s `also` must be a list, not 'bias=true'"),
        ({"excepted": "[1]"}, f"failure {ID}'s `excepted[0]` must be a text, not 1"),
        ({"case": "'{'"}, f"failure {ID}: its `case` is none: "),
        ({"case": "'[]'"}, f"failure {ID}: its `case` is none: a case must be an object, not []"),
        ({"case": "'{\"family\": \"toy\"}'"}, f"failure {ID}: its `case` is none: a case has no `config`"),
        ({"case": "'{\"family\": \"toy\", \"config\": {}, \"batch\": \"a\"}'"}, f"failure {ID}: its `case` is none: "),
        ({"case": "'" + "[" * 20_000 + "'"}, f"failure {ID}: its `case` is none: "),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_entry_is_said(tmp_path, entry, said):
    assert said in _said(file(tmp_path / "k.toml", entry))


def test_two_entries_of_one_id_are_refused(tmp_path):
    assert f"has two entries with the id {ID!r}" in _said(file(tmp_path / "k.toml", {}, {"rule": '"alibi"'}))


@pytest.mark.parametrize("name", ["reason", "issue"])
def test_what_a_person_has_still_to_write_may_be_missing_where_that_is_asked_for(tmp_path, name):
    assert ENTRY[name]
    [one] = read(file(tmp_path / "k.toml", {name: None}), finished=False).failures
    assert getattr(one, name) == ""
