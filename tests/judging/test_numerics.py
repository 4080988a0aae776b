"""Errors are held against noise, for each row of the batch, and whatever is not a comparison does not pass."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import verifier
from verifier.judging import numerics
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import (
    PRECISION_MARGIN,
    SEMANTICS_MARGIN,
    SMALL_SAMPLE_FACTOR,
    Judge,
    compare_bitwise,
    compare_derivative,
    compare_noise_floor,
    float64_judge,
    gradient_judge,
    measured_noise,
    moved_rows,
    precision_judge,
    rms,
    unit,
)
from verifier.judging.outcome import Finding, NotApplicable, Verdict

TRUTH = torch.randn(3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NOISE = 2.0**-50
SINGLE = NOISE * 2.0**20
ROWS = ("first", "second", "third")


def off_by(*rows: float) -> Tensor:
    """The truth with that error, as an rms, in each row."""
    signs = torch.where(torch.arange(TRUTH[0].numel()) % 2 == 0, 1.0, -1.0).reshape(TRUTH[0].shape)
    return TRUTH + torch.tensor(rows, dtype=torch.float64)[:, None, None] * signs


def times(factor: float, noise: float = NOISE) -> Tensor:
    """The truth with an error of so many times the noise everywhere."""
    return off_by(*[factor * noise] * 3)


# --- how large a tensor is -------------------------------------------------------------------------------------------


def test_an_rms_is_the_root_of_the_mean_of_the_squares() -> None:
    assert rms(torch.tensor([[3.0, 4.0], [0.0, 0.0]])) == 2.5


def test_an_rms_counts_only_what_is_defined() -> None:
    values = torch.tensor([[3.0, 100.0], [4.0, 5.0]])
    assert rms(values, torch.tensor([[True, False], [True, True]])) == pytest.approx((50 / 3) ** 0.5)


def test_what_is_defined_broadcasts() -> None:
    values = torch.ones(2, 3, 4) * torch.tensor([1.0, 7.0, 100.0])[:, None]
    assert rms(values, torch.tensor([[[True], [True], [False]]])) == 5.0


def test_an_rms_of_nothing_is_zero() -> None:
    assert rms(torch.ones(2, 3), torch.zeros(2, 1, dtype=torch.bool)) == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_defined_may_be_anything(value: float) -> None:
    assert rms(torch.tensor([[value, 2.0]]), torch.tensor([[False, True]])) == 2.0


def test_the_rms_of_a_scalar_is_its_size() -> None:
    assert rms(torch.tensor(-2.5)) == 2.5


def test_an_rms_of_small_dtypes_does_not_overflow() -> None:
    assert rms(torch.full((1, 8), 300.0, dtype=torch.float16)) == 300.0


def test_a_unit_is_the_dtypes_at_the_tensors_scale() -> None:
    assert unit(torch.full((1, 4), 8.0), torch.bfloat16) == 8.0 * torch.finfo(torch.bfloat16).eps


def test_noises_add_up_as_squares() -> None:
    truth = torch.full((1, 4), 12.0 / torch.finfo(torch.float32).eps, dtype=torch.float64)
    assert measured_noise(truth, truth + 3, [truth + 4, truth - 2], torch.float32) == 13.0


# --- the judges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (times(0.0), Verdict.PASS),
        (times(0.9 * SEMANTICS_MARGIN), Verdict.PASS),
        (times(1.1 * SEMANTICS_MARGIN), Verdict.REDUCED),
        (times(0.9 * SEMANTICS_MARGIN, SINGLE), Verdict.REDUCED),
        (times(1.1 * SEMANTICS_MARGIN, SINGLE), Verdict.FAIL),
    ],
    ids=["none", "within", "beyond float64", "within float32", "beyond float32"],
)
def test_semantics_are_held_against_the_noise_of_float64_then_of_float32(error: Tensor, verdict: Verdict) -> None:
    assert float64_judge(NOISE, lambda: SINGLE).compare("logits", error, TRUTH).verdict is verdict


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, Verdict.REDUCED), (1.1, Verdict.FAIL)])
def test_a_float32_noise_that_nobody_measured_is_float64s_in_its_units(factor: float, verdict: Verdict) -> None:
    units = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    error = times(factor * SEMANTICS_MARGIN * units)
    assert float64_judge(NOISE).compare("logits", error, TRUTH).verdict is verdict


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, Verdict.PASS), (1.1, Verdict.FAIL)])
def test_precision_knows_nothing_between_right_and_wrong(factor: float, verdict: Verdict) -> None:
    margin = PRECISION_MARGIN * (1 + SMALL_SAMPLE_FACTOR / TRUTH.numel() ** 0.5)
    assert precision_judge(NOISE).compare("logits", times(factor * margin), TRUTH).verdict is verdict


def test_float32s_noise_is_measured_only_when_it_is_needed() -> None:
    def measured() -> float:
        raise AssertionError("nobody needed it")

    assert float64_judge(NOISE, measured).compare("logits", times(1.0), TRUTH).verdict is Verdict.PASS


@pytest.mark.parametrize("row", range(3))
def test_one_wrong_row_is_enough_and_is_named(row: int) -> None:
    errors = [0.0, 0.0, 0.0]
    errors[row] = 0.5
    found = float64_judge(NOISE, lambda: SINGLE).compare("logits", off_by(*errors), TRUTH, rows=ROWS)
    assert found.verdict is Verdict.FAIL
    assert found.measured == pytest.approx((0.25 / 3) ** 0.5)
    assert f"most in {ROWS[row]};" in (found.message or "")


def test_the_worst_row_is_the_one_that_is_furthest_off() -> None:
    found = float64_judge(NOISE).compare("logits", off_by(0.5, 1.0, 0.75), TRUTH, rows=ROWS)
    assert "most in second;" in (found.message or "")


def test_a_row_that_is_not_defined_is_not_named() -> None:
    defined = torch.tensor([True, False, True])[:, None, None]
    found = float64_judge(NOISE).compare("logits", off_by(0.5, 1.0, 0.75), TRUTH, defined=defined, rows=ROWS)
    assert "most in third;" in (found.message or "")


def test_where_there_is_no_noise_only_the_truth_itself_passes() -> None:
    assert float64_judge(0.0).compare("logits", TRUTH, TRUTH).verdict is Verdict.PASS
    assert float64_judge(0.0).compare("logits", times(1.0), TRUTH).verdict is Verdict.FAIL


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_fails(value: float) -> None:
    broken = TRUTH.clone()
    broken[1, 2, 3] = value
    found = float64_judge(NOISE, lambda: SINGLE).compare("logits", broken, TRUTH, rows=ROWS)
    assert (found.verdict, found.message) == (Verdict.FAIL, "not finite, most in second")


def test_what_is_not_defined_is_not_compared() -> None:
    broken = TRUTH.clone()
    broken[:, 2:] = float("nan")
    defined = (torch.arange(5) < 2)[None, :, None]
    assert float64_judge(NOISE).compare("logits", broken, TRUTH, defined=defined).verdict is Verdict.PASS
    broken[0, 0, 0] += 1
    assert float64_judge(NOISE).compare("logits", broken, TRUTH, defined=defined).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (None, "it is NoneType, not a tensor"),
        ((TRUTH,), "it is tuple, not a tensor"),
        (TRUTH[:, :4], "its shape is [3, 4, 7], not [3, 5, 7]"),
        (TRUTH[:, :1], "its shape is [3, 1, 7], not [3, 5, 7]"),
        (torch.complex(TRUTH, TRUTH), "its dtype is torch.complex128, which is complex and not floating-point"),
        (TRUTH.bool(), "its dtype is torch.bool, which is discrete and not floating-point"),
        (TRUTH.long(), "its dtype is torch.int64, which is discrete and not floating-point"),
        (TRUTH.to_sparse(), "its layout is torch.sparse_coo, not torch.strided"),
        (TRUTH.to("meta"), "its device is meta, not cpu"),
    ],
    ids=["None", "tuple", "short", "broadcasts", "complex", "bool", "whole", "sparse", "meta"],
)
def test_what_cannot_be_compared_fails_in_words(actual: object, words: str) -> None:
    for found in (float64_judge(NOISE).compare("logits", actual, TRUTH), compare_bitwise("logits", actual, TRUTH)):
        assert (found.verdict, found.message) == (Verdict.FAIL, words)


def test_a_message_says_how_much_and_what_would_be_right() -> None:
    found = float64_judge(NOISE).compare("logits", off_by(0.5, 0.5, 0.5), TRUTH)
    assert found.message == f"off by 5.0e-01 (rms); right is within {SEMANTICS_MARGIN * NOISE:.1e}"


def test_a_pass_needs_no_words() -> None:
    assert float64_judge(NOISE).compare("logits", TRUTH, TRUTH, rows=ROWS).message is None


def test_what_comes_in_a_lower_precision_is_compared_as_it_is() -> None:
    found = float64_judge(NOISE, lambda: SINGLE).compare("logits", TRUTH.float(), TRUTH)
    assert found.measured == rms(TRUTH.float().double() - TRUTH)
    assert found.verdict is not Verdict.PASS


def test_a_tensor_in_a_graph_can_be_compared() -> None:
    assert float64_judge(NOISE).compare("logits", TRUTH.clone().requires_grad_(), TRUTH).verdict is Verdict.PASS


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, Verdict.PASS), (0.9, Verdict.FAIL)])
def test_a_steady_place_passes_less_in_float64_than_float32_explains(factor: float, verdict: Verdict) -> None:
    assert compare_noise_floor("logits", NOISE, factor * SEMANTICS_MARGIN * NOISE).verdict is verdict


# --- bit for bit -----------------------------------------------------------------------------------------------------


def test_the_same_is_the_same() -> None:
    assert compare_bitwise("x", TRUTH.clone(), TRUTH).verdict is Verdict.PASS


def test_one_unit_in_one_element_is_not_the_same() -> None:
    other = TRUTH.clone()
    other[0, 0, 0] = torch.nextafter(other[0, 0, 0], torch.tensor(9.0, dtype=torch.float64))
    found = compare_bitwise("x", other, TRUTH)
    assert (found.verdict, found.message) == (Verdict.FAIL, "1 of 105 values differ")


def test_two_nans_are_the_same() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    assert compare_bitwise("x", nan.clone(), nan).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("actual", "truth"),
    [
        (float("nan"), 0.0),
        (0.0, float("nan")),
        (float("inf"), torch.finfo(torch.float32).max),
        (float("-inf"), torch.finfo(torch.float32).min),
        (float("inf"), float("-inf")),
    ],
)
def test_what_is_not_finite_is_the_same_as_nothing_else(actual: float, truth: float) -> None:
    assert compare_bitwise("x", torch.tensor([actual, 1.0]), torch.tensor([truth, 1.0])).verdict is Verdict.FAIL


def test_nans_are_not_counted_among_what_differs() -> None:
    found = compare_bitwise("x", torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 2.0]))
    assert found.message == "1 of 2 values differ"


def test_the_dtype_belongs_to_it() -> None:
    assert compare_bitwise("x", TRUTH.float(), TRUTH).message == "its dtype is torch.float32, not torch.float64"


def test_whole_numbers_can_be_the_same() -> None:
    assert compare_bitwise("x", torch.tensor([1, 2]), torch.tensor([1, 2])).verdict is Verdict.PASS
    assert compare_bitwise("x", torch.tensor([1, 2]), torch.tensor([1, 3])).verdict is Verdict.FAIL


# --- conclusions -----------------------------------------------------------------------------------------------------


def judged(where: str, verdict: Verdict, measured: float = 1.0, bound: float = 2.0) -> Finding:
    return Finding(where=where, verdict=verdict, measured=measured, bound=bound, message=f"{verdict}!")


def test_the_first_of_the_worst_kind_speaks() -> None:
    found = summarize(
        [
            judged("a", Verdict.PASS),
            judged("b", Verdict.REDUCED),
            judged("c", Verdict.UPSTREAM),
            judged("d", Verdict.FAIL, measured=5.0),
            judged("e", Verdict.FAIL, measured=50.0),
        ]
    )
    assert (found.verdict, found.where, found.measured) == (Verdict.FAIL, "d", 5.0)
    assert found.message == "fail! (1 more place)"


@pytest.mark.parametrize("worst", [Verdict.FAIL, Verdict.UPSTREAM, Verdict.REDUCED])
def test_a_worse_kind_goes_before_an_earlier_place(worst: Verdict) -> None:
    order = [Verdict.FAIL, Verdict.UPSTREAM, Verdict.REDUCED, Verdict.PASS]
    better = order[order.index(worst) + 1 :]
    found = summarize([*(judged(one, one) for one in reversed(better)), judged("the worst", worst)])
    assert (found.verdict, found.where, found.message) == (worst, "the worst", f"{worst}!")


def test_where_all_passes_the_nearest_to_its_bound_is_kept() -> None:
    found = summarize(
        [judged("a", Verdict.PASS, 1.0, 2.0), judged("b", Verdict.PASS, 3.0, 4.0), from_condition("c", None)]
    )
    assert (found.verdict, found.measured, found.bound, found.where) == (Verdict.PASS, 3.0, 4.0, None)


def test_nothing_compared_proves_nothing() -> None:
    with pytest.raises(NotApplicable, match="nothing to compare"):
        summarize([])


@pytest.mark.parametrize("error", [NotApplicable("nothing is defined here"), RuntimeError("it cannot be called so")])
@pytest.mark.parametrize("before", [Verdict.FAIL, Verdict.REDUCED, Verdict.PASS])
def test_what_is_raised_hides_no_difference_that_was_found_before(before: Verdict, error: Exception) -> None:
    def compare() -> Iterator[Finding]:
        yield judged("a", before)
        raise error

    if before is Verdict.FAIL:
        found = summarize(compare())
        assert (found.verdict, found.where) == (Verdict.FAIL, "a")
        assert found.message == f"fail!; after that {type(error).__name__}: {error}"
    else:
        with pytest.raises(type(error), match=str(error)):
            summarize(compare())


def test_what_is_stated_is_so_or_not() -> None:
    assert from_condition("x", None).verdict is Verdict.PASS
    assert (from_condition("x", "5, not 6").verdict, from_condition("x", "5, not 6").message) == (
        Verdict.FAIL,
        "5, not 6",
    )


def test_a_ratio_is_error_over_bound() -> None:
    assert judged("x", Verdict.FAIL, 3.0, 2.0).ratio == 1.5
    assert judged("x", Verdict.FAIL, 3.0, 0.0).ratio == float("inf")
    assert judged("x", Verdict.PASS, 0.0, 0.0).ratio == 0.0


# --- few numbers, many rows, one position ----------------------------------------------------------------------------


@pytest.mark.parametrize("judge", [precision_judge, gradient_judge])
def test_a_bound_grows_where_few_numbers_are_compared(judge: Callable[[float], Judge]) -> None:
    many, few = torch.zeros(10_000, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    bounds = [judge(NOISE).compare("x", one, one).bound for one in (many, few)]
    assert bounds[0] < 1.1 * NOISE
    assert bounds[1] > 2 * bounds[0]


def test_how_many_are_compared_is_how_many_are_defined() -> None:
    defined = torch.zeros(100, dtype=torch.bool)
    defined[:4] = True
    everything = torch.zeros(100, dtype=torch.float64)
    some = precision_judge(NOISE).compare("x", everything, everything, defined=defined)
    assert some.bound == precision_judge(NOISE).compare("x", everything[:4], everything[:4]).bound


def test_semantics_do_not_depend_on_how_many_numbers_there_are() -> None:
    one = torch.zeros(1, dtype=torch.float64)
    assert float64_judge(NOISE).compare("x", one, one).bound == SEMANTICS_MARGIN * NOISE


def test_a_row_moves_when_it_moves_by_more_than_the_margin() -> None:
    base = torch.ones(1, 8, dtype=torch.float64)
    rows = torch.cat([base, base + 0.9 * SEMANTICS_MARGIN * NOISE, base + 1.1 * SEMANTICS_MARGIN * NOISE])
    assert moved_rows(rows, base, NOISE).tolist() == [False, False, True]


def test_a_row_that_is_no_number_moved_unless_both_are() -> None:
    base = torch.tensor([[1.0, -torch.inf]]).double()
    rows = torch.tensor([[1.0, -torch.inf], [torch.nan, -torch.inf], [1.0, 0.0]]).double()
    assert moved_rows(rows, base, NOISE).tolist() == [False, True, True]


def test_a_gradient_is_held_against_the_slope() -> None:
    at = torch.linspace(0.5, 2, 7, dtype=torch.float64)

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.exp()

        @staticmethod
        def backward(ctx: Any, *given: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return given[0] * x.exp() * 1.0001

    def cut(x: Tensor) -> Tensor:
        return x.detach().exp()

    def wrong(x: Tensor) -> Tensor:
        found: Tensor = Wrong.apply(x)  # type: ignore[no-untyped-call]
        return found

    assert compare_derivative("x", torch.exp, at, seed=0).verdict is Verdict.PASS
    for function in (cut, wrong, lambda x: (x + x.detach()).exp()):
        found = compare_derivative("x", function, at, seed=0)
        assert found.verdict is Verdict.FAIL
        assert "in a direction in which its slope is" in (found.message or "")


# --- the only place with a bound -------------------------------------------------------------------------------------

# Faults are wrong by a number on purpose; a family's numbers are its config's.
BOUNDS_MAY_STAND_IN = ("numerics.py", "perturbation.py", "faults/", "families/")
TOLERANCES = {"atol", "rtol", "allclose", "isclose", "assert_close", "assert_allclose"}
SMALL_NUMBER = re.compile(r"\d(\.\d*)?e-\d+|0\.0\d+")


def modules() -> list[Path]:
    root = Path(verifier.__file__).parent
    return sorted(path for path in root.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(Path(verifier.__file__).parent).as_posix()


def tolerances(path: Path) -> Iterator[str]:
    """Each place in a module where a tolerance stands."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        word = {ast.Name: "id", ast.Attribute: "attr", ast.keyword: "arg", ast.arg: "arg"}.get(type(node))
        if word is not None and getattr(node, word) in TOLERANCES:
            yield f"{relative(path)}:{getattr(node, 'lineno', '?')}: {getattr(node, word)}"
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and 0 < abs(node.value) < 0.01:
            written = ast.get_source_segment(source, node) or ""
            if SMALL_NUMBER.fullmatch(written) and not relative(path).startswith(BOUNDS_MAY_STAND_IN):
                yield f"{relative(path)}:{node.lineno}: {written}"


