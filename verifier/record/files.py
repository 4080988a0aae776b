"""Write a report to a file, which is replaced whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from verifier.errors import UsageError, VerifierError
from verifier.record.reading import first_line

# What the system says of a disk, a share of it or a file that may hold no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_report(content: str, path: Path) -> None:
    """Write a report into a file; what is there is replaced whole or not at all.

    Args:
        content: the text of the report.
        path: the file; folders that are missing are made.

    Raises:
        UsageError: it cannot be written there, or a record is there.
        VerifierError: the disk is full.
    """
    if not path.name or os.path.isdir(path):
        raise UsageError(f"cannot write the report {str(path)!r}: it is a folder; name a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"cannot write the report {str(path)!r}: it is a pipe or a device; name a file")
    if _is_record(path):
        raise UsageError(f"{str(path)!r} is a record, and is not overwritten by a report; name another file")
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(content, encoding="utf-8")
        os.replace(fresh, path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            fresh.unlink(missing_ok=True)
        kind = VerifierError if isinstance(error, OSError) and error.errno in _FULL else UsageError
        raise kind(f"cannot write the report {str(path)!r}: {getattr(error, 'strerror', error)}") from error


def _is_record(path: Path) -> bool:
    """Whether a file begins as a record does."""
    try:
        first_line(path)
    except UsageError:
        return False
    return True
