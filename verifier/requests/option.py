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
    """Where a request comes from: a command that takes options, a call from Python, or pytest's command line."""

    RUN = enum.auto()
    FUZZ = enum.auto()
    SELFTEST = enum.auto()
    DOCTOR = enum.auto()
    PYTHON = enum.auto()
    PYTEST = enum.auto()


NOWHERE = Door(0)
ONE_ADAPTER = Door.FUZZ | Door.SELFTEST | Door.PYTHON | Door.PYTEST
"""The doors in which one adapter is put under test, and so one baseline is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One thing that can be asked for.

    Attributes:
        type: how a value is written; of a list, how each of its values is.
        doors: which doors have it.
        example: how the configuration has it; empty where it is no key of that.
        unconfigured: the doors that do not take what the configuration has.
        single: of a list, the doors in which it has one value.
        unlisted: whether the configuration may have a text in the place of a list of one.
        spelled: its name on command lines and in the configuration, where it is not the field's.
        recorded: whether a record keeps it as `asked`.
        name: the field's name.
        default: the field's default.
        help: what it means.
        helps: what it means in a door where that differs.
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
        """Its name in the configuration and in a record."""
        return self.spelled or self.name

    @property
    def flag(self) -> str:
        """Its name on a command line, without the dashes."""
        return self.key.replace("_", "-")

    @property
    def pytest_name(self) -> str:
        """Its name in pytest's configuration."""
        return f"verifier_{self.key}"

    def help_for(self, door: Door) -> str:
        """What it means there."""
        return next((text for doors, text in self.helps.items() if door in doors), self.help)

    @property
    def is_list(self) -> bool:
        """Whether a request has several values of it."""
        return isinstance(self.default, tuple)

    def is_configured(self, door: Door) -> bool:
        """Whether the door takes what the configuration has where nothing is given."""
        takes = self.doors | Door.DOCTOR | Door.PYTEST  # these two have fewer options than they take settings
        return bool(self.example) and door in takes and door not in self.unconfigured

    def is_repeated(self, door: Door) -> bool:
        """Whether it can be given more than once there."""
        return self.is_list and door not in self.single

    def read(self, value: Any, *, strict: bool = True) -> Any:
        """The request's value of what was given; a text stands for a list of one.

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
    """Make a field of a request that can be asked for; `Option` says what its metadata mean."""
    return field(default=default, metadata={OPTION: Option(type=type, doors=doors, example=example, **more)})
