"""Judge two tensors by measured noise; every bound of the harness is in this module.

Tolerances are measured, not chosen. An error is an rms over the defined elements of a tensor, and it is compared with
the noise of the reference at the same place. In a float64 run (*semantics*) the noise is the reference's error in
float32, scaled to float64's unit. In a working dtype (*precision*) it is HF's own error in that dtype, and its error
when every result is moved by a unit in the last place (`perturbation`). The dtype's unit is always part of the noise,
so that a lucky zero does not fail a right adapter. The parts are combined as the root of the sum of their squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verifier.judging.comparison import from_condition, record_mismatch
from verifier.judging.outcome import Finding, NotApplicable, Verdict

# The bound of a float64 run, in units of the noise. The error of a right adapter is 0.3 to 1 of it (another order of
# summation, unfused attention); the smallest error of a wrong one that we know, float32 rounding somewhere, some 10^5.
SEMANTICS_MARGIN = 16.0
# The unit of float32, in units of float64.
_SINGLE_UNITS = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
# The bound of a run in a working dtype, in units of the noise. The perturbation, a whole unit after every operation, is
# already several times as large as rounding: the error of a right adapter is a fifth of the noise.
PRECISION_MARGIN = 1.0
# An error this small, relative to the truth's rms, passes before any noise is measured: four thousand units of float64,
# and a hundred thousandth of what float32 rounding anywhere would make.
PASSES_AT_ONCE = 2.0**-40
# In a working dtype an error of at most so many of HF's own errors passes before the perturbation is run, which is
# several times as large as those.
OWN_ERRORS_THAT_PASS = 2.0
# Beyond so much of the truth's rms an error in float64 is no rounding, or float32 would not have a single right digit.
FAILS_AT_ONCE = 2.0**-7
# Beyond so many of HF's own errors, or units, one in a working dtype is none: the perturbation is several times these.
OWN_ERRORS_THAT_FAIL = 100.0
# The noise over many perturbations is at most a few times that of one: an error so many bounds away is none.
RESAMPLING_HELPS = 8.0
# A noise measured once, on few numbers, is uncertain, and so is the error compared with it: on n numbers each has a
# relative deviation of 1/sqrt(2n). The bound grows by this factor over sqrt(n), which is four deviations: by a
# hundredth for a matrix, by a third for a vector of 72, and to twice for a bias of six.
SMALL_SAMPLE_FACTOR = 3.0
# The small-sample factor of gradients, whose numbers are less independent: one token with a small norm is in all of
# them. With it the worst float32 gradient of a right adapter in five hundred random cases has 0.7 of the bound.
SMALL_SAMPLE_FACTOR_OF_GRADIENTS = 8.0


def rms(values: Tensor, defined: Tensor | None = None) -> float:
    """Compute the root mean square over the defined elements; 0 if none is defined.

    Args:
        values: `[batch, …]`, or a scalar.
        defined: broadcasts to `values`; None where every element is defined.
    """
    return _rms(values, defined, _count(values, defined))


def _rms(values: Tensor, defined: Tensor | None, count: int) -> float:
    """Compute the root mean square over `count` defined elements, which are counted once for many tensors."""
    seen = values.detach().to(torch.float64)
    if defined is not None and count < seen.numel():
        # An undefined element may be NaN, so it is replaced and not multiplied by 0.
        seen = seen.masked_fill(~defined, 0.0)
    return float(torch.linalg.vector_norm(seen)) / math.sqrt(count) if count else 0.0


def _count(values: Tensor, defined: Tensor | None) -> int:
    """Count the defined elements; `defined` broadcasts to the values."""
    if defined is None:
        return values.numel()
    return int(defined.count_nonzero()) * (values.numel() // max(1, defined.numel()))


def unit(truth: Tensor, dtype: torch.dtype, defined: Tensor | None = None) -> float:
    """Compute the dtype's unit in the last place at the scale of a tensor: its rms times the machine epsilon.

    Args:
        truth: the tensor whose scale counts.
        dtype: a floating-point dtype.
        defined: broadcasts to `truth`; None where every element is defined.
    """
    return rms(truth, defined) * torch.finfo(dtype).eps


def measured_noise(
    truth: Tensor,
    own: Tensor | None,
    moved: Iterable[Tensor],
    dtype: torch.dtype,
    defined: Tensor | None = None,
) -> float:
    """Measure the reference's noise at one place, an rms in the units of the tensor.

    Args:
        truth: the float64 result of the same weights.
        own: the reference's result in the dtype, of the same shape; None in float64, where it is the truth.
        moved: its results in perturbed runs, of the same shape; the one farthest from the truth counts.
        dtype: whose unit, at the tensor's scale, is part of the noise.
        defined: broadcasts to `truth`; None where every element is defined.
    """
    error = 0.0 if own is None else rms(own.double() - truth, defined)
    farthest = max(rms(one.double() - truth, defined) for one in moved)
    return math.hypot(error, farthest, unit(truth, dtype, defined))


def noise_from_float32(truth: Tensor, single: Tensor, defined: Tensor | None = None) -> float:
    """Estimate the float64 noise of a tensor from the same computation in float32.

    It is float32's error, with rounded weights, scaled to float64's unit, and at least that unit. It replaces the
    perturbation, which costs many times as much, where very many tensors are judged at once. An ill-conditioned
    computation is noisy in both.

    Args:
        truth: the float64 result.
        single: the float32 result, of the same shape.
        defined: broadcasts to `truth`; None where every element is defined.

    Returns:
        The noise, an rms in the units of the tensor.
    """
    rounded, count = single.double(), _count(truth, defined)
    # Equal elements have no error, minus infinity at a masked score too.
    error = (rounded - truth).masked_fill(rounded == truth, 0.0)
    scale = _rms(truth, defined, count) * torch.finfo(torch.float64).eps
    return math.hypot(_rms(error, defined, count) / _SINGLE_UNITS, scale)


def moved_rows(values: Tensor, base: Tensor, noise: float) -> Tensor:
    """Find the rows `[row]` of a float64 run in which values `[row, …]` differ from `base`, which broadcasts to them.

    Equal elements do not differ, minus infinity at a masked score included. The margin is that of `float64_judge`.

    Args:
        values: `[row, …]`, the results of a float64 run; whole numbers too.
        base: what they are compared with.
        noise: the float64 noise, an rms in the units of the values.

    Returns:
        `[row]`, bool, true where the rms of the row's difference is beyond the bound.
    """
    difference = (values - base).double().masked_fill(values == base, 0.0).nan_to_num(nan=math.inf)
    return difference.square().flatten(1).mean(1).sqrt() > SEMANTICS_MARGIN * noise


Bound = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Compares errors with noise.

    Attributes:
        noise: in the dtype of the run.
        margin: the bound in units of the noise.
        small_sample_factor: the bound grows by this factor over the root of the number of compared elements.
        reduced: measures the noise of float32, called only for an error beyond the bound: an error within it is
            `reduced`. None in a working dtype, where an error is either right or wrong.
        resampled_noise: measures the noise over many perturbations, called only for an error beyond the bound.
    """

    noise: float
    margin: float
    small_sample_factor: float = 0.0
    reduced: Bound | None = field(default=None, repr=False)
    resampled_noise: Bound | None = field(default=None, repr=False)

    def compare(
        self,
        where: str,
        actual: object,
        truth: Tensor,
        *,
        defined: Tensor | None = None,
        rows: Sequence[str] = (),
        axes: Sequence[str] = (),
    ) -> Finding:
        """Judge the adapter's tensor at one place.

        Args:
            where: the place, for people and fingerprints.
            actual: the adapter's result.
            truth: the right tensor.
            defined: broadcasts to `truth`; only defined elements are compared.
            rows: a name for each row of the batch; the message has that of the worst row.
            axes: the names of the axes, for evidence; those of the place in the canonical vocabulary if not given.

        Raises:
            NotApplicable: no element is defined, or the reference itself is not finite.
        """
        if not math.isfinite(self.noise):
            raise NotApplicable("HF's own result is not finite here")
        count = _count(truth, defined)
        if defined is not None and not count:
            raise NotApplicable("nothing is defined here")
        wrong = unfit(actual, truth)
        if wrong is not None:
            return _bounded(where, math.inf, 0.0, wrong)
        assert isinstance(actual, Tensor)
        difference = actual.detach().to(truth.device, torch.float64) - truth.to(torch.float64)
        error, bound = _rms(difference, defined, count), self.margin * self.noise
        if math.isnan(error):
            error = math.inf
        if self.small_sample_factor:
            bound *= 1 + self.small_sample_factor / math.sqrt(max(1, count))
        if error <= bound:
            verdict = Verdict.PASS
        elif self.resampled_noise is not None and error <= RESAMPLING_HELPS * bound:
            # One perturbation is uncertain: a failure must be beyond the largest of many.
            noise = max(self.noise, self.resampled_noise())
            return replace(self, noise=noise, resampled_noise=None).compare(
                where, actual, truth, defined=defined, rows=rows, axes=axes
            )
        elif self.reduced is not None and error <= self.margin * self.reduced():
            verdict = Verdict.REDUCED
        else:
            verdict = Verdict.FAIL
        if verdict is not Verdict.PASS:
            record_mismatch(where, actual, truth, defined, axes, bound=bound)
        return Finding(
            where=where,
            verdict=verdict,
            measured=error,
            bound=bound,
            message=None if verdict is Verdict.PASS else _in_words(error, bound, _worst_row(difference, defined, rows)),
        )


