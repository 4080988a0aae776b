"""Numbers as pictures."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from made_records import ladder, rung, wrong

from verifier.judging.evidence import Heat
from verifier.judging.outcome import Verdict
from verifier.report.drawing import BOUND, CELL, LEVELS, WIDTH, bar_length, draw_heat_map, shorten

INF, NAN = math.inf, math.nan


# --- bars ------------------------------------------------------------------------------------------------------------


def test_a_larger_error_never_has_a_shorter_bar():
    errors = [0.0, *(10.0 ** (tenth / 10) for tenth in range(-250, 250)), INF]
    lengths = [bar_length(error, 1e-3) for error in errors]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 100
    assert (lengths[0], lengths[-1]) == (0, WIDTH)


@pytest.mark.parametrize("bound", [1e-14, 1.0, 3e7])
def test_an_error_at_the_bound_ends_where_the_bound_stands(bound):
    assert bar_length(bound, bound) == BOUND


@pytest.mark.parametrize(
    ("magnitude", "length"),
    [(-9, 0), (-4, 0), (-2, BOUND // 2), (-0.5, 44), (1, 60), (3, 80), (15, WIDTH), (20, WIDTH)],
)
def test_orders_of_magnitude_are_equally_long_on_either_side(magnitude, length):
    assert bar_length(10.0**magnitude, 1.0) == length


def test_what_is_well_within_the_bound_ends_before_it_and_what_is_well_over_ends_after():
    assert bar_length(0.5, 1.0) < BOUND < bar_length(2.0, 1.0)


@pytest.mark.parametrize(
    ("measured", "bound", "length"),
    [(0.0, 0.0, 0), (1.0, 0.0, WIDTH), (NAN, 0.0, WIDTH), (NAN, 1.0, WIDTH), (1.0, NAN, WIDTH), (1e300, 1e-300, WIDTH)],
)
def test_what_has_no_ratio_has_all_of_the_bar_or_none(measured, bound, length):
    assert bar_length(measured, bound) == length


# --- ladders ---------------------------------------------------------------------------------------------------------


def _rungs(letters):
    """`.` agrees, `x` differs."""
    return [rung(f"p{place}") if letter == "." else wrong(f"p{place}") for place, letter in enumerate(letters)]


def _agrees(stretch):
    return stretch.words == "agree"


def _spelt(stretches):
    return " ".join(f"{'!' if one.shown else ''}{len(one.rungs)}{'=' if _agrees(one) else '~'}" for one in stretches)


LADDERS = ["", ".", "x", "....", "xxxx", "..xx..x.", "x.x.x.x.x", "xxxx....xxxx", "....xxxxxxxx.x.x.x"]


@pytest.mark.parametrize("most", [0, 1, 3, 12])
@pytest.mark.parametrize("letters", LADDERS)
def test_a_shortened_ladder_keeps_every_rung_in_its_place(letters, most):
    made = shorten(_rungs(letters), most)
    assert list(itertools.chain.from_iterable(one.rungs for one in made)) == _rungs(letters)
    shown = [one for one in made if one.shown]
    assert len(shown) == min(most, letters.count("x"))
    assert all(len(one.rungs) == 1 and not _agrees(one) for one in shown)


@pytest.mark.parametrize(
    ("letters", "most", "spelt"),
    [
        ("..xx..", 12, "2= !1~ !1~ 2="),
        ("xxxx", 1, "!1~ 3~"),
        ("xx..xx.x", 2, "!1~ !1~ 2= 2~ 1= 1~"),
        ("....", 0, "4="),
    ],
)
def test_those_that_agree_are_one_stretch_and_those_that_are_left_out_another(letters, most, spelt):
    assert _spelt(shorten(_rungs(letters), most)) == spelt


def test_the_first_that_differs_is_always_shown():
    made = shorten(_rungs("." * 30 + "x" * 30))
    assert [one.shown for one in made[:2]] == [False, True]
    assert made[1].rungs[0].where == "p30"


def test_gradients_are_met_from_the_logits_back():
    forward, backward = _rungs("..x"), _rungs("xx.")
    both = ladder("a", forward, backward)
    assert (both.starts, both.starts_backward) == (forward[2], backward[1])


def test_where_all_agree_nothing_is_first():
    agreeing = ladder("a", _rungs(".."), [rung("q", Verdict.REDUCED)])
    assert (agreeing.starts, agreeing.starts_backward) == (None, None)


# --- heat maps -------------------------------------------------------------------------------------------------------


def _heat(values, axes=("head", "pos"), lengths=None):
    rows = tuple(tuple(row) for row in values)
    return Heat(axes=axes, lengths=lengths or (len(rows), len(rows[0])), values=rows)


def _levels(*values, bound=0.1):
    """The level of each of these cells, by what is drawn."""
    made = draw_heat_map(_heat([values]), bound)
    places = {int(x): level for level, path in made.paths for x in re.findall(r"M(\d+) 0", path)}
    return [places.get(CELL * place) for place in range(len(values))]


def test_what_is_farther_off_is_darker_and_what_is_within_the_bound_agrees():
    assert _levels(0.0, 0.1, 0.11, 200.0, 5e3, 5e4, 3e5, 1e6) == [0, 0, 1, 2, 2, 3, 4, 5]


def test_what_is_not_defined_is_not_drawn():
    assert _levels(None, 0.0, None, 1.0) == [None, 0, None, LEVELS - 1]


def test_what_is_no_number_is_darkest_and_all_else_that_differs_pale():
    assert _levels(INF, 0.5, 0.0, 1e300) == [LEVELS - 1, 1, 0, 1]


def test_without_a_bound_nothing_but_equal_numbers_agrees():
    assert _levels(0.0, 1e-300, bound=0.0) == [0, LEVELS - 1]


def test_every_cell_is_drawn_once():
    values = [[0.0, None, 1.0], [0.3, 0.001, 2.0]]
    made = draw_heat_map(_heat(values), 0.1)
    drawn = [place for _, path in made.paths for place in re.findall(r"M(\d+) (\d+)h11v11h-11z", path)]
    assert sorted((int(y) // CELL, int(x) // CELL) for x, y in drawn) == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert (made.width, made.height) == (3 * CELL, 2 * CELL)
    assert "".join(path for _, path in made.paths).count("M") == len(drawn)


@pytest.mark.parametrize(
    ("values", "axes", "lengths", "words"),
    [
        ([[0, 0], [0, 1]], ("head", "pos"), None, "differs in head 1 (of 2), pos 1 (of 2)"),
        ([[1, 1], [1, 1]], ("head", "pos"), None, "differs in every head (of 2), every pos (of 2)"),
        ([[0, 0], [0, 0.5]], ("head", "pos"), None, "no cell alone is over the bound"),
        ([[0, 1, 1, 0, 1]], ("head", "pos"), None, "differs in every head (of 1), pos 1 to 2, 4 (of 5)"),
        ([[0, 1, 1]], ("", "d_model"), None, "differs in d_model 1 to 2 (of 3)"),
        ([[None, 1]], ("", "pos"), None, "differs in pos 1 (of 2)"),
        ([[0, 0, 1]], ("", "pos"), (1, 11), "differs in pos 8 to 10 (of 11)"),
        ([[1, 0, 0]], ("", "pos"), (1, 12), "differs in pos 0 to 3 (of 12)"),
        ([[0, 1, 0, 1]], ("", "pos"), (1, 8), "differs in pos 2 to 3, 6 to 7 (of 8)"),
    ],
)
def test_a_heat_map_is_told_in_words(values, axes, lengths, words):
    assert draw_heat_map(_heat(values, axes, lengths), 0.5).words == words
