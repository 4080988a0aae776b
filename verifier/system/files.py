"""Read files that others wrote: nothing that is no file, nothing without an end, and nothing of an absurd size.

Everything that a user or another program wrote is opened and parsed here, so that no pipe is waited for and no device
is read for ever, and so that data is plain: finite numbers, whole numbers of 64 bits, and no more than `MOST_LEVELS`
of lists and objects in each other.
"""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 2**26  # a file that a person wrote has less by far
MOST_RECORD_BYTES = 2**32  # the largest runs write a tenth of it; all of it is held in memory
MOST_LEVELS = 64  # of lists and objects in each other; a record has six
_PIECE = 2**20
_MOST_DIGITS = len(str(2**63))

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading, and never wait for whoever might write to it.

    Raises:
        OSError: it cannot be opened, or is no file but a folder, a pipe, a socket or a device; `strerror` says which.
    """
    try:
        _require_file(os.stat(path), path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, "no file can have that name", str(path)) from error
    try:
        _require_file(os.fstat(descriptor), path)  # it may have become another one meanwhile
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        most: how many bytes it may have.

    Raises:
        OSError: it cannot be read, is no file, or is larger; `strerror` says which.
    """
    pieces, left = list[bytes](), most
    with open_file(path) as file:
        while piece := file.read(_PIECE):  # `read(most)` would set so much memory aside
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise OSError(errno.EFBIG, f"it is larger than {most // 2**20:,} MiB", str(path))
    return b"".join(pieces)


def parse_json(data: bytes) -> Any:
    """Parse JSON.

    Args:
        data: the text, in UTF-8.

    Raises:
        ValueError: it is none, or holds a number or a depth that nothing has; the message says what is wrong with it.
    """
    try:
        found = _DECODER.decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        place = f" (line {error.lineno} column {error.colno})" if error.lineno > 1 else ""
        raise ValueError(f"not JSON: {error.msg}{place}") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if data.count(b"[") + data.count(b"{") > MOST_LEVELS:
        _require_plain(found)
    return found


def parse_toml(data: bytes) -> dict[str, Any]:
    """Parse TOML.

    Args:
        data: the text, in UTF-8.

    Raises:
        ValueError: it is none, or holds a number or a depth that nothing has; the message says what is wrong with it.
    """
    try:
        found = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from error
    except ValueError as error:  # a whole number of thousands of digits, or a day that no month has
        raise ValueError(f"not TOML: {_describe_digits(str(error))}") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _require_plain(found)
    return found


_TOO_DEEP = f"nested too deep: more than {MOST_LEVELS} lists and objects in each other"


def _require_file(status: os.stat_result, path: Path) -> None:
    """Make sure that something is a file.

    Raises:
        OSError: it is something else.
    """
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'something else')}, and must be a file", str(path))


def _read_whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS and len(digits.lstrip("-")) > _MOST_DIGITS:
        raise ValueError(f"not JSON that can be read: a whole number of {len(digits.lstrip('-')):,} digits")
    return int(digits)


def _read_real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"not JSON that can be read: {reprlib.repr(digits)} is beyond every number")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"not JSON: {name} is no number there")


_DECODER = json.JSONDecoder(parse_int=_read_whole, parse_float=_read_real, parse_constant=_refuse_constant)


def _describe_digits(message: str) -> str:
    """Leave out of Python's words for a number that is too long what only a programmer can do about it."""
    return message.partition("; use sys.")[0]


def _require_plain(found: Any) -> None:
    """Make sure that parsed data is not nested too deep, and that its whole numbers have 64 bits.

    Raises:
        ValueError: they are not.
    """
    level = [found]
    for _ in range(MOST_LEVELS + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, int) and one.bit_length() > 64:
                raise ValueError(f"a whole number of {one.bit_length()} bits is beyond what anything can be")
        if not inner:
            return
        level = inner
    raise ValueError(_TOO_DEEP)
