"""What a project says of itself in `[tool.verifier]` of its `pyproject.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from verifier.adapter import DEFAULT
from verifier.errors import UsageError
from verifier.plugins import nearest

FILE = "pyproject.toml"
_KEYS = ("adapter",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The settings, with the defaults where there is no file.

    Attributes:
        adapter: the reference that `--adapter` stands for where it is not given.
    """

    adapter: str = DEFAULT


def read(folder: Path) -> Configuration:
    """The configuration of the nearest `pyproject.toml` at or above the folder.

    Raises:
        UsageError: the file is not TOML, or its section holds what is not known.
    """
    for place in (folder, *folder.parents):
        path = place / FILE
        if path.is_file():
            return _parse(path)
    return Configuration()


def _parse(path: Path) -> Configuration:
    try:
        section = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("verifier", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(section, dict):
        raise UsageError(f"{path}: `tool.verifier` is no table")
    for key in section:
        if key not in _KEYS:
            raise UsageError(f"{path}: [tool.verifier] has an unknown key {key!r}{nearest(key, _KEYS)}")
    adapter = section.get("adapter", DEFAULT)
    if not isinstance(adapter, str):
        raise UsageError(f'{path}: `adapter` in [tool.verifier] is no text; write adapter = "name"')
    return Configuration(adapter=adapter)
