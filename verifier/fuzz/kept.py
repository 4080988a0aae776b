"""Keep failing cases from one campaign to the next: a JSON file each, in a folder that people may commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.output.validation import convert
from verifier.record.files import write_report
from verifier.record.fuzz_finding import StoredFailure
from verifier.system.files import parse_json, read_file

FOLDER = "found"


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says; other keys are ignored."""

    fingerprint: str
    check: str
    differs: Mapping[str, Any]
    case: CaseSpec


def read(folder: Path) -> tuple[StoredFailure, ...]:
    """Read every failure that is kept in a folder; if there is no such folder, there is none.

    Raises:
        UsageError: a file cannot be read, or holds something else.
    """
    return tuple(_read(path) for path in sorted(folder.glob("*.json")))


def write(folder: Path, kept: StoredFailure) -> None:
    """Keep a failure; one of the same fingerprint is replaced.

    Args:
        folder: the folder in which each failure has a file.
        kept: the failure.

    Raises:
        UsageError: the file cannot be written.
    """
    data = {
        "fingerprint": kept.fingerprint,
        "check": kept.check,
        "differs": dict(kept.differs),
        "case": kept.spec.to_json(),
    }
    write_report(json.dumps(data, indent=1, sort_keys=True) + "\n", folder / f"{kept.fingerprint}.json")


def _read(path: Path) -> StoredFailure:
    try:
        data = convert(parse_json(read_file(path)), _File, of="the file")
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, UsageError) as error:
        raise UsageError(f"{str(path)!r} is no kept case: {error}; remove it, or mend it") from error
    return StoredFailure(fingerprint=data.fingerprint, check=data.check, spec=data.case, differs=data.differs)
