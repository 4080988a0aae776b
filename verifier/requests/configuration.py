"""Read the settings of a project, in `[tool.verifier]` of its `pyproject.toml` or in `verifier.toml`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verifier.adapter import DEFAULT
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.requests.option import Door, Option
from verifier.requests.request import options
from verifier.system.files import parse_toml, read_file

SHARED, OWN = "pyproject.toml", "verifier.toml"


def known_keys() -> Mapping[str, Option]:
    """List the options that the file may set, by their key."""
    return {option.key: option for option in options().values() if option.example}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The settings of a project; without a file there are none.

    Attributes:
        file: the file with the settings.
        settings: the values by key, as a `RunRequest` has them; paths lead from the folder that was asked about.
    """

    file: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The references of the adapters to use if none is given."""
        adapters: tuple[str, ...] = self.settings.get("adapter", (DEFAULT,))
        return adapters

    @property
    def adapter(self) -> str:
        """The reference of the adapter to use if none is given and only one is wanted.

        Raises:
            UsageError: the file names several.
        """
        if len(self.adapters) > 1:
            raise UsageError(f"{self.file} names {len(self.adapters)} adapters, and here one is wanted: give --adapter")
        return self.adapters[0]

    def complete(self, given: Mapping[str, Any], door: Door) -> dict[str, Any]:
        """Fill the fields of a request that were not given with the settings that the door takes.

        This is the only place where a setting meets an option. What was given wins, also over a setting that does not
        go with it: a selection of cases, or a seed, beside a file of cases; a limit if no process can be ended.

        Args:
            given: the fields of a `RunRequest` that were given.
            door: where they were given.

        Returns:
            The given fields and the settings, with the keys of the settings as `configured`.

        Raises:
            UsageError: the file names several adapters, and the door takes one.
        """
        in_process = given.get("isolation") is False or given.get("pdb")
        outranked = {
            "where": any(given.get(name) for name in ("preset", "checkpoint", "cases")),
            "seed": given.get("cases") is not None,
            "baseline": given.get("no_baseline"),
            **dict.fromkeys(("workers", "timeout", "memory"), in_process),
        }
        values, used = dict(given), []
        for key, option in known_keys().items():
            if not option.is_configured(door) or option.name in given or outranked.get(key):
                continue
            if key == "adapter":
                values[option.name] = self.adapters if option.is_repeated(door) else (self.adapter,)
            elif key in self.settings:
                values[option.name] = self.settings[key]
            used += [key] if key in self.settings else []
        return {**values, "configured": tuple(used)}

    def blame(self, error: UsageError, used: Sequence[str]) -> UsageError:
        """Add the file's name to an error that a setting caused.

        Args:
            error: the error.
            used: the keys of the settings that were used.
        """

        def is_named(key: str) -> bool:
            setting = self.settings[key]
            values = setting if isinstance(setting, tuple) else (setting,)
            return re.search(rf"--{key}\b", str(error)) is not None or any(
                repr(str(value)) in str(error) for value in values
            )

        names = " and ".join(f"`{key}`" for key in used if is_named(key))
        return UsageError(f"{error} ({names} in {self.file})") if names else error


def read(folder: Path) -> Configuration:
    """Read the configuration of the nearest file that has one, in the folder or above it.

    Raises:
        UsageError: a file is not TOML, a key or a value in it is wrong, or a folder has two such files.
    """
    for place in (folder, *folder.parents):
        files = {path: settings for path in (place / SHARED, place / OWN) if (settings := _read(path, folder))}
        if len(files) > 1:
            raise UsageError(
                f"both {place / SHARED} and {place / OWN} configure verifier: leave it to one of them, and take "
                f"[tool.verifier] out of {SHARED} or remove {OWN}"
            )
        for path, settings in files.items():
            return Configuration(file=path, settings=settings)
    return Configuration()


def _read(path: Path, folder: Path) -> dict[str, Any]:
    """Read the settings in a file; without the file there are none."""
    if not os.path.lexists(path):
        return {}
    try:
        section: Any = parse_toml(read_file(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    inside = ""
    if path.name == SHARED:
        section, inside = section.get("tool", {}), " in [tool.verifier]"
        section = section.get("verifier", {}) if isinstance(section, dict) else {}
    if not isinstance(section, dict):
        raise UsageError(f"{path}: `tool.verifier` must be a table, which begins with [tool.verifier]")
    return {key: _read_setting(path, inside, key, value, folder) for key, value in section.items()}


def _read_setting(path: Path, inside: str, key: str, value: Any, folder: Path) -> Any:
    option = known_keys().get(key)
    if option is None:
        hint = nearest(key, tuple(known_keys())) or f"; the keys are {', '.join(known_keys())}"
        if key == "tool" and not inside:
            hint = f"; in {OWN} the keys stand at the top, without [tool.verifier]"
        raise UsageError(f"{path}: {inside.removeprefix(' in ') or 'it'} has an unknown key {key!r}{hint}")
    try:
        if option.is_list and isinstance(value, str) and not option.unlisted:
            raise UsageError(f"must be a list, not {value!r}")
        setting = option.read(value)
        if option.unlisted and not setting:
            raise UsageError("must name one, or several in a list")
    except UsageError as error:
        raise UsageError(f"{path}: `{key}`{inside} {error}; for example {option.example}") from error
    try:
        return _from_folder(setting, path.parent, folder)
    except RuntimeError as error:  # the home of a user that does not exist
        raise UsageError(f"{path}: `{key}`{inside}: {error}") from error


def _from_folder(setting: Any, start: Path, folder: Path) -> Any:
    """Make the paths of a setting, which lead from the folder of the file, lead from another folder."""
    if isinstance(setting, tuple):
        return tuple(_from_folder(one, start, folder) for one in setting)
    return Path(os.path.relpath(start / setting.expanduser(), folder)) if isinstance(setting, Path) else setting