def _worst_row(difference: Tensor, defined: Tensor | None, rows: Sequence[str]) -> str | None:
    if not rows:
        return None
    difference = difference.nan_to_num(nan=math.inf)
    compared = None if defined is None else defined.expand_as(difference)
    errors = [rms(row, None if compared is None else compared[number]) for number, row in enumerate(difference)]
    return rows[max(range(len(errors)), key=errors.__getitem__)]


def float64_judge(noise: float, single: Bound | None = None) -> Judge:
    """Make the judge of a float64 run.

    Args:
        noise: the reference's noise in float64.
        single: measures its noise in float32; if not given, the float64 noise scaled to float32's unit is used.
    """
    return Judge(noise=noise, margin=SEMANTICS_MARGIN, reduced=single or (lambda: noise * _SINGLE_UNITS))


def precision_judge(
    noise: float, resampled_noise: Bound | None = None, *, small_sample_factor: float = SMALL_SAMPLE_FACTOR
) -> Judge:
    """Make the judge of a run in a working dtype.

    Args:
        noise: HF's noise in the dtype, measured with one perturbation.
        resampled_noise: measures it with many perturbations, before a failure is believed.
        small_sample_factor: as of `Judge`.
    """
    return Judge(
        noise=noise, margin=PRECISION_MARGIN, small_sample_factor=small_sample_factor, resampled_noise=resampled_noise
    )


