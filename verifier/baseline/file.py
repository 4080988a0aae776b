"""A baseline as a file, `verifier-known.toml`, read with suspicion."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from verifier.cases.predicates import require_readable
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.judging.outcome import short_id
from verifier.plugins import nearest
from verifier.record.known_failure import EVERY_CASE, NARROWING, Baseline, KnownFailure, is_count

NAME = "verifier-known.toml"
SCHEMA = 1

_TOP = ("schema", "family", "adapter", "asked", "ran", "failure")
_NEEDED = ("id", "check", "case")
_KEYS = ("id", "check", "rule", "also", "excepted", "reason", "issue", "expires", "case")


def read(path: Path, *, finished: bool = True) -> Baseline:
    """The baseline in the file.

    Args:
        path: the file.
        finished: whether each entry must have what only a person can write: a reason, and an issue or a date.

    Raises:
        UsageError: it cannot be read, is no baseline, or an entry is not finished.
    """
    try:
        content = path.read_bytes()
        data = tomllib.loads(content.decode())
    except OSError as error:
        raise UsageError(f"cannot read the baseline {str(path)!r}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"the baseline {str(path)!r} is not TOML: {error}") from error
    _know(path, "it", data, _TOP)
    if data.get("schema") != SCHEMA:
        raise UsageError(
            f"{str(path)!r}: schema {data.get('schema')!r}; this version of verifier reads schema {SCHEMA}"
        )
    family, adapter = (_text(path, "it", data, name) for name in ("family", "adapter"))
    asked, ran = (_table(path, data, name) for name in ("asked", "ran"))
    _know(path, "[asked]", asked, NARROWING)
    for name, value in asked.items():
        if not all(isinstance(one, str | bool) for one in (value if isinstance(value, list) else [value])):
            raise UsageError(f"{str(path)!r}: [asked] {name} is neither text, nor true or false, nor a list of texts")
    for check, count in ran.items():
        if not is_count(count):
            raise UsageError(f"{str(path)!r}: [ran] {check!r} is no whole number")
    entries = data.get("failure", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{str(path)!r}: `failure` is no array of tables; each entry begins with [[failure]]")
    failures = tuple(_failure(path, number, entry, finished) for number, entry in enumerate(entries, start=1))
    seen: set[str] = set()
    for one in failures:
        if one.fingerprint in seen:
            raise UsageError(f"{str(path)!r} has two entries with the id {one.fingerprint!r}")
        seen.add(one.fingerprint)
    return Baseline(
        path=str(path),
        digest=short_id(content.decode()),
        family=family,
        adapter=adapter,
        asked=asked,
        ran=ran,
        failures=failures,
    )


def require_of(one: Baseline, family: str, adapter: str, what: str) -> None:
    """Make sure that the baseline is of that family and adapter.

    Args:
        one: the baseline.
        family: reference.
        adapter: reference.
        what: what is held against it, for the message: `these tests`.

    Raises:
        UsageError: it is of others.
    """
    if (one.family, one.adapter) != (family, adapter):
        raise UsageError(
            f"the baseline {one.path!r} is of {one.family} × {one.adapter}, and not of {family} × {adapter}, as {what}"
        )


def _failure(path: Path, number: int, entry: Mapping[str, Any], finished: bool) -> KnownFailure:
    where = f"failure {entry['id']}" if isinstance(entry.get("id"), str) else f"failure number {number}"
    _know(path, where, entry, _KEYS)
    for name in _NEEDED:
        _text(path, where, entry, name)
    texts: dict[str, Any] = {
        name: _text(path, where, {name: entry.get(name, "")}, name) for name in ("rule", "reason", "issue")
    }
    lists: dict[str, Any] = {name: _texts(path, where, entry, name) for name in ("also", "excepted")}
    expires = entry.get("expires")
    if expires is not None and (not isinstance(expires, date) or isinstance(expires, datetime)):
        raise UsageError(f"{str(path)!r}: {where}: `expires` is no day; write expires = 2027-01-31, without quotes")
    if texts["rule"] and texts["rule"] != EVERY_CASE:
        try:
            require_readable(texts["rule"])
        except UsageError as error:
            raise UsageError(f"{str(path)!r}: {where}: {error}") from error
    if finished and not texts["reason"].strip():
        raise UsageError(f"{str(path)!r}: {where} has no reason: write why it is accepted into `reason`")
    if finished and not texts["issue"].strip() and expires is None:
        raise UsageError(
            f"{str(path)!r}: {where} has neither an issue nor a day on which it expires: write one into `issue` or "
            f"`expires`, so that it is not forgotten"
        )
    return KnownFailure(
        fingerprint=entry["id"], check=entry["check"], spec=_case(path, where, entry["case"]), expires=expires,
        **texts, **lists,
    )  # fmt: skip


def _case(path: Path, where: str, text: str) -> CaseSpec:
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise UsageError("it is no object")
        return CaseSpec.from_json(data)
    except (ValueError, TypeError, RecursionError, UsageError) as error:
        raise UsageError(f"{str(path)!r}: {where}: its `case` is none: {error}") from error


def _know(path: Path, where: str, data: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in data:
        if key not in known:
            raise UsageError(f"{str(path)!r}: {where} has an unknown key {key!r}{nearest(key, tuple(known))}")


def _text(path: Path, where: str, data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise UsageError(
            f"{str(path)!r}: {where} " + (f"has no `{name}`" if value is None else f"has a `{name}` that is no text")
        )
    return value


def _texts(path: Path, where: str, data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = data.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageError(f"{str(path)!r}: {where}: `{name}` is no list of texts")
    return tuple(values)


def _table(path: Path, data: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{str(path)!r}: `{name}` is no table")
    return value
