"""Lock a record's folder, so that one run writes into it at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from verifier.errors import UsageError
from verifier.system.files import read_file

_LOCK = ".lock"


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make a folder if need be, and keep other runs out of it inside the block, or until the process dies.

    Raises:
        UsageError: another run is writing into it, or it cannot be made or written.
    """
    path = folder / _LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _lock(path)
    except BlockingIOError as error:
        raise UsageError(
            f"another run{_name_holder(path)} is writing into {str(folder)!r}: wait for it, or name another folder "
            f"with --out"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot write a record into {str(folder)!r}: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _lock(path: Path) -> int:
    """Lock a file, and write this process into it; return its descriptor."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed it between the two calls: then this is the lock of nothing.
            if path.exists() and os.fstat(file).st_ino == path.stat().st_ino:
                os.ftruncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _name_holder(path: Path) -> str:
    """Name the process that holds a lock, if the lock does: ` (process 123)`."""
    try:
        text = read_file(path).decode(errors="replace")
    except OSError:
        return ""
    return f" (process {text})" if text.isdigit() else ""
