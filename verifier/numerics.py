"""How two tensors are judged; the only place with a bound.

No bound here is absolute. An error is an rms over what is defined of a tensor, for each row of the batch, and it is
held against the noise of the reference itself at that place. In a float64 run (*semantics*) the noise is the
reference's error when every result is moved by a unit in the last place (`perturbation`); in a working dtype
(*precision*) HF's own error in that dtype counts too. The dtype's unit is always part of it, so that a lucky zero
does not fail a right adapter. The three are combined as the root of their squares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verifier.outcome import Finding, NotApplicable, Verdict

# How many times the noise an adapter may be off in a float64 run. A right one is off by 0.3 to 1 (other orders of
# summation, unfused attention); the smallest wrong one that we know, float32 rounding somewhere, by some 10^5.
SEMANTICS_MARGIN = 4.0
# How many times the noise in a working dtype. The perturbation, of a whole unit after every operation, is already
# several times what rounding does: a right adapter has a fifth of it.
PRECISION_MARGIN = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The reference's noise at one place, an rms for each row of the batch, `[batch]` (or a scalar's, `[1]`).

    Attributes:
        own: its error in that dtype; zero in float64, which is the truth.
        perturbed: its error with every result moved by a unit in the last place.
        unit: the dtype's unit at the tensor's scale.
    """

    own: Tensor
    perturbed: Tensor
    unit: Tensor

    @property
    def total(self) -> Tensor:
        """The root of the squares, `[batch]`."""
        return (self.own.square() + self.perturbed.square() + self.unit.square()).sqrt()


def rms(values: Tensor, defined: Tensor | None = None) -> Tensor:
    """The root mean square in each row, `[batch]`, over what is defined; of a scalar, `[1]`.

    Args:
        values: `[batch, …]`, or a scalar.
        defined: broadcasts to `values`; None where everything is. A row with nothing defined is 0.
    """
    values = values.to(torch.float64)
    if values.ndim == 0:
        return values.abs().reshape(1)
    squares = values.square()
    if defined is None:
        return squares.flatten(1).mean(-1) ** 0.5
    defined = defined.expand_as(squares)
    count = defined.flatten(1).sum(-1)
    return (squares.masked_fill(~defined, 0.0).flatten(1).sum(-1) / count.clamp(min=1)) ** 0.5


def unit(truth: Tensor, dtype: torch.dtype, defined: Tensor | None = None) -> Tensor:
    """The dtype's unit at the tensor's scale, `[batch]`."""
    return rms(truth, defined) * torch.finfo(dtype).eps


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One place, judged."""

    where: str
    verdict: Verdict
    measured: float
    bound: float
    message: str | None = None

    @property
    def ratio(self) -> float:
        """Error over bound."""
        return self.measured / self.bound if self.bound else float("inf") if self.measured else 0.0


Bound = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Holds errors against noise.

    Attributes:
        noise: `[batch]`, of the run's own dtype.
        margin: how many times it.
        reduced: the noise of float32, for what agrees only so far; asked for when it is needed. None in a precision
            run, where there is nothing between right and wrong.
    """

    noise: Tensor
    margin: float
    reduced: Bound | None = field(default=None, repr=False)

    def compare(
        self,
        where: str,
        actual: object,
        truth: Tensor,
        *,
        defined: Tensor | None = None,
        rows: Sequence[str] = (),
    ) -> Comparison:
        """Judge what the adapter gave at one place; the worst row of the batch speaks for it.

        Args:
            where: the place, for people and fingerprints.
            actual: what the adapter gave.
            truth: what it must be.
            defined: broadcasts to `truth`; what is not defined is not compared.
            rows: what each row shows; the worst one's goes into the message.
        """
        wrong = _unfit(actual, truth)
        if wrong is not None:
            return Comparison(where=where, verdict=Verdict.FAIL, measured=float("inf"), bound=0.0, message=wrong)
        assert isinstance(actual, Tensor)
        difference = actual.detach().to(truth.device, torch.float64) - truth.to(torch.float64)
        error = rms(difference.nan_to_num(nan=float("inf")), defined)
        bound = self.margin * self.noise
        if self.reduced is not None and bool((error > bound).any()):
            wide = torch.maximum(self.margin * self.reduced(), bound)
            verdict = Verdict.FAIL if bool((error > wide).any()) else Verdict.REDUCED
        else:
            verdict = Verdict.FAIL if bool((error > bound).any()) else Verdict.PASS
        worst = int((error / bound.clamp(min=torch.finfo(torch.float64).tiny)).argmax())
        return Comparison(
            where=where,
            verdict=verdict,
            measured=float(error[worst]),
            bound=float(bound[worst]),
            message=_in_words(verdict, float(error[worst]), float(bound[worst]), rows, worst),
        )


