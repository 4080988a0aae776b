"""The perturbation is what its module says: each result one unit in the last place away, and nothing else touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from verifier.reference.perturbation import Perturbation

BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}
SEED = 7


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)


def units_moved(before: Tensor, after: Tensor) -> list[int]:
    """The distances, in units in the last place of the dtype, that occur between two tensors of equal signs."""
    bits = BITS[before.dtype]
    return sorted((after.contiguous().view(bits).long() - before.contiguous().view(bits).long()).unique().tolist())


@pytest.mark.parametrize("dtype", BITS, ids=str)
def test_every_element_of_a_result_moves_by_exactly_one_unit(dtype: torch.dtype) -> None:
    x = drawn(20, 30, dtype=dtype)
    right = x * 3
    with Perturbation(dtype, SEED):
        moved = x * 3
    assert units_moved(right, moved) == [-1, 1]


X, WEIGHT, BIAS = drawn(3, 4, 5), drawn(6, 5), drawn(6)
ONE_RESULT: dict[str, Callable[[], Tensor]] = {
    "a product of matrices": lambda: X[0] @ WEIGHT.T,
    "a batch of them": lambda: X @ WEIGHT.T,
    "a linear map": lambda: F.linear(X, WEIGHT),
    "a linear map with a bias": lambda: F.linear(X, WEIGHT, BIAS),
    "a sum over an axis": lambda: X.sum(-1),
    "a softmax": lambda: X.softmax(-1),
    "a layer norm": lambda: F.layer_norm(X, (5,)),
    "a concatenation": lambda: torch.cat([X, X]),
    "a copy": lambda: X.clone(),
    "a reshape that must copy": lambda: X.transpose(1, 2).reshape(3, -1),
}


@pytest.mark.parametrize("name", ONE_RESULT)
def test_one_operation_is_one_unit(name: str) -> None:
    right = ONE_RESULT[name]()
    with Perturbation(torch.float64, SEED):
        moved = ONE_RESULT[name]()
    assert units_moved(right, moved) == [-1, 1]


def test_up_and_down_are_as_likely() -> None:
    x = drawn(100, 100).abs()
    with Perturbation(torch.float64, SEED):
        moved = x.clone()
    up = float((moved > x).double().mean())
    assert abs(up - 0.5) < 0.02  # four standard deviations of ten thousand coins


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[1:],
        lambda x: x.transpose(0, 1),
        lambda x: x.view(-1),
        lambda x: x.unsqueeze(0).expand(2, -1, -1),
        lambda x: x.split(2)[0],
        lambda x: x.detach(),
    ],
    ids=["slice", "transpose", "view", "expand", "split", "detach"],
)
def test_a_view_is_no_result(view: Callable[[Tensor], Tensor]) -> None:
    x = drawn(4, 6)
    kept = x.clone()
    with Perturbation(torch.float64, SEED):
        seen = view(x)
    assert torch.equal(x, kept)
    assert torch.equal(seen, view(kept))


def test_what_an_operation_reads_is_left_alone() -> None:
    x = drawn(4, 6)
    kept = x.clone()
    with Perturbation(torch.float64, SEED):
        _ = x.exp() @ x.T
    assert torch.equal(x, kept)


def test_what_is_written_in_place_is_a_result() -> None:
    x = drawn(4, 6)
    right = x + 1
    with Perturbation(torch.float64, SEED):
        x.add_(1)
    assert units_moved(right, x) == [-1, 1]


@pytest.mark.parametrize("other", [torch.float32, torch.bfloat16, torch.int64, torch.bool], ids=str)
def test_other_dtypes_are_left_alone(other: torch.dtype) -> None:
    x = drawn(4, 6)
    right = x.to(other)
    with Perturbation(torch.float64, SEED):
        seen = x.to(other)
    assert torch.equal(seen, right)


def test_zeros_stay_zero() -> None:
    with Perturbation(torch.float64, SEED):
        assert torch.equal(drawn(5, 5).relu() == 0, drawn(5, 5) <= 0)


def test_what_has_no_neighbour_on_both_sides_stays() -> None:
    largest = torch.finfo(torch.float64).max
    x = torch.tensor([float("inf"), float("-inf"), largest, -largest], dtype=torch.float64)
    for seed in range(8):
        with Perturbation(torch.float64, seed):
            assert torch.equal(x.clone(), x)


def test_what_is_not_a_number_stays_so() -> None:
    with Perturbation(torch.float64, SEED):
        assert bool(torch.tensor([float("nan"), 1.0], dtype=torch.float64).clone().isnan()[0])


def test_one_seed_gives_one_result() -> None:
    def run(seed: int) -> Tensor:
        with Perturbation(torch.float64, seed):
            return F.softmax(X @ X.transpose(-1, -2), -1)

    assert torch.equal(run(SEED), run(SEED))
    assert not torch.equal(run(SEED), run(SEED + 1))


def test_torchs_own_random_numbers_are_not_used_up() -> None:
    torch.manual_seed(3)
    untouched = torch.rand(4)
    torch.manual_seed(3)
    with Perturbation(torch.float64, SEED):
        _ = X * 2
    assert torch.equal(torch.rand(4), untouched)


def test_attention_is_moved_inside_and_not_only_at_its_end() -> None:
    q = drawn(1, 2, 6, 4)
    right = F.scaled_dot_product_attention(q, q, q)
    with Perturbation(torch.float64, SEED):
        moved = F.scaled_dot_product_attention(q, q, q)
    assert max(map(abs, units_moved(right, moved))) > 1


def test_nothing_is_moved_afterwards() -> None:
    perturbation = Perturbation(torch.float64, SEED)

    def fail() -> None:
        with perturbation:
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert torch.equal(X * 2, X + X)
