"""How two tensors are judged; the only place with a bound.

No bound here is absolute. An error is an rms over what is defined of a tensor, and it is held against the noise of
the reference itself at that place. In a float64 run (*semantics*) the noise is what float32 does to the reference, in
float64's units; in a working dtype (*precision*) it is HF's own error in that dtype, and its error when every result
is moved by a unit in the last place (`perturbation`). The dtype's unit is always part of it, so that a lucky zero does
not fail a right adapter. The parts are combined as the root of their squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verifier.canonical import LOGIT_AXES
from verifier.judging.comparison import from_condition, record_mismatch
from verifier.judging.outcome import Finding, NotApplicable, Verdict

# How many times the noise an adapter may be off in a float64 run. A right one is off by 0.3 to 1 (other orders of
# summation, unfused attention); the smallest wrong one that we know, float32 rounding somewhere, by some 10^5.
SEMANTICS_MARGIN = 16.0
# A unit of float32, in units of float64.
_SINGLE_UNITS = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
# How many times the noise in a working dtype. The perturbation, of a whole unit after every operation, is already
# several times what rounding does: a right adapter has a fifth of it.
PRECISION_MARGIN = 1.0
# A noise that was measured once, on few numbers, is known less well, and so is the error that is held against it: on n
# numbers each wanders by a part in the root of 2n. The bound grows by this many parts in the root of n, four of its
# deviations: by a hundredth for a matrix, by a third for a vector of 72, and twofold for a bias of six.
SMALL_SAMPLE_FACTOR = 3.0
# The same of gradients, whose numbers are less independent: one token before a norm with little to divide by is in all
# of them. The worst float32 gradient of a right adapter in five hundred random cases has 0.7 of the bound with this.
SMALL_SAMPLE_FACTOR_OF_GRADIENTS = 8.0


def rms(values: Tensor, defined: Tensor | None = None) -> float:
    """The root mean square over what is defined; 0 where nothing is.

    Args:
        values: `[batch, …]`, or a scalar.
        defined: broadcasts to `values`; None where everything is.
    """
    return _rms(values, defined, _count(values, defined))


def _rms(values: Tensor, defined: Tensor | None, count: int) -> float:
    """The same, where it is known how many of them are defined: dozens of thousands are asked for in a run."""
    seen = values.detach().to(torch.float64)
    if defined is not None and count < seen.numel():
        # What is not defined may be no number, so it is filled in and not multiplied away.
        seen = seen.masked_fill(~defined, 0.0)
    return float(torch.linalg.vector_norm(seen)) / math.sqrt(count) if count else 0.0


def _count(values: Tensor, defined: Tensor | None) -> int:
    """How many of the values are defined; `defined` broadcasts to them."""
    if defined is None:
        return values.numel()
    return int(defined.count_nonzero()) * (values.numel() // max(1, defined.numel()))


def unit(truth: Tensor, dtype: torch.dtype, defined: Tensor | None = None) -> float:
    """The dtype's unit at the tensor's scale."""
    return rms(truth, defined) * torch.finfo(dtype).eps


def measured_noise(
    truth: Tensor,
    own: Tensor | None,
    moved: Iterable[Tensor],
    dtype: torch.dtype,
    defined: Tensor | None = None,
) -> float:
    """The reference's noise at one place: the root of the squares of its parts, each an rms in the tensor's own units.

    Args:
        truth: what float64 makes of the same weights.
        own: what the reference gave in the dtype; None in float64, which is the truth.
        moved: what it gave with every result moved by a unit in the last place; of several runs the farthest counts.
        dtype: whose unit, at the tensor's scale, is the last part.
        defined: broadcasts to `truth`; None where everything is.
    """
    error = 0.0 if own is None else rms(own.double() - truth, defined)
    farthest = max(rms(one.double() - truth, defined) for one in moved)
    return math.hypot(error, farthest, unit(truth, dtype, defined))


def working_noise(
    truth: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    moved: Iterable[Mapping[str, Tensor]],
    dtype: torch.dtype,
    defined: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """By name: the noise of tensors in a working dtype.

    Args:
        truth: what float64 makes of the same weights.
        own: what the reference gave in the dtype.
        moved: the same, perturbed; of several the farthest counts, and one is held at a time.
        dtype: the dtype.
        defined: broadcasts to `truth`; everything is where it has no such name.
    """
    known = defined or {}
    farthest = dict.fromkeys(truth, 0.0)
    for one in moved:
        for name, true in truth.items():
            farthest[name] = max(farthest[name], rms(one[name].double() - true, known.get(name)))
    return {
        name: math.hypot(
            rms(own[name].double() - true, known.get(name)), farthest[name], unit(true, dtype, known.get(name))
        )
        for name, true in truth.items()
    }


def noise_from_float32(truth: Tensor, single: Tensor, defined: Tensor | None = None) -> float:
    """The float64 noise of a tensor, from what float32 made of the same computation.

    It is float32's own error, weights rounded too, in float64's units, and at least a unit. Where very many tensors
    are judged at once it stands for the perturbation, which costs many times as much, and sees the same: what is
    ill-conditioned is noisier in both.
    """
    rough, count = single.double(), _count(truth, defined)
    # What is equal is so although it may be no number (a masked score is minus infinity).
    error = (rough - truth).masked_fill(rough == truth, 0.0)
    scale = _rms(truth, defined, count) * torch.finfo(torch.float64).eps
    return math.hypot(_rms(error, defined, count) / _SINGLE_UNITS, scale)


def row_noise(truth: Tensor, single: Tensor) -> Tensor:
    """`[row]`: the same of each row, `[row, …]` both."""
    error = (single.double() - truth).square().flatten(1).mean(1).sqrt() / _SINGLE_UNITS
    scale = truth.square().flatten(1).mean(1).sqrt() * torch.finfo(torch.float64).eps
    return torch.hypot(error, scale)


def moved_rows(values: Tensor, base: Tensor, noise: float) -> Tensor:
    """`[row]`: in which rows of a float64 run the values `[row, …]` are not those of `base`, which broadcasts to them.

    What is equal is so although it may be no number (a masked score is minus infinity). That a change is there must be
    as sure as that a difference is one, so the margin is the same.
    """
    difference = (values - base).masked_fill(values == base, 0.0).nan_to_num(nan=math.inf)
    return difference.square().flatten(1).mean(1).sqrt() > SEMANTICS_MARGIN * noise


Bound = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Holds errors against noise.

    Attributes:
        noise: of the run's own dtype.
        margin: how many times it.
        small_sample_factor: the bound grows by this over the root of how many numbers are compared.
        reduced: the noise of float32, for what agrees only so far; asked for when it is needed. None in a precision
            run, where there is nothing between right and wrong.
        resampled_noise: the noise over many perturbations, measured only for an error beyond the noise of one.
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
        """Judge what the adapter gave at one place.

        Args:
            where: the place, for people and fingerprints.
            actual: what the adapter gave.
            truth: what it must be.
            defined: broadcasts to `truth`; what is not defined is not compared.
            rows: what each row of the batch shows; the worst one's goes into the message.
            axes: what the axes are, for whoever watches; those of the place in the vocabulary if not given.

        Raises:
            NotApplicable: nothing is defined, or the reference itself is not finite.
        """
        if not math.isfinite(self.noise):
            raise NotApplicable("HF's own result is not finite here")
        count = _count(truth, defined)
        if defined is not None and not count:
            raise NotApplicable("nothing is defined here")
        wrong = _unfit(actual, truth)
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
        elif self.resampled_noise is not None:
            # One perturbation alone wanders; what is a failure must be beyond the farthest of many.
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

    def compare_choices(self, where: str, actual: Tensor, truth: Tensor, logits: Tensor) -> Finding:
        """Judge greedily chosen tokens by how far behind HF's own choice HF's logits put them.

        A tie within the noise may go either way. After the first token of a row that differs the row is another text,
        and not compared.

        Args:
            where: the place, for people and fingerprints.
            actual: the adapter's `[batch, step]`.
            truth: HF's `[batch, step]`.
            logits: `[batch, step, d_vocab]`, by which HF chose.
        """
        differs = actual != truth
        first = differs & (differs.cumsum(1) == 1)
        inside = (actual >= 0) & (actual < logits.shape[-1])
        scores, tokens = logits.to(torch.float64), actual.masked_fill(~inside, 0)
        given = scores.gather(-1, tokens[..., None])[..., 0].masked_fill(~inside, -math.inf)
        behind = (scores.gather(-1, truth[..., None])[..., 0] - given).masked_fill(~first, 0.0)
        found = self.compare(where, behind.amax(), torch.zeros((), dtype=torch.float64))
        if found.verdict is Verdict.PASS:
            return found
        row, step = divmod(int(behind.argmax()), truth.shape[1])
        words = (
            f"{int(differs.any(1).sum())} of {len(truth)} rows go on otherwise: in row {row} the new token {step} is "
            f"{int(actual[row, step])}, not {int(truth[row, step])}, which HF's logits put ahead by "
            f"{float(behind.amax()):.1e}"
        )
        return replace(found, message=words)


def _worst_row(difference: Tensor, defined: Tensor | None, rows: Sequence[str]) -> str | None:
    if not rows:
        return None
    difference = difference.nan_to_num(nan=math.inf)
    shown = None if defined is None else defined.expand_as(difference)
    errors = [rms(row, None if shown is None else shown[number]) for number, row in enumerate(difference)]
    return rows[max(range(len(errors)), key=errors.__getitem__)]


def float64_judge(noise: float, single: Bound | None = None) -> Judge:
    """Judges a float64 run.

    Args:
        noise: the reference's noise in float64.
        single: its noise in float32; where it is not measured, the float64 noise in float32's units.
    """
    return Judge(noise=noise, margin=SEMANTICS_MARGIN, reduced=single or (lambda: noise * _SINGLE_UNITS))


def precision_judge(noise: float, resampled_noise: Bound | None = None) -> Judge:
    """Judges a run in a working dtype by HF's noise in it, before a failure is believed by that of many runs."""
    return Judge(
        noise=noise, margin=PRECISION_MARGIN, small_sample_factor=SMALL_SAMPLE_FACTOR, resampled_noise=resampled_noise
    )


