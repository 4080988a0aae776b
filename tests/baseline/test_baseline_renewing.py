"""A baseline of before checks became observables: refused in one line, and renewed with what people wrote into it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from known_toys import ID, WRONG, baseline, bias_fails, failure, file, spec

from verifier.baseline.file import read
from verifier.baseline.making import make_baseline
from verifier.baseline.renewing import carry_over
from verifier.baseline.writing import remove, write
from verifier.checks.superseded import SUPERSEDED
from verifier.errors import ExitStatus, UsageError

RAN = '[ran]\n"toy.gone" = 12\n'


@pytest.fixture(autouse=True)
def _superseded(monkeypatch):
    monkeypatch.setitem(SUPERSEDED, "toy.gone", [("forward.logits", {}), ("qkv.rows", {"mask": "left"})])


def _old(number=0, **changed):
    """An entry of the check that is gone; the toy bug fails on its case."""
    return failure(**{"fingerprint": f"old{number}", "check": "toy.gone", **changed})


def _carried(make, *old, fails=bias_fails):
    """The entries of a record in which the toy bug is, with what was carried over, and how many got something."""
    record = make(fails)
    made, count = carry_over(baseline(*old), make_baseline(record, "k.toml"), record)
    return [(one.fingerprint, one.reason, one.issue, one.expires) for one in made.failures], count


@pytest.mark.parametrize(
    ("entry", "head"),
    [
        ({"check": '"toy.gone"'}, ""),
        ({}, RAN),
        ({"check": '"toy.gone"', "reason": '""'}, RAN),
    ],
)
def test_a_baseline_that_names_a_check_that_is_gone_is_refused_with_the_command_that_renews_it(tmp_path, entry, head):
    path = file(tmp_path / "k n.toml", entry, head=head)
    with pytest.raises(UsageError) as refused:
        read(path)
    assert refused.value.status is ExitStatus.USAGE
    assert str(refused.value) == (
        f"{str(path)!r}: it names 1 check in whose place there are observables now (toy.gone): renew it with "
        f"`verifier run toy --adapter mine:Adapter --no-baseline` and `verifier baseline RECORD --out '{path}'`"
    )


def test_the_command_that_renews_it_reads_and_rewrites_it(tmp_path):
    path = file(tmp_path / "k.toml", {"check": '"toy.gone"', "id": '"old"'}, {}, head=RAN)
    assert [one.check for one in read(path, finished=False).failures] == ["toy.gone", "qkv.rows"]
    remove(path, ["old"])
    write(path, baseline(failure()))
    assert [one.check for one in read(path).failures] == ["qkv.rows"]


def test_what_people_wrote_goes_to_what_fails_on_the_entrys_case(make):
    day = date(2027, 1, 31)
    entries, count = _carried(make, _old(reason="a later release", issue="", expires=day))
    assert (entries, count) == ([(ID, "a later release", "", day)], 1)


def test_several_reasons_stand_side_by_side_and_the_first_day_counts(make):
    entries, count = _carried(
        make,
        _old(1, reason="one", issue="#1", expires=date(2027, 2, 1)),
        _old(2, reason="two", issue="#2", expires=date(2027, 1, 1)),
        _old(3, reason="one", issue="#1"),
    )
    assert (entries, count) == ([(ID, "one; two", "#1, #2", date(2027, 1, 1))], 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"spec": spec(alibi=True)},  # there it passes
        {"check": "build.adapter"},  # a check that there is
        {"reason": " "},
    ],
)
def test_what_is_no_word_on_this_failure_is_not_carried_over(make, changed):
    assert _carried(make, _old(**changed)) == ([(ID, "", "", None)], 0)


def test_a_failure_of_another_check_gets_nothing(make):
    other = replace(WRONG, check="build.adapter")
    (entry,), count = _carried(
        make, _old(), fails=lambda one, check: other if check == other.check and one.config.get("bias") else None
    )
    assert (entry[1:], count) == (("", "", None), 0)


def test_an_entry_that_stays_keeps_its_own_words(make):
    entries, count = _carried(make, failure(reason="its own"), _old(reason="another"))
    assert (entries, count) == ([(ID, "", "", None)], 0)  # writing keeps what the file has
