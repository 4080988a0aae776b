"""What Hugging Face said of configs, kept on disk by version of transformers and who was asked. Imports no torch.

A file has an answer on each line: `{"config": {…}, "reason": null}`, or the reason why the config is refused. Of two
answers about one config the later one counts.

What is kept can be asked for again, so no trouble with it ends a run:

- An answer is appended in one write, under a lock: any number of processes may write.
- A line that cannot be read, such as one that a kill cut short, is passed over. Each answer starts a line of its own.
- A file that cannot be read holds no answer. One that cannot be written keeps none: this process remembers its answers,
  and another one asks again.
- A file that has become too large is begun anew.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.metadata
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from verifier.family import Config, Family
from verifier.judging.outcome import canonical_json, short_id
from verifier.reference.declared import DeclaredFamily
from verifier.system.cache_folder import cache_folder
from verifier.system.files import read_file

MOST_BYTES = 2**25  # a hundred thousand answers; a family's matrix has some hundred
_FOLDER = "accepted-configs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Whether Hugging Face accepts a config.

    Attributes:
        known: whether that is known.
        reason: why it is refused, in one line; None where it is accepted, or nothing is known.
    """

    known: bool = True
    reason: str | None = None


ACCEPTED, UNKNOWN = Acceptance(), Acceptance(known=False)

_memory: dict[tuple[Path | None, str], dict[str, Acceptance]] = {}  # by file and architecture, then by config


class _Line(msgspec.Struct, frozen=True):
    config: dict[str, Any]
    reason: str | None


_read_line = msgspec.json.Decoder(_Line).decode


def asked_by(family: Family) -> str:
    """Name who is asked about a family's configs: HF's class, with the family's attention implementation.

    A family that builds its models itself is named too, by its code: what it does there, HF may accept or not.

    Args:
        family: whose configs they are.
    """
    build = getattr(family.build, "__func__", None)
    own = "" if build is DeclaredFamily.build else f"-{_mark_of(build or family.build)}"
    return f"{family.architecture}-{family.reference_attention}{own}"


@functools.cache
def _mark_of(function: Callable[..., Any]) -> str:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # made without a file
        source = repr(getattr(function, "__code__", function))
    return short_id([function.__module__, function.__qualname__, source])


@functools.cache
def _version() -> str:
    return importlib.metadata.version("transformers")


def find_answer(asked: str, config: Config) -> Acceptance:
    """Find what Hugging Face said of a config.

    Args:
        asked: who is asked, as `asked_by` says.
        config: the flags and dims of the model.

    Returns:
        The answer; `UNKNOWN` where none is kept.

    Raises:
        TypeError, ValueError: the config holds what JSON cannot spell.
    """
    return _remembered(asked).get(canonical_json(dict(config)), UNKNOWN)


def keep_answer(asked: str, config: Config, answer: Acceptance, *, on_disk: bool = True) -> None:
    """Remember what Hugging Face said of a config in this process, and keep it for others.

    Args:
        asked: who is asked, as `asked_by` says.
        config: the flags and dims of the model.
        answer: what is known.
        on_disk: whether other processes may rely on it.
    """
    spelled = canonical_json(dict(config))
    _remembered(asked)[spelled] = answer
    path = answers_file(asked)
    if on_disk and path is not None:
        # A line is begun and ended here, whatever the file ends in.
        _append(path, f'\n{{"config":{spelled},"reason":{json.dumps(answer.reason)}}}\n'.encode())


def answers_file(asked: str) -> Path | None:
    """Name the file of answers under the installed transformers; None where there is no folder."""
    folder = cache_folder()
    if folder is None:
        return None
    return folder / _FOLDER / f"transformers-{_version()}" / f"{asked}.jsonl"


def forget_answers() -> None:
    """Forget what this process remembers: the files are read again."""
    _memory.clear()


def _remembered(asked: str) -> dict[str, Acceptance]:
    path = answers_file(asked)
    if (path, asked) not in _memory:
        _memory[path, asked] = {} if path is None else _read(path)
    return _memory[path, asked]


def _read(path: Path) -> dict[str, Acceptance]:
    """Read every answer in a file; none where it cannot be read."""
    try:
        lines = read_file(path, most=2 * MOST_BYTES).splitlines()
    except OSError:
        return {}
    answers: dict[str, Acceptance] = {}
    for line in filter(None, lines):
        try:
            found = _read_line(line)
            answers[canonical_json(found.config)] = Acceptance(reason=found.reason)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return answers


def _append(path: Path, line: bytes) -> None:
    """Append a line to a file, whole; nothing is written where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY, 0o644)
    except OSError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_size > MOST_BYTES:
            os.ftruncate(file, 0)
        os.write(file, line)
    except OSError:  # the disk is full, or the file is none
        return
    finally:
        os.close(file)