def gradient_judge(noise: float, resampled_noise: Bound | None = None) -> Judge:
    """Judges gradients in a working dtype by the noise of HF's, before a failure is believed by that of many runs."""
    return Judge(
        noise=noise,
        margin=PRECISION_MARGIN,
        small_sample_factor=SMALL_SAMPLE_FACTOR_OF_GRADIENTS,
        resampled_noise=resampled_noise,
    )


def position_noise(errors: Sequence[Tensor], real: Tensor, *, least: float) -> Tensor:
    """`[pos]`: the noise of logits at each position, over the rows in which a token stands there.

    Args:
        errors: the reference's own and under the perturbation, `[batch, pos, d_vocab]` each.
        real: `[batch, pos, 1]`, true where a token stands.
        least: the noise over all positions: that of one position is measured on few numbers, and may be luckily small.
    """
    squares = sum((error.double().square() for error in errors), torch.zeros(()))
    assert isinstance(squares, Tensor)
    shown = real.expand_as(squares)
    summed = squares.masked_fill(~shown, 0.0).sum((0, 2))
    return (summed / shown.sum((0, 2)).clamp(min=1)).sqrt().clamp(min=least)


def compare_positions(
    where: str,
    actual: object,
    truth: Tensor,
    noise: Tensor,
    *,
    defined: Tensor,
    width: int,
    resampled_noise: Callable[[], Tensor] | None = None,
) -> Finding:
    """Judge logits in a working dtype position by position: one wrong one is lost in the rms over all of them.

    Args:
        where: the place, for people and fingerprints.
        actual: `[batch, pos, d_vocab]`, what the adapter gave.
        truth: what they must be.
        noise: `[pos]`.
        defined: `[batch, pos, 1]`, which are compared.
        width: of the stream that the logits are read from: how many numbers a row of them really is.
        resampled_noise: the noise over many perturbations, `[pos]`, for what is beyond that of one.

    Raises:
        NotApplicable: nothing is defined.
    """
    wrong = _unfit(actual, truth)
    if wrong is not None:
        return _bounded(where, math.inf, 0.0, wrong)
    rows = defined.sum((0, 2))  # [pos]
    if not bool(rows.any()):
        raise NotApplicable("nothing is defined here")
    assert isinstance(actual, Tensor)
    difference = (actual.detach().to(truth.device, torch.float64) - truth.double()).nan_to_num(nan=math.inf)
    errors = difference.square().mean(2, keepdim=True).masked_fill(~defined, 0.0).sum((0, 2)) / rows.clamp(min=1)
    # The worst of k positions wanders farther than one of them: by another root of 2 log k deviations.
    few = SMALL_SAMPLE_FACTOR + math.sqrt(2 * math.log(len(rows)))
    bounds = PRECISION_MARGIN * noise * (1 + few / (rows.clamp(min=1) * min(width, truth.shape[2])).sqrt())
    ratios = (errors.sqrt() / bounds).masked_fill(rows == 0, 0.0)
    worst = int(ratios.argmax())
    error, bound = float(errors[worst].sqrt()), float(bounds[worst])
    if error > bound and resampled_noise is not None:
        farthest = torch.maximum(noise, resampled_noise())
        return compare_positions(where, actual, truth, farthest, defined=defined, width=width)
    if error > bound:
        record_mismatch(where, actual, truth, defined, LOGIT_AXES, bound=bound)
    return _bounded(where, error, bound, _in_words(error, bound, f"position {worst}"))


