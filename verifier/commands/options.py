"""The options of a command, as click has them: read off the fields of a request, or declared with their type alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from verifier.errors import ExitStatus, UsageError
from verifier.requests import configuration
from verifier.requests.option import Door
from verifier.requests.request import RunRequest, options
from verifier.requests.values import FLAG, ValueType

Command = Callable[..., ExitStatus]


class TypedParameter(click.ParamType[Any]):
    """The type of an option or argument whose text is read as a value of a request is."""

    def __init__(self, type: ValueType) -> None:
        self.name = type.metavar
        self._type = type

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Turn the text of an option or argument into the value; anything else is a default, and stays as it is.

        Args:
            value: the text, or the default.
            param: the option or argument; None if it is not known.
            ctx: the context of the command; None if there is none.

        Returns:
            The value that a request has.

        Raises:
            click.BadParameter: the text is no value of the type.
        """
        if not isinstance(value, str):
            return value  # the default
        try:
            return self._type.read(value, strict=False)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def typed_option(*names: str, type: ValueType, **settings: Any) -> Callable[[Command], Command]:
    """Give a command an option that takes a value of this type.

    Args:
        names: as click has them: the flag, and the parameter's name if that is another one.
        type: of the value.
        settings: what `click.option` takes besides.
    """
    return click.option(*names, type=TypedParameter(type), metavar=type.metavar, **settings)


def request_options(door: Door) -> Callable[[Command], Command]:
    """Give a command the options of a door, and call it with the request.

    An option that is left out has the value of the project's configuration. The command's function is called with
    `request` and with its own options.

    Args:
        door: the command.
    """
    known = options(door)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def called(**values: Any) -> ExitStatus:
            context = click.get_current_context()
            settings = configuration.read(Path.cwd())
            given = {}
            for name, option in known.items():
                value = values.pop(name)
                if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                    given[name] = value if option.is_repeated(door) or not option.is_list else (value,)
            completed = settings.complete(given, door)
            if completed.get("family") is None:
                raise click.UsageError(
                    f"Missing argument 'FAMILY': `verifier {context.info_name} FAMILY`, or `family` in [tool.verifier] "
                    f"of pyproject.toml; `verifier list families` names them"
                )
            if given.get("pdb") and given.get("isolation"):
                raise click.UsageError(
                    "--pdb and --isolation contradict each other: the debugger stops in this very process; give one"
                )
            for name in ("dtypes", "seed", "device"):
                if name in given and given.get("cases") is not None:
                    raise click.UsageError(
                        f"--{known[name].flag} says nothing here: each of --cases has its own; leave it out"
                    )
            try:
                return function(request=RunRequest(**completed), **values)
            except UsageError as error:
                raise settings.blame(error, completed["configured"]) from error

        command: Command = called
        for name in reversed(list(known)):
            command = request_option(name, door)(command)
        return command

    return decorate


def request_option(name: str, door: Door) -> Callable[[Command], Command]:
    """Give a command the option of one field of a request, as a door has it.

    Args:
        name: of the field.
        door: the command whose help and default it has.
    """
    option = options(door)[name]
    flag = f"--{option.flag}"
    if name == "family":
        return click.argument("family", required=False)
    if option.type is FLAG:
        switch = f"{flag}/--no-{option.flag}" if option.default else flag
        return click.option(
            switch,
            name,
            is_flag=True,
            default=option.default,
            show_default=option.default,
            help=option.help_for(door),
        )
    return typed_option(
        flag,
        name,
        type=option.type,
        multiple=option.is_repeated(door),
        default=None if option.is_list else option.default,
        show_default=not option.is_list and option.default is not None,
        help=option.help_for(door),
    )
