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


@pytest.mark.parametrize("fields", [some for count in (1, 2, 3) for some in itertools.combinations(range(8), count)])
def test_only_the_fields_that_matter_are_left(fields):
    def fails(choice):
        return all(choice[field] for field in fields)

    assert minimal(START, SIZES, fails) == tuple(int(place in fields) for place in range(8))
