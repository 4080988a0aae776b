"""Write a baseline, or take entries out of it, and keep what people wrote: comments and order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.baseline.file import SCHEMA, read
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.output.text import nearest
from verifier.record.files import write_report
from verifier.record.known_failure import Baseline, KnownFailure

if TYPE_CHECKING:
    from tomlkit.container import Container

# The parser that keeps comments is imported where a file is written: a command without one must not wait for it.

_HEAD = """\
Failures of {adapter} on {family} that are accepted, each with the reason.

`verifier run {family} --adapter {adapter} --baseline FILE` runs the case of each entry again first. An entry excuses
failures with its id where its rule is true, as long as its own case fails so; one that is fixed must go. Each needs
a `reason`, and an `issue` (where it is followed up) or `expires` (the last day on which it is accepted: 2027-01-31).
`[ran]` is on how many cases each check looked: a run that looks at fewer is not green."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _EntryText:
    """An entry as text: the comments that stand above it, and its keys."""

    above: str
    fingerprint: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _BaselineText:
    """A baseline as text: what stands before its entries, the entries, and what stands after them."""

    head: str
    entries: tuple[_EntryText, ...] = ()
    end: str = ""

    @property
    def text(self) -> str:
        parts = [self.head]
        for entry in self.entries:
            parts += ["" if entry.above.startswith("\n") else "\n", entry.above, "[[failure]]\n", entry.body]
        return "".join([*parts, self.end])


def write(path: Path, made: Baseline) -> None:
    """Write a baseline; in a file that exists, keep comments and whatever people wrote into entries that stay.

    Raises:
        UsageError: what is there is no baseline, or it cannot be written.
    """
    import tomlkit

    old = _taken_apart(path) if path.exists() else _BaselineText(head=_new_head(made))
    head = tomlkit.parse(old.head)
    for name, table in (("asked", dict(made.asked)), ("ran", dict(made.ran))):
        if table or name == "ran":
            head[name] = table
        elif name in head:
            del head[name]
    before = {entry.fingerprint: entry for entry in old.entries}
    entries = []
    for one in made.failures:
        entry = before.get(one.fingerprint, _EntryText(above="", fingerprint=one.fingerprint, body=""))
        body = tomlkit.parse(entry.body)
        _fill(body, one)
        entries.append(_EntryText(above=entry.above, fingerprint=one.fingerprint, body=tomlkit.dumps(body)))
    text = _BaselineText(head=tomlkit.dumps(head), entries=tuple(entries), end=old.end).text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"a baseline cannot hold {text[error.start : error.end]!r}, which the record has") from error
    write_report(text, path)


def remove(path: Path, fingerprints: Iterable[str]) -> None:
    """Take entries out of the file, each with the comment right above it, and leave everything else as it is.

    Raises:
        UsageError: it has no such entry, is no baseline, or cannot be written.
    """
    old = _taken_apart(path)
    gone = list(fingerprints)
    known = [entry.fingerprint for entry in old.entries]
    for fingerprint in gone:
        if fingerprint not in known:
            raise UsageError(f"{str(path)!r} has no entry {fingerprint!r}{nearest(fingerprint, known)}")
    entries, left = [], ""
    for entry in old.entries:
        if entry.fingerprint in gone:
            left += _further_above(entry.above)
        else:
            entries.append(_EntryText(above=left + entry.above, fingerprint=entry.fingerprint, body=entry.body))
            left = ""
    write_report(_BaselineText(head=old.head, entries=tuple(entries), end=left + old.end).text, path)


def _taken_apart(path: Path) -> _BaselineText:
    """Split the existing file into head, entries and end.

    Raises:
        UsageError: it is no baseline, or its entries do not stand one by one, after everything else.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import AoT

    read(path, finished=False)  # says what is wrong with it
    text = path.read_text(encoding="utf-8")
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise UsageError(f"the baseline {str(path)!r} is not TOML: {error}") from error
    failures = document.get("failure", [])
    if failures:
        if not isinstance(failures, AoT):
            raise UsageError(f"{str(path)!r}: an entry is a table of its own, under [[failure]], to be rewritten")
        del document["failure"]
    head, above = _parted(tomlkit.dumps(document))
    entries = []
    for failure in failures:
        body, after = _parted(failure.as_string())
        entries.append(_EntryText(above=above, fingerprint=str(failure["id"]), body=body))
        above = after
    found = _BaselineText(head=head, entries=tuple(entries), end=above)
    if tomlkit.parse(found.text).unwrap() != tomlkit.parse(text).unwrap():
        raise UsageError(f"{str(path)!r}: its entries must stand after everything else to be rewritten")
    return found


def _parted(text: str) -> tuple[str, str]:
    """Split a table from the empty lines and comments after it, which belong to what follows."""
    lines = text.splitlines(keepends=True)
    number = len(lines)
    while number and lines[number - 1].strip()[:1] in ("", "#"):  # the last line of no value is like that
        number -= 1
    return "".join(lines[:number]), "".join(lines[number:])


def _further_above(above: str) -> str:
    """The comments above an entry that an empty line separates from it: they are not about it alone."""
    lines = above.splitlines(keepends=True)
    number = len(lines)
    while number and lines[number - 1].strip():
        number -= 1
    kept = "".join(lines[:number])
    return kept if kept.strip() else ""


def _new_head(made: Baseline) -> str:
    import tomlkit

    new = tomlkit.document()
    for line in _HEAD.format(family=made.family, adapter=made.adapter).splitlines():
        new.add(tomlkit.comment(line))
    new.add(tomlkit.nl())
    new["schema"] = SCHEMA
    new["family"], new["adapter"] = made.family, made.adapter
    return tomlkit.dumps(new)


def _fill(entry: Container, failure: KnownFailure) -> None:
    """Fill in what a run knows of the failure, and keep what a person wrote, or make room for it."""
    import tomlkit

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


def _spelt(spec: CaseSpec) -> str:
    """Spell the case as JSON without defaults, as a `--cases` file takes it; TOML has no null."""
    plain = CaseSpec(family=spec.family, config={}).to_json()
    data = {name: value for name, value in spec.to_json().items() if name == "config" or plain[name] != value}
    data = {"family": spec.family, **{name: data[name] for name in data if name not in ("family", "valid", "reason")}}
    return json.dumps(data, sort_keys=True).replace("'", "\\u0027")