def compare_noise_floor(where: str, double: float, single: float) -> Finding:
    """Whether what passes in float64, by this noise, is less than what float32 alone explains."""
    return _bounded(where, SEMANTICS_MARGIN * double, single, f"the reference moves by {double:.1e} (rms) in float64")


def _bounded(where: str, error: float, bound: float, message: str) -> Finding:
    """What passes within the bound, and says this beyond it."""
    passes = error <= bound
    return Finding(
        where=where,
        verdict=Verdict.PASS if passes else Verdict.FAIL,
        measured=error,
        bound=bound,
        message=None if passes else message,
    )


def _unfit(actual: object, truth: Tensor) -> str | None:
    if not isinstance(actual, Tensor):
        return f"it is {type(actual).__name__}, not a tensor"
    if actual.shape != truth.shape:
        return f"its shape is {list(actual.shape)}, not {list(truth.shape)}"
    return None


def _in_words(error: float, bound: float, row: str | None) -> str:
    where = f", most in {row}" if row else ""
    return (
        f"not finite{where}" if error == math.inf else f"off by {error:.1e} (rms){where}; right is within {bound:.1e}"
    )


def compare_bitwise(where: str, actual: object, truth: Tensor) -> Finding:
    """Bit for bit: shape, dtype and every value."""
    wrong = _unfit(actual, truth)
    if wrong is None:
        assert isinstance(actual, Tensor)
        given = actual.detach().to(truth.device)
        if given.dtype != truth.dtype:
            wrong = f"its dtype is {given.dtype}, not {truth.dtype}"
        else:
            # Read as integers, so that a NaN equals itself and nothing else, and -0 is not 0.
            differing = int((_bits(given) != _bits(truth.detach())).sum())
            if differing:
                record_mismatch(where, given, truth, bound=0.0)
            wrong = f"{differing} of {truth.numel()} values differ" if differing else None
    return from_condition(where, wrong)


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()]) if tensor.is_floating_point() else tensor


