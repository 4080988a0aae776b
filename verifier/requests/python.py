"""Make a request of what `verifier.run` and `parametrize_with_checks` are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from verifier import adapter as adapters
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.output.text import value as as_text
from verifier.requests import configuration
from verifier.requests.option import Door
from verifier.requests.request import RunRequest, options


class PythonOptions(TypedDict, total=False):
    """The types of the options that Python has; `RunRequest` says what each means, and a test holds the two equal."""

    only: str | Sequence[str]
    where: str | Sequence[str] | Mapping[str, Any]
    preset: str | None
    checkpoint: str | None
    everywhere: bool
    quick: bool
    dtypes: Sequence[str]
    device: str
    seed: int
    workers: int | None
    baseline: str | Path | None
    gate: Sequence[str]
    timeout: float | str | None
    memory: int | str | None
    isolation: bool | None


def python_request(family: str, adapter: object, given: Mapping[str, Any]) -> RunRequest:
    """Make the request of what was given from Python.

    Args:
        family: the family's name.
        adapter: a registered name, `module:object`, a class, or the adapter itself, which then runs in this process;
            None for the configured one.
        given: `PythonOptions`; an option that is None is not given.

    Raises:
        UsageError: an argument is wrong.
    """
    known = options(Door.PYTHON)
    values: dict[str, Any] = {"family": family}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"there is no option {name!r}{nearest(name, tuple(known))}")
        if name == "where" and isinstance(value, Mapping):
            value = tuple(f"{flag}={as_text(wanted)}" for flag, wanted in value.items())
        if value is not None:
            values[name] = read_option(name, value)
    if adapter is None:
        adapter = configuration.read(Path.cwd()).adapter
    if not isinstance(adapter, str):
        if values.setdefault("isolation", False):
            raise UsageError("an adapter object runs in this process; name it as 'module:object' to have it isolated")
        adapter = adapters.register_instance(adapter)
    return RunRequest(**values, adapters=(adapter,))


def read_option(name: str, value: Any) -> Any:
    """Turn what was given for a field into the request's value.

    Args:
        name: of the field.
        value: what was given.

    Raises:
        UsageError: the value is of another type.
    """
    try:
        return options()[name].read(value)
    except UsageError as error:
        raise UsageError(f"{name} {error}") from error


def describe_options() -> str:
    """Describe the options that Python has, each in a line, for a docstring."""
    return "\n".join(f"        {name}: {option.help_for(Door.PYTHON)}" for name, option in options(Door.PYTHON).items())
