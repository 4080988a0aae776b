"""A case as people and rules speak of it: its config, and what of that the plainest config has not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verifier.cases.spec import CaseSpec
from verifier.record.lines import RunLine


def same_value(one: Any, other: Any) -> bool:
    """Whether they are the same value of a config: 1 is not True."""
    return type(one) is type(other) and bool(one == other)


def described(spec: CaseSpec) -> dict[str, Any]:
    """What a rule may speak of: the config, and what the case is run with."""
    of_the_run = {"batch": spec.batch, "length": spec.length, "dtypes": list(spec.dtypes), "device": spec.device}
    return {**{name: value for name, value in of_the_run.items() if name not in spec.config}, **spec.config}


def plainest(run: RunLine) -> dict[str, Any]:
    """The config that others are described by their difference from."""
    return {**run.dims, **{name: values[0] for name, values in run.flags.items()}}


def difference(config: Mapping[str, Any], run: RunLine) -> dict[str, Any]:
    """What the config has that the plainest one has not."""
    plain = plainest(run)
    return {name: value for name, value in config.items() if name not in plain or not same_value(plain[name], value)}
