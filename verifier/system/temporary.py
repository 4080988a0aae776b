"""Temporary folders of this process, and the removal of those that dead processes left behind.

A folder is named after its process, which holds a lock on it. Invariant: a folder is swept only if it is this user's,
no process has the number in its name, and nobody holds the lock. Either alone would not do: a process in another
container has another number there, and a folder is for a moment without its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "verifier-"
_NAME = re.compile(rf"{_PREFIX}(\d+)-.+")


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that is removed at the end of the block, or by the next run if this process is killed before."""
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as name:
        lock = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield Path(name)
        finally:
            os.close(lock)


def sweep() -> None:
    """Remove the temporary folders of this user's dead processes."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        named = _NAME.fullmatch(path.name)
        if named and not _is_alive(int(named[1])) and _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_abandoned(path: Path) -> bool:
    """Whether something is a folder of this user, and no link to one, whose lock nobody holds."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        status = os.fstat(lock)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
