"""How one thing can be asked for: through which doors, with which type of value, and what it means."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verifier.errors import UsageError
from verifier.requests.values import ValueType


class Door(enum.Flag):
    """A place that requests come from: a command that takes options, a call from Python, or pytest's command line."""

    RUN = enum.auto()
    FUZZ = enum.auto()
    SELFTEST = enum.auto()
    DOCTOR = enum.auto()
    PYTHON = enum.auto()
    PYTEST = enum.auto()


NOWHERE = Door(0)
ONE_ADAPTER = Door.FUZZ | Door.SELFTEST | Door.PYTHON | Door.PYTEST
"""The doors that take one adapter, and so one baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One thing that can be asked for: a field of `RunRequest`.

    Attributes:
        type: the type of the value; of a list, of each of its values.
        doors: the doors that have the option.
        example: a line of the configuration that sets it; empty if the configuration cannot.
        unconfigured: the doors that do not take the setting of the configuration.
        single: of a list, the doors at which it has one value.
        unlisted: whether the configuration may have a text instead of a list of one.
        spelled: its name on command lines and in the configuration, if that is not the field's.
        recorded: whether a record keeps it as `asked`.
        name: the field's name.
        default: the field's default.
        help: what the option means.
        helps: what it means at a door where that differs.
    """

    type: ValueType
    doors: Door
    example: str = ""
    unconfigured: Door = NOWHERE
    single: Door = NOWHERE
    unlisted: bool = False
    spelled: str = ""
    recorded: bool = False
    name: str = ""
    default: Any = None
    help: str = ""
    helps: Mapping[Door, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The option's name in the configuration and in a record."""
        return self.spelled or self.name

    @property
    def flag(self) -> str:
        """The option's name on a command line, without the dashes."""
        return self.key.replace("_", "-")

    @property
    def pytest_name(self) -> str:
        """The option's name in pytest's configuration."""
        return f"verifier_{self.key}"

    def help_for(self, door: Door) -> str:
        """Say what the option means at a door."""
        return next((text for doors, text in self.helps.items() if door in doors), self.help)

    @property
    def is_list(self) -> bool:
        """Whether a request has several values of the option."""
        return isinstance(self.default, tuple)

    def is_configured(self, door: Door) -> bool:
        """Whether the door takes the setting of the configuration if nothing is given."""
        takes = self.doors | Door.DOCTOR | Door.PYTEST  # these two have fewer options than they take settings
        return bool(self.example) and door in takes and door not in self.unconfigured

    def is_repeated(self, door: Door) -> bool:
        """Whether the option can be given more than once at a door."""
        return self.is_list and door not in self.single

    def read(self, value: Any, *, strict: bool = True) -> Any:
        """Turn what was given into the request's value; a text stands for a list of one.

        Args:
            value: what was given, from a command line, a file or Python.
            strict: whether a number must be one, and not a text that spells one.

        Returns:
            The value; of a list, a tuple of its values.

        Raises:
            UsageError: the value is of another type; the message completes "it …".
        """
        if not self.is_list:
            return self.type.read(value, strict=strict)
        values = (value,) if isinstance(value, str | os.PathLike) else value
        if not isinstance(values, list | tuple):
            raise UsageError(f"must be a list, of which each is {self.type.words}, not {value!r}")
        return tuple(self.type.read(one, strict=strict) for one in values)


OPTION = "option"


def ask(default: Any, type: ValueType, doors: Door, example: str = "", **more: Any) -> Any:
    """Make a field of a request that can be asked for; `Option` says what its metadata mean.

    Args:
        default: the field's default; a tuple makes the option a list.
        type: the type of the value; of a list, of each of its values.
        doors: the doors that have the option.
        example: a line of the configuration that sets it; empty if the configuration cannot.
        more: further attributes of the `Option`.

    Returns:
        The field of a dataclass.
    """
    return field(default=default, metadata={OPTION: Option(type=type, doors=doors, example=example, **more)})
