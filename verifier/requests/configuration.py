"""What a project says of itself in `[tool.verifier]` of its `pyproject.toml`, or in `verifier.toml`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verifier.adapter import DEFAULT
from verifier.cases.spec import SEEDS
from verifier.errors import UsageError
from verifier.judging.outcome import Verdict
from verifier.output.text import nearest
from verifier.requests import measures

SHARED, OWN = "pyproject.toml", "verifier.toml"
GATES = tuple(str(verdict) for verdict in (Verdict.REDUCED, Verdict.UPSTREAM, Verdict.SKIP))
"""The verdicts that make an adapter not conform where that is asked for."""


class _Wrong(Exception):
    """What a value is not: `no text`."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _text(value: Any) -> str:
    if not _is_text(value):
        raise _Wrong("no text")
    text: str = value
    return text


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(map(_is_text, value)):
        raise _Wrong("no list of texts")
    return tuple(value)


def _text_or_texts(value: Any) -> tuple[str, ...]:
    try:
        several = (_text(value),) if isinstance(value, str) else _texts(value)
    except _Wrong:
        several = ()
    if not several:
        raise _Wrong("no text and no list of texts")
    return several


def _seed(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < SEEDS:
        raise _Wrong(f"no whole number from 0 to {SEEDS - 1}")
    return value


def _workers(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _Wrong("no whole number from 1")
    return value


def _measured(value: Any, read: Callable[[str], Any], measure: measures.Measure) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Wrong(f"no {measure.name}")
    try:
        return read(str(value))
    except UsageError as error:
        raise _Wrong(f"no {measure.name}") from error


def _gates(value: Any) -> tuple[str, ...]:
    try:
        return gates(_texts(value))
    except UsageError as error:
        raise _Wrong(f"no list of such words: {error}") from error


def gates(words: Sequence[str]) -> tuple[str, ...]:
    """The words, each once.

    Raises:
        UsageError: one is no verdict that can be made to gate.
    """
    for word in words:
        if word not in GATES:
            raise UsageError(f"gate {word!r} is none of {', '.join(GATES)}{nearest(word, GATES)}")
    return tuple(dict.fromkeys(words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that the file may have.

    Attributes:
        read: makes a setting of the value in the file.
        example: how it is written.
        is_path: whether its texts are paths, which the file gives from its own folder on.
    """

    read: Callable[[Any], Any]
    example: str
    is_path: bool = False


KEYS: Mapping[str, Key] = {
    "family": Key(read=_text, example='family = "name"'),
    "adapter": Key(read=_text_or_texts, example='adapter = "name" or adapter = ["name", "module:object"]'),
    "baseline": Key(read=_text_or_texts, example='baseline = "verifier-known.toml"', is_path=True),
    "only": Key(read=_texts, example='only = ["qkv", "weights.*"]'),
    "where": Key(read=_texts, example='where = ["flag=true"]'),
    "seed": Key(read=_seed, example="seed = 7"),
    "workers": Key(read=_workers, example="workers = 2"),
    "timeout": Key(
        read=lambda value: _measured(value, measures.duration, measures.DURATION), example='timeout = "90s"'
    ),
    "memory": Key(read=lambda value: _measured(value, measures.size, measures.SIZE), example='memory = "4G"'),
    "out": Key(read=_text, example='out = "reports"', is_path=True),
    "gate": Key(read=_gates, example='gate = ["reduced"]'),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the file says; nothing at all where there is none.

    Attributes:
        file: where it stands.
        settings: by key, as options take them: lists are tuples, durations seconds, sizes bytes; paths lead from the
            folder that was asked about.
    """

    file: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The references that `--adapter` stands for where it is not given."""
        adapters: tuple[str, ...] = self.settings.get("adapter", (DEFAULT,))
        return adapters

    @property
    def adapter(self) -> str:
        """The same, where one adapter is wanted.

        Raises:
            UsageError: the file names several.
        """
        if len(self.adapters) > 1:
            raise UsageError(f"{self.file} names {len(self.adapters)} adapters, and here one is wanted: give --adapter")
        return self.adapters[0]


def read(folder: Path) -> Configuration:
    """The configuration in the nearest file at or above the folder that has any.

    Raises:
        UsageError: a file is not TOML, holds what is not known, or stands beside another one.
    """
    for place in (folder, *folder.parents):
        found = {path: settings for path in (place / SHARED, place / OWN) if (settings := _read(path, folder))}
        if len(found) > 1:
            raise UsageError(
                f"both {place / SHARED} and {place / OWN} configure verifier: leave it to one of them, and take "
                f"[tool.verifier] out of {SHARED} or remove {OWN}"
            )
        for path, settings in found.items():
            return Configuration(file=path, settings=settings)
    return Configuration()


def _read(path: Path, folder: Path) -> dict[str, Any]:
    """The settings in the file, nothing where it is not there."""
    if not path.is_file():
        return {}
    try:
        section: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    inside = ""
    if path.name == SHARED:
        section, inside = section.get("tool", {}), " in [tool.verifier]"
        section = section.get("verifier", {}) if isinstance(section, dict) else {}
    if not isinstance(section, dict):
        raise UsageError(f"{path}: `tool.verifier` is no table; it begins with [tool.verifier]")
    return {name: _setting(path, inside, name, value, folder) for name, value in section.items()}


def _setting(path: Path, inside: str, name: str, value: Any, folder: Path) -> Any:
    if name not in KEYS:
        where = f"{inside.removeprefix(' in ')} has an unknown key" if inside else "it has an unknown key"
        if name == "tool" and not inside:
            hint = f"; in {OWN} the keys stand at the top, without [tool.verifier]"
        else:
            hint = nearest(name, tuple(KEYS)) or f"; the keys are {', '.join(KEYS)}"
        raise UsageError(f"{path}: {where} {name!r}{hint}")
    key = KEYS[name]
    try:
        setting = key.read(value)
    except _Wrong as wrong:
        raise UsageError(f"{path}: `{name}`{inside} is {wrong}; write {key.example}") from wrong
    if not key.is_path:
        return setting
    try:
        paths = [Path(os.path.relpath(path.parent / Path(one).expanduser(), folder)) for one in _listed(setting)]
    except RuntimeError as error:  # a home of a user that there is not
        raise UsageError(f"{path}: `{name}`{inside}: {error}") from error
    return paths[0] if isinstance(setting, str) else tuple(paths)


def _listed(setting: Any) -> Sequence[Any]:
    return setting if isinstance(setting, tuple) else (setting,)


def fill(options: Mapping[str, Any], given: Set[str], found: Configuration) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A command's options, those that were not given as the configuration has them; and the keys that it was asked for.

    This is the one place where a setting meets an option. What is on the command line wins, also over a setting that
    goes with it no more: a narrowing of the matrix, or its seed, where the cases are named, a limit where no process
    can be ended.

    Args:
        options: by name; those that a command does not have are not filled.
        given: the names of those that stand on the command line.
        found: the configuration.

    Raises:
        UsageError: the file names several adapters, and the command takes one.
    """
    outranked = {
        "where": any(options.get(name) for name in ("preset", "checkpoint", "cases")),
        "seed": options.get("cases") is not None,
        "baseline": bool(options.get("no_baseline")),
        **dict.fromkeys(("workers", "timeout", "memory"), options.get("isolation") is False or options.get("pdb")),
    }
    filled, used = dict(options), []
    for name in KEYS:
        option = "adapters" if name == "adapter" and "adapters" in options else name
        if option not in options or option in given or outranked.get(name):
            continue
        if name == "adapter":
            filled[option] = found.adapters if option == "adapters" else found.adapter
        elif name in found.settings:
            filled[option] = found.settings[name]
        used += [name] if name in found.settings else []
    return filled, tuple(used)


def blamed(error: UsageError, found: Configuration, used: Sequence[str]) -> UsageError:
    """The error, with the file's name where what it complains of stands there."""

    def speaks_of(name: str) -> bool:
        return re.search(rf"--{name}\b", str(error)) is not None or any(
            repr(str(one)) in str(error) for one in _listed(found.settings[name])
        )

    names = " and ".join(f"`{name}`" for name in used if speaks_of(name))
    return UsageError(f"{error} ({names} in {found.file})") if names else error