def gradient_judge(noise: float, resampled_noise: Bound | None = None) -> Judge:
    """Make the judge of gradients in a working dtype; arguments as of `precision_judge`.

    Args:
        noise: HF's noise in the dtype, measured with one perturbation.
        resampled_noise: measures it with many perturbations, before a failure is believed.
    """
    return precision_judge(noise, resampled_noise, small_sample_factor=SMALL_SAMPLE_FACTOR_OF_GRADIENTS)


def judge_at_once(
    actual: Tensor,
    truth: Tensor,
    own: Tensor | None,
    dtype: torch.dtype,
    *,
    defined: Tensor | None = None,
    least: float = 0.0,
) -> bool | None:
    """Judge an error that is so small, or so large, that no further noise has to be measured to know what it is.

    Args:
        actual: the adapter's result.
        truth: the float64 result, of the same shape.
        own: the reference's result in a working dtype; None in float64, where it is the truth.
        dtype: the working dtype, or float64.
        defined: broadcasts to `truth`; only defined elements are compared.
        least: a noise that is known to be there, an rms in the units of the tensor.

    Returns:
        Whether it is noise; None where the noise has to be measured.
    """
    count = _count(truth, defined)
    error = _rms(actual.detach().double() - truth, defined, count)
    scale = _rms(truth, defined, count)
    if own is None:
        passes, fails = PASSES_AT_ONCE * scale, FAILS_AT_ONCE * scale
    else:
        theirs, unit_there = _rms(own.double() - truth, defined, count), scale * torch.finfo(dtype).eps
        passes = math.hypot(OWN_ERRORS_THAT_PASS * theirs, unit_there)
        fails = OWN_ERRORS_THAT_FAIL * math.hypot(theirs, unit_there)
    if error <= passes:
        return True
    return False if error > max(fails, OWN_ERRORS_THAT_FAIL * least) > 0 else None