def test_no_other_module_has_a_tolerance() -> None:
    found = [place for path in modules() for place in tolerances(path)]
    assert len(modules()) > 100
    assert found == []


def test_the_bounds_are_no_absolute_numbers_either() -> None:
    source = Path(numerics.__file__).read_text()
    numbers = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and type(node.value) is float
    ]
    assert all(number == 0.0 or number >= 0.5 for number in numbers)


def test_a_failure_is_believed_only_beyond_the_noise_of_many_runs() -> None:
    asked = []

    def again() -> float:
        asked.append(True)
        return 4.0

    truth = torch.zeros(10_000, dtype=torch.float64)
    judge = precision_judge(1.0, again)
    assert judge.compare("x", truth + 0.9, truth).verdict is Verdict.PASS
    assert not asked  # most results are within the noise of one
    assert judge.compare("x", truth + 3.9, truth).verdict is Verdict.PASS
    found = judge.compare("x", truth + 4.2, truth)
    assert (found.verdict, len(asked)) == (Verdict.FAIL, 2)
    assert found.bound == pytest.approx(4.0 * (1 + SMALL_SAMPLE_FACTOR / 100))


def test_the_noise_of_many_runs_never_lowers_the_bound() -> None:
    truth = torch.zeros(10_000, dtype=torch.float64)
    found = precision_judge(1.0, lambda: 0.5).compare("x", truth + 1.2, truth)
    assert found.bound == pytest.approx(1 + SMALL_SAMPLE_FACTOR / 100)
