"""What Hugging Face said of configs, kept on disk by version of transformers and architecture. Imports no torch.

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
import importlib.metadata
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from verifier.family import Config
from verifier.judging.outcome import canonical_json
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


def find_answer(architecture: str, config: Config) -> Acceptance:
    """Find what Hugging Face said of a config.

    Args:
        architecture: the name of HF's model class.
        config: the flags and dims of the model.

    Returns:
        The answer; `UNKNOWN` where none is kept.

    Raises:
        TypeError, ValueError: the config holds what JSON cannot spell.
    """
    return _remembered(architecture).get(canonical_json(dict(config)), UNKNOWN)


def keep_answer(architecture: str, config: Config, answer: Acceptance, *, on_disk: bool = True) -> None:
    """Remember what Hugging Face said of a config in this process, and keep it for others.

    Args:
        architecture: the name of HF's model class.
        config: the flags and dims of the model.
        answer: what is known.
        on_disk: whether other processes may rely on it.
    """
    spelled = canonical_json(dict(config))
    _remembered(architecture)[spelled] = answer
    path = answers_file(architecture)
    if on_disk and path is not None:
        # A line is begun and ended here, whatever the file ends in.
        _append(path, f'\n{{"config":{spelled},"reason":{json.dumps(answer.reason)}}}\n'.encode())


def answers_file(architecture: str) -> Path | None:
    """Name the file of an architecture's answers under the installed transformers; None where there is no folder."""
    folder = cache_folder()
    if folder is None:
        return None
    version = importlib.metadata.version("transformers")
    return folder / _FOLDER / f"transformers-{version}" / f"{architecture}.jsonl"


def forget_answers() -> None:
    """Forget what this process remembers: the files are read again."""
    _memory.clear()


def _remembered(architecture: str) -> dict[str, Acceptance]:
    path = answers_file(architecture)
    if (path, architecture) not in _memory:
        _memory[path, architecture] = {} if path is None else _read(path)
    return _memory[path, architecture]


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