def semantics(noise: Tensor, single: Bound | None = None) -> Judge:
    """Judges a float64 run.

    Args:
        noise: the reference's noise in float64, `[batch]`.
        single: its noise in float32; where it is not measured, the float64 noise in float32's units.
    """
    units = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    return Judge(noise=noise, margin=SEMANTICS_MARGIN, reduced=single or (lambda: noise * units))


def precision(noise: Tensor) -> Judge:
    """Judges a run in a working dtype by HF's noise in it, `[batch]`."""
    return Judge(noise=noise, margin=PRECISION_MARGIN)


def steady(where: str, double: Tensor, single: Tensor) -> Comparison:
    """Whether what passes in float64, by this noise `[batch]`, is less than what float32 alone explains."""
    zero = torch.zeros_like(double)[:, None]
    return Judge(noise=single, margin=1.0).compare(where, SEMANTICS_MARGIN * double[:, None], zero)


def _unfit(actual: object, truth: Tensor) -> str | None:
    if not isinstance(actual, Tensor):
        return f"it is {type(actual).__name__}, not a tensor"
    if actual.shape != truth.shape:
        return f"its shape is {list(actual.shape)}, not {list(truth.shape)}"
    return None


def _in_words(verdict: Verdict, measured: float, bound: float, rows: Sequence[str], worst: int) -> str | None:
    if verdict is Verdict.PASS:
        return None
    row = f" in {rows[worst]}" if rows else ""
    if measured == float("inf"):
        return f"not finite{row}"
    return f"off by {measured:.1e} (rms){row}; right is within {bound:.1e}"


def same(where: str, actual: object, truth: Tensor) -> Comparison:
    """Bit for bit: shape, dtype and every value (two NaNs are the same)."""
    wrong = _unfit(actual, truth)
    if wrong is None:
        assert isinstance(actual, Tensor)
        given = actual.detach().to(truth.device)
        if given.dtype != truth.dtype:
            wrong = f"its dtype is {given.dtype}, not {truth.dtype}"
        elif not torch.equal(given.nan_to_num(), truth.detach().nan_to_num()):
            differing = int((given != truth).sum())
            wrong = f"{differing} of {truth.numel()} values differ"
    return stated(where, wrong)


def stated(where: str, wrong: str | None) -> Comparison:
    """What is either so or not: `wrong` says how it is not."""
    verdict = Verdict.PASS if wrong is None else Verdict.FAIL
    return Comparison(where=where, verdict=verdict, measured=0.0 if wrong is None else 1.0, bound=0.0, message=wrong)


_WORST_FIRST = (Verdict.FAIL, Verdict.UPSTREAM, Verdict.REDUCED)


def conclude(comparisons: Iterable[Comparison]) -> Finding:
    """The finding of a check that made these comparisons, in causal order: the first of the worst kind is named.

    Raises:
        NotApplicable: nothing was compared; that proves nothing.
    """
    made = list(comparisons)
    if not made:
        raise NotApplicable("there is nothing to compare")
    for verdict in _WORST_FIRST:
        for one in made:
            if one.verdict is verdict:
                others = sum(other.verdict is verdict for other in made) - 1
                more = f" ({others} more places)" if others else ""
                return Finding(
                    verdict=verdict,
                    measured=one.measured,
                    bound=one.bound,
                    where=one.where,
                    message=f"{one.message}{more}" if one.message else None,
                )
    nearest = max(made, key=lambda one: one.ratio if one.bound else 0.0)
    return Finding(measured=nearest.measured, bound=nearest.bound)