def compare_derivative(where: str, function: Callable[[Tensor], Tensor], at: Tensor, *, seed: int) -> Finding:
    """Whether what autograd says of a function there is what finite differences say, in one random direction.

    As `torch.autograd.gradcheck` in its fast mode has it, but held against the differences' own error: twice the step
    tells what the step costs, and rounding costs what float64's unit is over the step.

    Args:
        where: the place, for people and fingerprints.
        function: of a float64 tensor, giving one.
        at: where it is looked at.
        seed: of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    start = at.detach().clone().requires_grad_()
    value = function(start)
    along, to = (torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.device) for one in (value, at))
    said = 0.0
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, start, along, allow_unused=True)
        said = 0.0 if gradient is None else float((gradient * to).sum())

    def slope(step: float) -> float:
        moved = function(at + step * to) - function(at - step * to)
        return float((moved.detach() * along).sum()) / (2 * step)

    eps = torch.finfo(torch.float64).eps
    step = eps ** (1 / 3) * rms(at)  # where both errors are about the same
    found = slope(step)
    noise = math.hypot(found - slope(2 * step), rms(value) * eps * math.sqrt(value.numel()) / step)
    error, bound = abs(said - found), SEMANTICS_MARGIN * noise
    words = f"its gradient is {said:.6g} in a direction in which its slope is {found:.6g}"
    return _bounded(where, error, bound, words)
