"""A failing choice becomes the smallest that fails in the same way."""

from __future__ import annotations

import itertools

import pytest

from verifier.fuzz.shrinking import minimal

SIZES = [2, 2, 3, 5, 9, 4, 2, 6]
START = (1, 1, 2, 4, 8, 3, 1, 5)


@pytest.mark.parametrize(
    ("fails", "smallest"),
    [
        (lambda choice: True, (0,) * 8),
        (lambda choice: choice[4] >= 3, (0, 0, 0, 0, 3, 0, 0, 0)),
        (lambda choice: choice[1] and choice[3] >= 2 and choice[7] > 3, (0, 1, 0, 2, 0, 0, 0, 4)),
        (lambda choice: choice == START, START),
    ],
)
def test_the_smallest_that_fails_is_found(fails, smallest):
    assert minimal(START, SIZES, fails) == smallest


def test_nothing_is_asked_twice_and_never_more_than_allowed():
    asked = []

    def fails(choice):
        asked.append(choice)
        return sum(choice) >= 9

    smallest = minimal(START, SIZES, fails, calls=40)
    assert len(asked) == len(set(asked)) <= 40
    assert sum(smallest) >= 9
    assert START not in asked  # it is known to fail


def test_what_cannot_be_made_smaller_within_the_calls_stays():
    assert minimal(START, SIZES, lambda choice: False, calls=5) == START


@pytest.mark.thinned(5)
@pytest.mark.parametrize("fields", [some for count in (1, 2, 3) for some in itertools.combinations(range(8), count)])
def test_only_the_fields_that_matter_are_left(fields):
    def fails(choice):
        return all(choice[field] for field in fields)

    assert minimal(START, SIZES, fails) == tuple(int(place in fields) for place in range(8))


# --- from what shrinking ended with before ---------------------------------------------------------------------------


def counted(fails):
    """The same question, and how often it was asked."""
    asked = []

    def counting(choice):
        asked.append(choice)
        return fails(choice)

    return counting, asked


def three(choice):
    return choice[1] and choice[3] >= 2 and choice[7] > 3


SMALLEST = (0, 1, 0, 2, 0, 0, 0, 4)


def test_what_was_the_smallest_before_takes_a_few_calls():
    first, asked_first = counted(three)
    again, asked_again = counted(three)
    assert minimal(START, SIZES, first) == SMALLEST
    assert minimal(START, SIZES, again, before=[SMALLEST]) == SMALLEST
    # Itself, and what is one step plainer in each of the three fields.
    assert len(asked_again) == 1 + 5
    assert len(asked_first) > 2 * len(asked_again)


@pytest.mark.parametrize("before", [(0, 1, 0, 3, 0, 0, 0, 5), (1, 1, 2, 2, 8, 3, 1, 4), START])
def test_what_is_no_longer_the_smallest_is_where_it_goes_on(before):
    fails, asked = counted(three)
    assert minimal(START, SIZES, fails, before=[before]) == SMALLEST
    assert len(asked) == len(set(asked))


def test_what_does_not_fail_any_more_costs_one_call():
    without, asked_without = counted(three)
    stale, asked = counted(three)
    assert minimal(START, SIZES, without) == SMALLEST
    assert minimal(START, SIZES, stale, before=[(0, 0, 1, 0, 0, 0, 0, 0)]) == SMALLEST
    assert len(asked) <= len(asked_without) + 1


def test_what_is_larger_than_what_was_found_is_not_tried():
    fails, asked = counted(lambda choice: True)
    assert minimal((0, 0, 1, 0, 0, 0, 0, 0), SIZES, fails, before=[START]) == (0,) * 8
    assert START not in asked


def test_what_is_found_at_its_smallest_takes_a_few_calls_too():
    fails, asked = counted(three)
    assert minimal(SMALLEST, SIZES, fails, before=[SMALLEST]) == SMALLEST
    assert len(asked) == 5
