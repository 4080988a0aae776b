"""Write a baseline, or take entries out of it, and keep what people wrote: comments and order."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verifier.baseline.file import SCHEMA, EntryTable, read
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.output.text import nearest, visible
from verifier.record.files import write_report
from verifier.record.known_failure import Baseline, KnownFailure

# The parser that keeps comments is imported where a file is written: a command without one must not wait for it.

_HEADER = re.compile(r"^([ \t]*\[\[[ \t]*failure[ \t]*\]\].*\n?)", re.MULTILINE)
_UP_TO_AN_EMPTY_LINE = re.compile(r".*^[ \t]*\n", re.MULTILINE | re.DOTALL)

_HEAD = """\
Failures of {adapter} on {family} that are accepted, each with the reason.

`verifier run {family} --adapter {adapter} --baseline FILE` runs the case of each entry again first. An entry excuses
failures with its id where its rule is true, as long as its own case fails so; one that is fixed must go. Each needs
a `reason`, and an `issue` (where it is followed up) or `expires` (the last day on which it is accepted: 2027-01-31).
`[ran]` is on how many cases each check looked: a run that looks at fewer is not green."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _EntryText:
    """An entry as text: the comments that stand above its header, the header's line, and the lines below it."""

    above: str
    header: str = "[[failure]]\n"
    fingerprint: str
    body: str


def write(path: Path, made: Baseline) -> None:
    """Write a baseline; in a file that exists, keep comments and whatever people wrote into entries that stay.

    Args:
        path: the baseline's file, which need not exist.
        made: what the file is to hold.

    Raises:
        UsageError: what is there is no baseline, or it cannot be written.
    """
    import tomlkit

    text, old, end = _split(path) if path.exists() else (_new_head(made), [], "")
    head = tomlkit.parse(text)
    for name, table in (("asked", dict(made.asked)), ("ran", dict(made.ran))):
        if table or name == "ran":
            head[name] = table
        elif name in head:
            del head[name]
    before = {entry.fingerprint: entry for entry in old}
    entries = []
    for failure in made.failures:
        new = _EntryText(above="", fingerprint=failure.fingerprint, body="")
        entry = before.get(failure.fingerprint, new)
        entries.append(replace(entry, body=_fill(entry.body, failure)))
    written = _join(tomlkit.dumps(head), entries, end)
    try:
        written.encode()
    except UnicodeEncodeError as error:
        half = written[error.start : error.end]
        raise UsageError(f"a baseline cannot hold {half!r}, which the record has") from error
    write_report(written, path)


def remove(path: Path, fingerprints: Iterable[str]) -> None:
    """Take entries out of the file, each with the comment right above it, and leave everything else as it is.

    Args:
        path: the baseline's file.
        fingerprints: the fingerprints of the entries to take out.

    Raises:
        UsageError: it has no such entry, is no baseline, or cannot be written.
    """
    head, old, end = _split(path)
    removed = list(fingerprints)
    known = [entry.fingerprint for entry in old]
    for fingerprint in removed:
        if fingerprint not in known:
            raise UsageError(f"{str(path)!r} has no entry {fingerprint!r}{nearest(fingerprint, known)}")
    entries, left = [], ""
    for entry in old:
        if entry.fingerprint in removed:
            left += _comments_apart(entry.above)
        else:
            entries.append(replace(entry, above=left + entry.above))
            left = ""
    write_report(_join(head, entries, left + end), path)


def _split(path: Path) -> tuple[str, list[_EntryText], str]:
    """Split an existing baseline into the text before its entries, the entries, and the comments after them.

    Raises:
        UsageError: it is no baseline, or its entries do not stand one by one, after everything else.
    """
    failures = read(path, finished=False).failures  # says what is wrong with it
    text, *parts = _HEADER.split(path.read_text(encoding="utf-8"))
    headers, tables = parts[::2], parts[1::2]
    if len(tables) != len(failures):
        raise UsageError(f"{str(path)!r}: an entry is a table of its own, under [[failure]], to be rewritten")
    head, above = _split_comments(text)
    entries = []
    for failure, header, table in zip(failures, headers, tables, strict=True):
        body, after = _split_comments(table)
        if any(name not in EntryTable.__struct_fields__ for name in tomllib.loads(body)):
            raise UsageError(f"{str(path)!r}: its entries must stand after everything else to be rewritten")
        entries.append(_EntryText(above=above, header=header, fingerprint=failure.fingerprint, body=body))
        above = after
    return head, entries, above


def _join(head: str, entries: Iterable[_EntryText], end: str) -> str:
    """Put together what `_split` took apart, with an empty line above every entry."""
    parts = [head]
    for entry in entries:
        parts += ["" if entry.above.startswith("\n") else "\n", entry.above, entry.header, entry.body]
    return "".join([*parts, end])


def _split_comments(text: str) -> tuple[str, str]:
    """Split a table from the empty lines and comments after it, which belong to what follows."""
    lines = text.splitlines(keepends=True)
    number = len(lines)
    while number and lines[number - 1].strip()[:1] in ("", "#"):  # the last line of no value is like that
        number -= 1
    return "".join(lines[:number]), "".join(lines[number:])


def _comments_apart(above: str) -> str:
    """The comments above an entry that an empty line separates from it: they are not about it alone."""
    apart = _UP_TO_AN_EMPTY_LINE.match(above)
    return apart[0] if apart and apart[0].strip() else ""


def _new_head(made: Baseline) -> str:
    import tomlkit

    new = tomlkit.document()
    for line in _HEAD.format(family=made.family, adapter=made.adapter).splitlines():
        new.add(tomlkit.comment(visible(line)))
    new.add(tomlkit.nl())
    new["schema"] = SCHEMA
    new["family"], new["adapter"] = made.family, made.adapter
    return tomlkit.dumps(new)


def _fill(body: str, failure: KnownFailure) -> str:
    """Fill what a run knows of the failure into an entry's text, and keep what a person wrote, or make room for it."""
    import tomlkit

    entry = tomlkit.parse(body)
    entry["id"], entry["check"] = failure.fingerprint, failure.check
    for name in ("rule", "also", "excepted"):
        value: Any = getattr(failure, name)
        if isinstance(value, tuple):
            value = tomlkit.item(list(value)).multiline(len(value) > 1) if value else None
        if value:
            entry[name] = value
        elif name in entry:
            del entry[name]
    for name in ("reason", "issue"):
        if name not in entry:
            entry[name] = getattr(failure, name)
    if failure.expires is not None and "expires" not in entry:
        entry["expires"] = failure.expires
    entry["case"] = tomlkit.string(_spelt(failure.spec), literal=True)
    return tomlkit.dumps(entry)


def _spelt(spec: CaseSpec) -> str:
    """Spell the case as JSON without defaults, as a `--cases` file takes it; TOML has no null."""
    plain = CaseSpec(family=spec.family, config={}).to_json()
    data = {name: value for name, value in spec.to_json().items() if name == "config" or plain.get(name) != value}
    data = {"family": spec.family, **{name: data[name] for name in data if name not in ("family", "valid", "reason")}}
    return json.dumps(data, sort_keys=True).replace("'", "\\u0027")
