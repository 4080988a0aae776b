"""A case as plain data: what crosses processes and files, and its id."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from verifier.cases.circumstances import AXES, is_value
from verifier.errors import UsageError, one_line
from verifier.judging.outcome import short_id
from verifier.output.text import nearest
from verifier.output.validation import convert

SEMANTIC_DTYPE, SINGLE = "float64", "float32"  # what semantics are judged in, and what only `reduced` agrees to
WORKING_DTYPES = ("float32", "bfloat16", "float16")
SEEDS = 2**32  # as many as torch's generators take
_LARGEST = 2**31  # of rows, positions and every dim of a config; more are no tensor's
SHORTEST = 6  # positions in which every way of padding leaves a token

_RANGES: Mapping[str, range] = {
    "batch": range(1, _LARGEST),
    "length": range(SHORTEST, _LARGEST),
    "long": range(1, _LARGEST),
    "padding": range(SEEDS),
    "seed": range(SEEDS),
}

# Fields that do not count for the id where they have these values, so that a case keeps the id that it always had.
_ADDED: Mapping[str, Any] = {"checkpoint": None, "attention": None, "padding": 0, "scale": 1.0}


class Depth(StrEnum):
    """Which checks run on a valid case: each depth includes the checks of the depths before it.

    Records and cases of an earlier version name the depths otherwise; the enumeration takes those names too.
    """

    ALL = "all"
    """The checks that run on all valid cases."""
    PAIRWISE = "pairwise"
    """Also the checks that run on a pairwise covering of the flags."""
    SAMPLED = "sampled"
    """Also the checks that are so expensive that they run on a few sampled cases."""

    @classmethod
    def _missing_(cls, value: object) -> Depth | None:
        return _DEPTHS_BY_WORD.get(value)

    def includes(self, other: Depth) -> bool:
        """Whether the checks of another depth run on a case of this one."""
        order = tuple(Depth)
        return order.index(self) >= order.index(other)


_DEPTHS_BY_WORD: Mapping[object, Depth] = {
    **{str(depth): depth for depth in Depth},
    **dict(zip(("valid", "spread", "thorough"), Depth, strict=True)),  # as earlier versions write them
}


class Scenario(StrEnum):
    """The inputs that a case is tried on, each one way of calling a model; `cases.inputs` makes them."""

    PLAIN = "plain"
    PADDED = "padded"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSpec:
    """One config of a family with a seed of weights and the sizes of its inputs; it names no adapter.

    Attributes:
        family: the family's reference, as on the command line.
        config: flags and dims as HF's config names them.
        valid: whether HF accepts it, as far as is known; see `reference.acceptance`.
        reason: why HF refuses it, where it does.
        label: the name of a corner, preset or checkpoint; None for a case of the flag matrix.
        seed: of the weights and the inputs.
        batch: rows of the inputs.
        length: positions of the inputs.
        long: positions of the one long input.
        dtypes: the working dtypes in which precision is judged.
        device: where the case runs.
        checkpoint: the folder with the weights; None for random weights.
        attention: HF's attention implementation of the model that the adapter is given; None for the family's right
            one. The reference has the right one always.
        padding: which masks the padded inputs have: 0 for a row of each way of padding, else the number of a draw.
        scale: a factor of every weight matrix. It changes how peaked attention is, and how large activations are.
        depth: which checks run on the case.
        circumstances: in which the case is looked at, each as what is not plain in it, by axis.
    """

    family: str
    config: Mapping[str, Any]
    valid: bool = True
    reason: str | None = None
    label: str | None = None
    seed: int = 0
    batch: int = 5
    length: int = 11
    long: int = 97
    dtypes: tuple[str, ...] = field(default=WORKING_DTYPES)
    device: str = "cpu"
    checkpoint: str | None = None
    attention: str | None = None
    padding: int = 0
    scale: float = 1.0
    depth: Depth = Depth.ALL
    circumstances: tuple[Mapping[str, str], ...] = ()
    _id: str | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_id", None)  # whoever reads a file sets every field that it names
        for name, allowed in _RANGES.items():
            value = getattr(self, name)
            if value not in allowed:
                span = f"from {allowed[0]} to {allowed[-1]}"
                raise UsageError(f"a case's `{name}` must be a whole number {span}, not {reprlib.repr(value)}")
        _require_numbers(self.config)
        try:
            object.__setattr__(self, "depth", Depth(self.depth))
        except ValueError as error:
            raise UsageError(
                f"a case's `depth` must be one of {', '.join(Depth)}, not {reprlib.repr(self.depth)}"
            ) from error
        for name in self.dtypes:
            if name not in WORKING_DTYPES:
                known = ", ".join(WORKING_DTYPES)
                hint = nearest(name, WORKING_DTYPES)
                raise UsageError(f"a case's `dtypes` must be of {known}, not {reprlib.repr(name)}{hint}")
        for circumstance in self.circumstances:
            _require_axes(circumstance)
        if not 0 < self.scale <= sys.float_info.max:
            raise UsageError(f"a case's `scale` must be a number above 0, not {self.scale!r}")

    @property
    def is_pairwise(self) -> bool:
        """Whether the checks that apply to a pairwise covering of the flags run on this case."""
        return self.depth.includes(Depth.PAIRWISE)

    @property
    def is_sampled(self) -> bool:
        """Whether every check runs on this case."""
        return self.depth.includes(Depth.SAMPLED)

    @property
    def id(self) -> str:
        """The short id of the case, the same wherever it is shown.

        The label, the validity, the depth and the circumstances do not count.
        """
        if self._id is None:  # it is asked for with each outcome
            spelt = {
                key: value
                for key, value in self.to_json().items()
                if key not in ("label", "valid", "reason", "depth", "circumstances")
                and not (key in _ADDED and value == _ADDED[key])
            }
            object.__setattr__(self, "_id", short_id(spelt))
        assert self._id is not None
        return self._id

    def accepted_by(self, refusal: Callable[[Mapping[str, Any]], str | None]) -> CaseSpec:
        """Mark the case valid or refused, as this version of the family says.

        Raises:
            UsageError: the family cannot say; its config may be like none that the family knows.
        """
        reason = find_refusal(refusal, self.config)
        return replace(self, valid=reason is None, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """Write the case as plain data, which `from_json` reads."""
        data = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        circumstances = data.pop("circumstances")
        data |= {"config": dict(self.config), "dtypes": list(self.dtypes), "depth": str(self.depth)}
        # A case without any is written as it always was.
        return data | ({"circumstances": [dict(one) for one in circumstances]} if circumstances else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaseSpec:
        """Read a case from plain data as `to_json` writes it; keys that no case has are ignored.

        Raises:
            UsageError: the family or the config is missing, or a field is of another type or holds what no case has.
        """
        return convert(data, cls, of="a case")


def _require_numbers(config: Mapping[str, Any]) -> None:
    """Make sure that a config holds no number that no model can have: JSON cannot spell it, or no tensor is as large.

    Raises:
        UsageError: it holds one.
    """
    for name, value in config.items():
        inner = [value]
        while inner:
            one = inner.pop()
            if isinstance(one, Mapping):
                inner += one.values()
            elif isinstance(one, list | tuple):
                inner += one
            elif isinstance(one, float) and not math.isfinite(one):
                raise UsageError(f"a config's {reprlib.repr(name)} cannot be {one}")
            elif isinstance(one, int) and abs(one) >= _LARGEST:
                raise UsageError(f"a config's {reprlib.repr(name)} cannot be {one:,}: no tensor is as large")


def _require_axes(circumstance: Mapping[str, str]) -> None:
    """Make sure that a circumstance has axes and values that there are.

    Raises:
        UsageError: an axis or a value is unknown.
    """
    for axis, value in circumstance.items():
        if axis not in AXES:
            raise UsageError(f"a circumstance has no axis {reprlib.repr(axis)}{nearest(axis, tuple(AXES))}")
        if not is_value(axis, value):
            known = ", ".join(AXES[axis])
            raise UsageError(f"a circumstance's `{axis}` must be one of {known}, not {reprlib.repr(value)}")


def find_refusal(refusal: Callable[[Mapping[str, Any]], str | None], config: Mapping[str, Any]) -> str | None:
    """Ask a family why Hugging Face refuses a config, which somebody else may have written.

    Args:
        refusal: the family's.
        config: the config.

    Returns:
        The reason; None if Hugging Face accepts the config.

    Raises:
        UsageError: the family cannot say.
    """
    try:
        return refusal(config)
    except Exception as error:  # nothing is known of what the config holds
        raise UsageError(f"the family cannot say whether Hugging Face accepts a config: {one_line(error)}") from error


def named_depth(applies: str) -> Depth | None:
    """Find the depth that a check's `checks.Applies` names; None if the check runs on refused cases.

    Args:
        applies: the word, as this or an earlier version writes it.
    """
    return _DEPTHS_BY_WORD.get(applies)


def applies_to(applies: str, spec: CaseSpec) -> bool:
    """Whether a check with this `checks.Applies`, as this or an earlier version writes it, runs on the case.

    Args:
        applies: the word of the check.
        spec: the case.
    """
    depth = named_depth(applies)
    if depth is None:
        return applies == "always" or not spec.valid
    return spec.valid and spec.depth.includes(depth)
