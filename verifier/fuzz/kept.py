"""Failing cases kept from one campaign to the next: a JSON file each, in a folder that people may commit."""

from __future__ import annotations

import json
from pathlib import Path

from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.record.files import write_report
from verifier.record.fuzz_finding import StoredFailure

FOLDER = "found"


def read(folder: Path) -> tuple[StoredFailure, ...]:
    """Everything that is kept in the folder; nothing where there is none.

    Raises:
        UsageError: a file in it is broken.
    """
    return tuple(_read(path) for path in sorted(folder.glob("*.json")))


def write(folder: Path, kept: StoredFailure) -> None:
    """Keep a failure; one of the same fingerprint is replaced.

    Raises:
        UsageError: it cannot be written there.
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
        data = json.loads(path.read_bytes())
        return StoredFailure(
            fingerprint=str(data["fingerprint"]),
            check=str(data["check"]),
            spec=CaseSpec.from_json(data["case"]),
            differs=dict(data["differs"]),
        )
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise UsageError(f"{str(path)!r} is no kept case: {error}; remove it, or mend it") from error
