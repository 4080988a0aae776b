"""Read a baseline, `verifier-known.toml`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from verifier.cases.spec import CaseSpec
from verifier.checks.superseded import SUPERSEDED
from verifier.errors import UsageError
from verifier.judging.outcome import short_id
from verifier.output.text import first_of, nearest, plural
from verifier.output.validation import Count, convert
from verifier.record.known_failure import NARROWING, Baseline, KnownFailure
from verifier.system.files import parse_json, parse_toml, read_file

NAME = "verifier-known.toml"
SCHEMA = 1
_MOST_NAMED = 3

# The types of the values of a table. Values are read one by one, so that the message for a wrong one has its key.
_TABLES = {"asked": dict[str, str | bool | list[str | bool]], "ran": dict[str, Count]}


class EntryTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """An entry as the file has it; `case` is JSON, because TOML has no null."""

    id: str
    check: str
    case: str
    rule: str = ""
    also: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()
    reason: str = ""
    issue: str = ""
    expires: date | None = None


class _BaselineTables(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The tables of a baseline; entries are read one by one, so that the message for a wrong one has its id."""

    schema: int
    family: str
    adapter: str
    asked: dict[str, Any] = {}
    ran: dict[str, Any] = {}
    failure: Any = ()


def read(path: Path, *, finished: bool = True) -> Baseline:
    """Read a baseline.

    Args:
        path: the file.
        finished: whether a run can be held against it: each entry must have what only a person can write, a reason
            and an issue or a date, and every check that it names must be there.

    Raises:
        UsageError: it cannot be read, is no baseline, or is not finished.
    """
    try:
        content = read_file(path)
        data = parse_toml(content)
    except OSError as error:
        raise UsageError(f"cannot read the baseline {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the baseline {str(path)!r} is {error}") from error
    for key in data:
        _require_known(key, _BaselineTables.__struct_fields__, f"{str(path)!r}: the baseline")
    if data.get("schema") != SCHEMA:
        raise UsageError(
            f"{str(path)!r}: schema {data.get('schema')!r}; this version of verifier reads schema {SCHEMA}"
        )
    try:
        found = convert(data, _BaselineTables, of="the baseline", toml=True)
        for table, kind in _TABLES.items():
            for key, value in getattr(found, table).items():
                convert({key: value}, kind, of=f"[{table}] {key}", toml=True)
        for key in found.asked:
            _require_known(key, NARROWING, "[asked]")
        if not isinstance(found.failure, list | tuple) or not all(isinstance(one, dict) for one in found.failure):
            raise UsageError("`failure` is no array of tables; each entry begins with [[failure]]")
        if finished:
            _require_no_superseded(found, path)
        failures: dict[str, KnownFailure] = {}
        for number, entry in enumerate(found.failure, start=1):
            one = _read_entry(entry, number, finished)
            if one.fingerprint in failures:
                raise UsageError(f"it has two entries with the id {one.fingerprint!r}")
            failures[one.fingerprint] = one
    except UsageError as error:
        raise UsageError(f"{str(path)!r}: {error}") from error
    return Baseline(
        path=str(path),
        digest=short_id(content.decode()),
        family=found.family,
        adapter=found.adapter,
        asked=found.asked,
        ran=found.ran,
        failures=tuple(failures.values()),
    )


def _require_no_superseded(found: _BaselineTables, path: Path) -> None:
    """Make sure that a baseline names no check that is gone.

    Raises:
        UsageError: it names one; the message says with which commands it is renewed.
    """
    named = [*found.ran, *(entry.get("check") for entry in found.failure)]
    gone = [check for check in SUPERSEDED if check in named]
    if gone:
        raise UsageError(
            f"it names {plural(len(gone), 'check')} in whose place there are observables now "
            f"({first_of(gone, _MOST_NAMED)}): renew it with `verifier run {found.family} --adapter {found.adapter} "
            f"--no-baseline` and `verifier baseline RECORD --out {shlex.quote(str(path))}`"
        )


def _require_known(key: str, known: Sequence[str], what: str) -> None:
    """Make sure that a key is one of those that may be there."""
    if key not in known:
        raise UsageError(f"{what} has an unknown key {key!r}{nearest(key, known)}")


def require_of(one: Baseline, family: str, adapter: str, what: str) -> None:
    """Make sure that the baseline is of that family and adapter.

    Args:
        one: the baseline.
        family: the family's reference.
        adapter: the adapter's reference.
        what: what is compared with it, for the message: `these tests`.

    Raises:
        UsageError: it is of another family or adapter.
    """
    if (one.family, one.adapter) != (family, adapter):
        raise UsageError(
            f"the baseline {one.path!r} is of {one.family} × {one.adapter}, and not of {family} × {adapter}, as {what}"
        )


def _read_entry(entry: Mapping[str, Any], number: int, finished: bool) -> KnownFailure:
    """Read the `number`-th entry of the file."""
    name = f"failure {entry['id']}" if isinstance(entry.get("id"), str) else f"failure number {number}"
    one = convert(entry, EntryTable, of=name, keys=EntryTable.__struct_fields__, toml=True)
    if finished and not one.reason.strip():
        raise UsageError(f"{name} has no reason: write why it is accepted into `reason`")
    if finished and not one.issue.strip() and one.expires is None:
        raise UsageError(
            f"{name} has neither an issue nor a day on which it expires: write one into `issue` or `expires`, so that "
            f"it is not forgotten"
        )
    try:
        spec = CaseSpec.from_json(parse_json(one.case.encode()))
    except (ValueError, UsageError) as error:
        raise UsageError(f"{name}: its `case` is none: {error}") from error
    values = {field: getattr(one, field) for field in one.__struct_fields__ if field not in ("id", "case")}
    try:
        return KnownFailure(fingerprint=one.id, spec=spec, **values)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
