"""Every two values of every two fields meet in some choice, unless no valid case has them."""

from __future__ import annotations

import itertools

import pytest

from verifier.fuzz.fields import Field, Space
from verifier.fuzz.pairs import Covering, every_pair, pairs_of

TOY = Space(
    family=None,
    reference="toy",
    fields=tuple(
        Field(name=name, values=tuple(range(size))) for name, size in zip("abcde", (2, 3, 4, 2, 5), strict=True)
    ),
)


def test_every_pair_meets_in_few_choices():
    covering = Covering(TOY, lambda choice: True)
    choices = list(covering.choices())
    assert set().union(*map(pairs_of, choices)) == every_pair(TOY)
    assert (covering.met, covering.total, covering.refused) == (len(every_pair(TOY)),) * 2 + (0,)
    # No fewer than the two largest fields' product, and far fewer than the whole product.
    assert 20 <= len(choices) <= 40


def test_what_no_valid_case_has_is_counted_apart_and_everything_else_meets():
    def accepted(choice):
        return not (choice[0] == 1 and choice[1] == 2)

    covering = Covering(TOY, accepted)
    choices = list(covering.choices())
    assert all(map(accepted, choices))
    assert covering.refused == 1
    assert covering.met == covering.total == len(every_pair(TOY)) - 1
    assert set().union(*map(pairs_of, choices)) == every_pair(TOY) - {((0, 1), (1, 2))}


def test_what_was_run_already_need_not_meet_again():
    covering = Covering(TOY, lambda choice: True)
    for choice in itertools.product(*(range(len(field.values)) for field in TOY.fields)):
        covering.note(choice)
    assert list(covering.choices()) == []


def test_the_same_seed_gives_the_same_choices():
    one, other, another = (list(Covering(TOY, lambda choice: True, seed).choices()) for seed in (0, 0, 1))
    assert one == other != another


@pytest.mark.slow
def test_every_pair_of_falcon_that_is_accepted_meets(falcons):
    found = falcons()
    covering = Covering(found, lambda choice: found.spec(choice).valid)
    choices = list(covering.choices())
    assert covering.met == covering.total
    assert all(found.spec(choice).valid for choice in choices)
    assert len(choices) < 450
    assert covering.refused < len(every_pair(found)) / 20
