"""`--resume`: make sure that the record that is there is of the run that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verifier import record
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.record.lines import SCHEMA

_COMPARED = ("family", "adapter", "seed", "asked", "versions", "flags", "dims", "planned")


def find(folder: Path) -> record.Record | None:
    """Read the record in a folder; None if there is none yet, so that every case is missing.

    Raises:
        UsageError: the file with a record's name is broken, or no record.
    """
    path = folder / record.FILE
    return record.read(path) if path.exists() else None


def require_same(earlier: record.Record, header: Mapping[str, Any], specs: Sequence[CaseSpec]) -> None:
    """Make sure that a record is of the run with this header (fields of a `RunLine`) and these cases.

    Args:
        earlier: the record that is there.
        header: the fields of the first line of the run that is asked for.
        specs: all cases of that run.

    Raises:
        UsageError: it is of another run; the message says in what the two differ.
    """
    if earlier.schema != SCHEMA:
        raise _another(earlier, _in_words("schema", earlier.schema, SCHEMA))
    _compare(earlier, {name: header[name] for name in _COMPARED})
    strange = set(earlier.cases) - {spec.id for spec in specs}
    if strange:
        raise _another(earlier, f"it has the case {min(strange)}, which is none of this run's")


def require_same_code(earlier: record.Record, line: record.RunLine) -> None:
    """Make sure that the adapter's version and the checks, which are known once everything is loaded, are the same.

    Args:
        earlier: the record that is there.
        line: the first line of the run that is asked for.

    Raises:
        UsageError: they are not.
    """
    _compare(earlier, {"adapter_name": line.adapter_name, "adapter_version": line.adapter_version})
    was, now = [one["id"] for one in earlier.run.checks], [one["id"] for one in line.checks]
    if was != now:
        strange = sorted(set(was) ^ set(now))
        raise _another(earlier, f"its checks differ by {', '.join(strange[:4]) or 'their order'}")


def _compare(earlier: record.Record, values: Mapping[str, Any]) -> None:
    for name, now in values.items():
        was = getattr(earlier.run, name)
        if was != now:
            raise _another(earlier, _in_words(name, was, now))


def _another(earlier: record.Record, how: str) -> UsageError:
    return UsageError(
        f"{str(earlier.path)!r} is the record of another run: {how}; leave --resume out to begin anew, or name another "
        f"folder with --out"
    )


def _in_words(name: str, was: Any, now: Any) -> str:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        inner = next(key for key in sorted({*was, *now}) if was.get(key) != now.get(key))
        return f"its {inner} is {_value(was.get(inner))}, and this one's {_value(now.get(inner))}"
    return f"its {name.replace('_', ' ')} is {_value(was)}, and this one's {_value(now)}"


def _value(value: Any) -> str:
    return "not given" if value is None else str(value)