def compare_noise_floor(where: str, double: float, single: float) -> Finding:
    """Judge whether the float64 bound at this noise is below the noise of float32, so that a pass means something.

    Args:
        where: the place, for people and fingerprints.
        double: the noise in float64, an rms in the units of the tensor.
        single: the noise in float32, an rms in the units of the tensor.
    """
    return _bounded(where, SEMANTICS_MARGIN * double, single, f"the reference moves by {double:.1e} (rms) in float64")


def _bounded(where: str, error: float, bound: float, message: str) -> Finding:
    """Make a finding that passes within the bound, and fails with the message beyond it."""
    passes = error <= bound
    return Finding(
        where=where,
        verdict=Verdict.PASS if passes else Verdict.FAIL,
        measured=error,
        bound=bound,
        message=None if passes else message,
    )


def unfit(actual: object, truth: Tensor) -> str | None:
    """Say why something cannot stand in the place of a real tensor, whatever its values; None if it can.

    It is asked before anything is cast: a cast drops an imaginary part, and makes numbers of truth values.

    Args:
        actual: what the adapter gives.
        truth: the right tensor.
    """
    if not isinstance(actual, Tensor):
        return f"it is {type(actual).__name__}, not a tensor"
    if actual.layout != truth.layout:
        return f"its layout is {actual.layout}, not {truth.layout}"
    if actual.shape != truth.shape:
        return f"its shape is {list(actual.shape)}, not {list(truth.shape)}"
    if actual.device.type != truth.device.type:
        return f"its device is {actual.device}, not {truth.device}"
    if _kind(actual) != _kind(truth):
        return f"its dtype is {actual.dtype}, which is {_kind(actual)} and not {_kind(truth)}"
    return None


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    if tensor.is_quantized:
        return "quantized"
    return "floating-point" if tensor.is_floating_point() else "discrete"


def _in_words(error: float, bound: float, row: str | None) -> str:
    where = f", most in {row}" if row else ""
    return (
        f"not finite{where}" if error == math.inf else f"off by {error:.1e} (rms){where}; right is within {bound:.1e}"
    )


def compare_bitwise(where: str, actual: object, truth: Tensor) -> Finding:
    """Compare shape, dtype and every value bit for bit.

    Args:
        where: the place, for people and fingerprints.
        actual: the adapter's result.
        truth: the right tensor.

    Returns:
        A finding that passes only where everything is equal; its message says what differs.
    """
    wrong = unfit(actual, truth)
    if wrong is None:
        assert isinstance(actual, Tensor)
        given = actual.detach().to(truth.device)
        if given.dtype != truth.dtype:
            wrong = f"its dtype is {given.dtype}, not {truth.dtype}"
        # Compared as integers, so that a NaN equals itself and nothing else, and -0 is not 0.
        elif differing := int((_bits(given) != _bits(truth.detach())).sum()):
            record_mismatch(where, given, truth, bound=0.0)
            wrong = f"{differing} of {truth.numel()} values differ"
    return from_condition(where, wrong)


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()]) if tensor.is_floating_point() else tensor


def compare_derivative(where: str, function: Callable[[Tensor], Tensor], at: Tensor, *, seed: int) -> Finding:
    """Compare a function's gradient with finite differences, in one random direction.

    It is `torch.autograd.gradcheck` in its fast mode, but with a measured bound: a step twice as long shows the error
    of the step, and rounding adds float64's unit divided by the step.

    Args:
        where: the place, for people and fingerprints.
        function: of a float64 tensor, giving one.
        at: the point at which they are compared.
        seed: of the random directions.
    """
    generator = torch.Generator().manual_seed(seed)
    start = at.detach().clone().requires_grad_()
    value = function(start)
    along, to = (torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.device) for one in (value, at))
    derivative = 0.0
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, start, along, allow_unused=True)
        derivative = 0.0 if gradient is None else float((gradient * to).sum())

    def slope(step: float) -> float:
        moved = function(at + step * to) - function(at - step * to)
        return float((moved.detach() * along).sum()) / (2 * step)

    eps = torch.finfo(torch.float64).eps
    step = eps ** (1 / 3) * rms(at)  # where the errors of the step and of rounding are about equal
    found = slope(step)
    noise = math.hypot(found - slope(2 * step), rms(value) * eps * math.sqrt(value.numel()) / step)
    error, bound = abs(derivative - found), SEMANTICS_MARGIN * noise
    words = f"its gradient is {derivative:.6g} in a direction in which its slope is {found:.6g}"
    return _bounded(where, error, bound, words)
