"""What a check compares is kept where somebody watches, and nowhere else."""

from __future__ import annotations

import math
from dataclasses import asdict

import torch

from verifier.judging import comparison as watching
from verifier.judging.comparison import summarize
from verifier.judging.evidence import Evidence, Ladder, Rung
from verifier.judging.numerics import compare_bitwise, float64_judge
from verifier.judging.outcome import Verdict
from verifier.output.validation import convert

JUDGE = float64_judge(1e-15)


def _compared(where: str, off: float) -> None:
    right = torch.ones(2, 3, 4, dtype=torch.float64)
    summarize([JUDGE.compare(where, right + off, right)])


def test_places_and_differences_are_kept_while_it_is_watched():
    _compared("before", 1.0)
    with watching.watching() as watch:
        _compared("agrees", 0.0)
        _compared("differs", 0.5)
    _compared("after", 1.0)
    assert [(one.where, one.verdict) for one in watch.comparisons] == [
        ("agrees", Verdict.PASS),
        ("differs", Verdict.FAIL),
    ]
    assert list(watch.differences) == ["differs"]
    assert watch.differences["differs"].bound == watch.comparisons[1].bound


def test_the_first_difference_of_a_place_counts():
    # A check that asks further whether a wrong path agrees compares the same place with something else.
    with watching.watching() as watch:
        _compared("place", 0.5)
        _compared("place", 7.0)
    assert watch.differences["place"].worst[0].given == 1.5


def test_what_differs_in_bits_is_kept_too():
    with watching.watching() as watch:
        compare_bitwise("rows", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
        compare_bitwise("rows that agree", torch.tensor([1.0]), torch.tensor([1.0]))
    assert [one.index for one in watch.differences["rows"].worst] == [(1,)]
    assert "rows that agree" not in watch.differences


def test_a_watch_inside_another_has_its_own():
    with watching.watching() as outer:
        with watching.watching() as inner:
            _compared("inside", 1.0)
        _compared("outside", 1.0)
    assert list(inner.differences) == ["inside"]
    assert list(outer.differences) == ["outside"]


def test_evidence_is_the_same_after_a_file():
    with watching.watching() as watch:
        compare_bitwise("blocks.0.ln1.w", torch.tensor([1.0, 2.0]), torch.tensor([1.0, math.inf]))
    rung = Rung(where="x", verdict=Verdict.REDUCED, measured=math.inf, bound=0.0)
    evidence = Evidence(
        case="abcdefgh",
        check="weights.values",
        fingerprint="ijkmnpqr",
        places=(rung,),
        more=3,
        difference=watch.differences["blocks.0.ln1.w"],
    )
    ladder = Ladder(case="abcdefgh", forward=(rung,), backward=(), missing={"backward": "no hooks"})
    for one in (evidence, ladder):
        assert convert(asdict(one), type(one), of="what was found", strict=False) == one


def test_a_ladder_starts_at_its_first_difference_each_way():
    def rung(where: str, verdict: Verdict) -> Rung:
        return Rung(where=where, verdict=verdict, measured=1.0, bound=1.0)

    names = {"a": Verdict.PASS, "b": Verdict.REDUCED, "c": Verdict.FAIL, "d": Verdict.FAIL, "e": Verdict.PASS}
    rungs = tuple(rung(name, verdict) for name, verdict in names.items())
    ladder = Ladder(case="x", forward=rungs, backward=rungs, missing={})
    assert ladder.starts.where == "c"
    assert ladder.starts_backward.where == "d"
    assert Ladder(case="x", forward=rungs[:2], backward=(), missing={}).starts is None
