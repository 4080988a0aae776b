"""The options of a command, as click has them: read off the fields of a request, or declared with what stands here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from verifier.errors import ExitStatus, UsageError
from verifier.output.text import nearest
from verifier.requests import configuration
from verifier.requests.option import FLAG, Door, Option
from verifier.requests.request import RunRequest, options

Command = Callable[..., ExitStatus]


class OneOf(click.Choice[str]):
    """A choice whose error names the nearest one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = [str(choice) for choice in self.choices]
        if value not in known:
            self.fail(f"{value!r} is none of {', '.join(known)}{nearest(str(value), known)}", param, ctx)
        return str(value)


class _Value(click.ParamType[Any]):
    """A value of an option of a request."""

    def __init__(self, option: Option) -> None:
        self.name = option.kind.metavar
        self._kind = option.kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value  # the default
        try:
            return self._kind.read(value, strict=False)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def request_options(door: Door) -> Callable[[Command], Command]:
    """Give a command the options of a door, and call it with the request.

    What is left out has the project's settings. The command's function is given the request, and its own options.

    Args:
        door: the command.
    """
    mine = options(door)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def called(**values: Any) -> ExitStatus:
            context = click.get_current_context()
            found = configuration.read(Path.cwd())
            given = {}
            for name, option in mine.items():
                value = values.pop(name)
                if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                    given[name] = value if option.is_repeated(door) or not option.is_list else (value,)
            completed = found.complete(given, door)
            if completed.get("family") is None:
                raise click.UsageError(
                    f"Missing argument 'FAMILY': `verifier {context.info_name} FAMILY`, or `family` in [tool.verifier] "
                    f"of pyproject.toml; `verifier list families` names them"
                )
            for name in ("dtypes", "seed", "device"):
                if name in given and given.get("cases") is not None:
                    raise click.UsageError(
                        f"--{mine[name].flag} says nothing here: each of --cases has its own; leave it out"
                    )
            try:
                return function(request=RunRequest(**completed), **values)
            except UsageError as error:
                raise found.blame(error, completed["configured"]) from error

        command: Command = called
        for option in reversed(tuple(mine.values())):
            command = request_option(option.name, door)(command)
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
    if option.name == "family":
        return click.argument("family", required=False)
    if option.kind is FLAG:
        switch = f"{flag}/--no-{option.flag}" if option.default else flag
        return click.option(
            switch,
            option.name,
            is_flag=True,
            default=option.default,
            show_default=option.default,
            help=option.help_for(door),
        )
    repeated = option.is_repeated(door)
    return click.option(
        flag,
        option.name,
        type=_Value(option),
        multiple=repeated,
        default=None if option.is_list else option.default,
        show_default=not option.is_list and option.default is not None,
        metavar=option.kind.metavar,
        help=option.help_for(door),
    )
