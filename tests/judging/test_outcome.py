"""What makes two failures the same bug, and what does not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from verifier.errors import one_line
from verifier.judging.outcome import Outcome, Verdict, canonical_json, make_plain, short_id

FAILURE = Outcome(
    check="qkv.rows",
    verdict=Verdict.FAIL,
    measured=0.5,
    bound=0.25,
    where="blocks.0.attn.q.weight",
    message="3 of 4 values differ",
    exception=None,
    site=None,
    detail="a traceback",
    seconds=1.5,
)


@pytest.mark.parametrize(
    "change",
    [
        {"measured": 0.75},
        {"bound": None},
        {"message": "4 of 4 values differ"},
        {"detail": None},
        {"seconds": 0.0},
        {"where": "blocks.11.attn.q.weight"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_numbers_words_and_layers_do_not_make_another_bug(change: dict[str, Any]) -> None:
    assert replace(FAILURE, **change).fingerprint == FAILURE.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"check": "qkv.heads"},
        {"verdict": Verdict.ERROR},
        {"where": "blocks.0.attn.k.weight"},
        {"where": None},
        {"exception": "KeyError"},
        {"site": "mine/adapter.py:wrap"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_check_verdict_place_exception_and_site_make_another_bug(change: dict[str, Any]) -> None:
    assert replace(FAILURE, **change).fingerprint != FAILURE.fingerprint


@pytest.mark.parametrize("verdict", Verdict)
def test_only_a_finding_has_a_fingerprint(verdict: Verdict) -> None:
    told = {Verdict.FAIL, Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT, Verdict.UPSTREAM}
    assert (replace(FAILURE, verdict=verdict).fingerprint is not None) == (verdict in told)


def test_what_is_upstream_or_reduced_or_skipped_does_not_gate() -> None:
    assert {verdict for verdict in Verdict if verdict.gates} == {
        Verdict.FAIL,
        Verdict.ERROR,
        Verdict.CRASH,
        Verdict.TIMEOUT,
    }


def test_a_short_id_is_eight_letters_that_cannot_be_misread() -> None:
    ids = [short_id(number) for number in range(2000)]
    assert all(len(one) == 8 for one in ids)
    assert not set("".join(ids)) & set("lo01")


def test_short_ids_of_different_things_differ() -> None:
    assert len({short_id(number) for number in range(20000)}) == 20000


def test_a_short_id_is_the_same_everywhere() -> None:
    assert short_id(["qkv.rows", "fail", None]) == "9xp3qhza"


def test_the_order_of_keys_does_not_matter() -> None:
    assert short_id({"a": 1, "b": 2}) == short_id({"b": 2, "a": 1})


def test_a_number_without_a_spelling_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"error": float("nan")})


def test_what_a_check_gives_becomes_plain():
    class Word(str):
        encode = None

    class Unspoken:
        def __str__(self):
            raise SystemExit("no")

    outcome = make_plain(
        Outcome(
            check="a.b",
            verdict=Verdict.FAIL,
            measured=1 + 2j,
            bound=np.float32(2),
            where=Word("a\ud800"),
            message=Unspoken(),
        )
    )
    assert math.isnan(outcome.measured)
    assert (type(outcome.bound), outcome.bound) == (float, 2.0)
    assert (type(outcome.where), outcome.where) == (str, "a\\ud800")
    assert outcome.message == "(its text cannot be had)"


def test_an_exception_whose_class_has_no_name_and_that_has_no_text_is_told():
    class Secretive(type):
        @property
        def __name__(cls):
            raise RuntimeError("no name")

    class Nameless(Exception, metaclass=Secretive):
        def __str__(self):
            raise KeyboardInterrupt

    assert one_line(Nameless()) == "Nameless: (its text cannot be had)"
