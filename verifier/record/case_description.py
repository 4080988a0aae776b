"""Describe a case for people and rules: its config, and how it differs from the plainest one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verifier.cases.spec import CaseSpec
from verifier.record.lines import RunLine

# What explains nothing: the config stands for itself, HF's answer follows from it, and a name is only a name.
_NOT_DESCRIBED = frozenset({"family", "config", "valid", "reason", "label", "circumstances"})
# Numbers of which it means nothing that one is as large as a dim: the number of a draw, or a factor.
NO_SIZES = frozenset({"padding", "scale", "seed"})
# What says nothing of the model and its inputs: how closely a case is looked at, and which weights it happens to have.
LAST_NAMED = frozenset({"depth", "seed"})


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a config are the same: 1 is not True.

    Args:
        one: a value of a config.
        other: the value that it is compared with.
    """
    return type(one) is type(other) and bool(one == other)


def find_value(value: Any, values: Sequence[Any]) -> int | None:
    """The index of the first of the values that is the same; None where there is none.

    Args:
        value: what to look for.
        values: where to look for it.
    """
    return next((index for index, one in enumerate(values) if same_value(one, value)), None)


def describe_case(spec: CaseSpec) -> dict[str, Any]:
    """The names and values that a rule may use: the config, and everything that the case is run with."""
    of_the_case = {name: value for name, value in spec.to_json().items() if name not in _NOT_DESCRIBED}
    return {**of_the_case, **spec.config}


def plainest_config(run: RunLine) -> dict[str, Any]:
    """The plainest config of the run: every dim, and the first value of every flag."""
    return {**run.dims, **{name: values[0] for name, values in run.flags.items()}}


def config_difference(config: Mapping[str, Any], run: RunLine) -> dict[str, Any]:
    """The values of a config that are not those of the run's plainest one.

    Args:
        config: field → value.
        run: the run, whose flags and dims say what the plainest config is.
    """
    return differing_values(config, plainest_config(run))


def differing_values(config: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config that the plain one lacks, or has otherwise.

    Args:
        config: field → value.
        plain: the config that it is compared with: field → value.
    """
    return {name: value for name, value in config.items() if name not in plain or not same_value(plain[name], value)}
