"""How a tensor differs: by which heads and positions, and in which numbers most."""

from __future__ import annotations

import math

import pytest
import torch

from verifier.judging.error_map import MOST_COLUMNS, MOST_ROWS, WORST, difference

Z = "blocks.0.attn.hook_z"  # [batch, pos, head, d_head]


def test_a_wrong_head_is_a_row_and_a_wrong_position_a_column():
    right = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    given = right.clone()
    given[:, 2, 1] += 0.5
    found = difference(Z, given, right, bound=1e-9)
    assert found.axes == ("batch", "pos", "head", "d_head")
    assert found.bound == 1e-9
    assert found.heat.axes == ("head", "pos")
    assert found.heat.lengths == (3, 5)
    assert [[round(value, 3) for value in row] for row in found.heat.values] == [
        [0.0] * 5,
        [0.0, 0.0, 0.5, 0.0, 0.0],
        [0.0] * 5,
    ]


def test_the_numbers_farthest_off_come_first_and_those_that_agree_never():
    right = torch.arange(24.0).reshape(1, 2, 3, 4)
    given = right.clone()
    given[0, 1, 2, 3] += 2.0
    given[0, 0, 0, 1] -= 3.0
    found = difference(Z, given, right)
    assert [(one.index, one.given, one.right) for one in found.worst] == [
        ((0, 0, 0, 1), -2.0, 1.0),
        ((0, 1, 2, 3), 25.0, 23.0),
    ]


def test_there_are_never_more_than_ten_numbers():
    found = difference(Z, torch.ones(2, 5, 3, 4), torch.zeros(2, 5, 3, 4))
    assert len(found.worst) == WORST


def test_what_is_not_defined_is_neither_a_cell_nor_a_number():
    right = torch.zeros(2, 4, 3)
    given = torch.ones(2, 4, 3)
    defined = torch.tensor([[True, True, False, False], [True, True, False, False]])[..., None]
    found = difference("blocks.0.hook_resid_pre", given, right, defined)
    assert found.heat.axes == ("batch", "pos")
    assert found.heat.values == ((1.0, 1.0, None, None), (1.0, 1.0, None, None))
    assert all(one.index[1] < 2 for one in found.worst)


def test_what_is_equal_agrees_although_it_is_no_number():
    right = torch.tensor([[-math.inf, 1.0]])
    assert difference("x", right.clone(), right).worst == ()


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_is_farthest_off(wrong):
    right = torch.zeros(3, 3)
    given = right.clone()
    given[0, 0], given[1, 1] = 5.0, wrong
    found = difference("x", given, right)
    assert found.worst[0].index == (1, 1)
    assert found.heat.values[1][1] == math.inf


def test_long_axes_are_shown_in_pieces():
    right = torch.zeros(100, 200)
    given = right.clone()
    given[99, 199] = 1.0
    heat = difference("embed.W_E", given, right).heat
    assert heat.lengths == (100, 200) or heat.lengths == (200, 100)
    assert len(heat.values) <= max(MOST_ROWS, MOST_COLUMNS)
    assert max(map(len, heat.values)) <= max(MOST_ROWS, MOST_COLUMNS)
    cells = [value for row in heat.values for value in row]
    assert sum(value > 0 for value in cells) == 1
    assert heat.values[-1][-1] > 0


def test_a_vector_is_one_row_and_a_number_has_no_map():
    assert difference("ln_final.w", torch.ones(7), torch.zeros(7)).heat.axes == ("", "d_model")
    assert difference("loss", torch.ones(()), torch.zeros(())).heat is None


def test_axes_that_are_said_count_before_those_of_the_name_and_unknown_ones_are_numbered():
    value = torch.zeros(2, 3)
    assert difference("somewhere", value, value, axes=("pos", "d_vocab")).axes == ("pos", "d_vocab")
    assert difference("somewhere", value, value).axes == ("axis 0", "axis 1")
    # Of another rank than its name says it is something else.
    assert difference(Z, value, value).axes == ("axis 0", "axis 1")
