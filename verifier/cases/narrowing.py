"""Narrow the cases of a run to those that `--where` names, and to the circumstances that it names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from verifier.cases.circumstances import AXES, CONSTRAINTS, PLAIN, Circumstance, is_value
from verifier.cases.predicates import plainest_values
from verifier.cases.spec import CaseSpec
from verifier.errors import Inconclusive, UsageError
from verifier.family import Config, Family
from verifier.output.text import nearest
from verifier.system.files import parse_json

_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None, "null": None}


class Narrowing:
    """What `--where` asks for: values of fields of the configs, and values of axes of circumstances.

    A name that is both is the field.

    Args:
        family: of the cases.
        specs: every case of a run, of which some are chosen.
        where: the values, as text: `{"alibi": "true", "mask": "left"}`.

    Raises:
        UsageError: a name or a value is unknown, or the values of axes exclude each other.
    """

    def __init__(self, family: Family, specs: Sequence[CaseSpec], where: Mapping[str, str]) -> None:
        self._plainest = plainest_values(family.flags())
        settings = [self._settings(spec) for spec in specs]
        fields = {*family.flags(), *itertools.chain.from_iterable(settings)}
        self._fields = {name: _value(text) for name, text in where.items() if name in fields}
        self._axes = {name: text for name, text in where.items() if name not in fields}
        for name in self._axes.keys() - AXES.keys():
            hint = nearest(name, sorted({*fields, *AXES}))
            raise UsageError(f"--where: {family.name} has no flag, dim or axis {name!r}{hint}")
        _require_known_fields(settings, self._fields)
        _require_known_values(self._axes)

    def narrow(self, specs: Sequence[CaseSpec]) -> list[CaseSpec]:
        """Choose the cases with the values, and keep the circumstances of each that have the values.

        Raises:
            Inconclusive: none of the chosen cases has such a circumstance.
        """
        chosen = [spec for spec in specs if self._is_chosen(spec)]
        if not self._axes or not chosen:
            return chosen
        narrowed = [replace(spec, circumstances=tuple(filter(self._is_wanted, spec.circumstances))) for spec in chosen]
        if not any(spec.circumstances for spec in narrowed):
            asked = ",".join(f"{axis}={value}" for axis, value in self._axes.items())
            raise Inconclusive(f"no case of this run is looked at with {asked}; nothing ran")
        return narrowed

    def _is_chosen(self, spec: CaseSpec) -> bool:
        settings = self._settings(spec)
        return all(_has(settings, name, value) for name, value in self._fields.items())

    def _is_wanted(self, circumstance: Circumstance) -> bool:
        return all(circumstance.get(axis, PLAIN[axis]) == value for axis, value in self._axes.items())

    def _settings(self, spec: CaseSpec) -> Config:
        return {**self._plainest, **spec.config}


def _value(text: str) -> Any:
    """Read a value as it is typed on the command line; a text that is no JSON stands for itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return parse_json(text.encode())
    except ValueError:
        return text


def _word(value: Any) -> str:
    """Write a value as it is typed on the command line."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _has(settings: Config, name: str, value: Any) -> bool:
    """Whether a config has this very value; a field that it does not name has HF's default, which only HF knows."""
    return name in settings and type(settings[name]) is type(value) and bool(settings[name] == value)


def _require_known_fields(settings: Sequence[Config], wanted: Mapping[str, Any]) -> None:
    """Make sure that some config has the wanted value of each field.

    Raises:
        UsageError: none has.
    """
    for name, value in wanted.items():
        if not any(_has(config, name, value) for config in settings):
            values = sorted({_word(config.get(name)) for config in settings})
            raise UsageError(f"--where: no case has {name}={_word(value)}; it is one of {', '.join(values)}")


def _require_known_values(wanted: Mapping[str, str]) -> None:
    """Make sure that each axis has the wanted value, and that the values go together.

    Raises:
        UsageError: an axis has no such value, or a constraint excludes the values.
    """
    for axis, value in wanted.items():
        if not is_value(axis, value):
            hint = nearest(value, tuple(AXES[axis]))
            raise UsageError(f"--where: {axis} has no value {value!r}{hint}; it is one of {', '.join(AXES[axis])}")
    for constraint in CONSTRAINTS:
        if constraint.excludes(wanted):
            values = " and ".join(f"{axis}={wanted[axis]}" for axis in constraint.values)
            raise UsageError(f"--where: {values} do not go together: {constraint.reason}")
