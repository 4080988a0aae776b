"""Read a record, which may be cut off, broken, or no record at all."""

from __future__ import annotations

import contextlib
import reprlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.judging.evidence import Evidence, Ladder
from verifier.judging.outcome import RECORDED, Outcome
from verifier.judging.row_summary import RowSummary
from verifier.output import text
from verifier.output.validation import Seconds, convert
from verifier.record.confirmation import Confirmation
from verifier.record.fuzz_finding import ShrunkFailure
from verifier.record.known_failure import BaselineState, Settled, read_settled
from verifier.record.lines import (
    DONE,
    FILE,
    NOT_FINITE,
    READABLE,
    EndLine,
    LostProcess,
    Record,
    RecordedOutcome,
    RunLine,
)
from verifier.system.files import MOST_BYTES, MOST_RECORD_BYTES, open_file, parse_json, read_file

# The kinds of lines about a case, whose own line stands before them.
_OF_A_CASE = ("outcome", "row", "done", "lost", "evidence", "ladder", "alone", "found")
_NUMBERS = ("measured", "bound")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfACase:
    """The fields that all lines about a case have."""

    case: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """The line that ends a case."""

    seconds: Seconds = 0.0


def read(path: Path) -> Record:
    """Read the record in a file, or in a folder that holds one.

    Raises:
        UsageError: it is not there, is no record, is of another schema, or a line of it is broken.
    """
    if path.is_dir():
        path = path / FILE
    try:
        content = read_file(path, most=MOST_RECORD_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read the record {str(path)!r}: {error.strerror}") from error
    return read_content(path, content)


def read_content(path: Path, content: bytes) -> Record:
    """Read the lines of a record.

    Args:
        path: the file that they are of.
        content: the lines.

    Raises:
        UsageError: they are no record, of another schema, or one of them is broken.
    """
    lines = content.splitlines(keepends=True)
    if not lines:
        raise UsageError(f"{str(path)!r} is no verifier record: it is empty")
    notes: list[str] = []
    first = parse(path, 1, lines[0])
    run = _read_run(path, first)
    cases: dict[str, CaseSpec] = {}
    entries: dict[tuple[str, str], RecordedOutcome] = {}
    rows: dict[Hashable, RowSummary] = {}
    done: dict[str, float] = {}
    lost: list[LostProcess] = []
    resumed = 0
    evidence: dict[tuple[str, str], Evidence] = {}
    ladders: dict[str, Ladder] = {}
    confirmations: dict[tuple[str, str], Confirmation] = {}
    found: dict[str, ShrunkFailure] = {}
    held: BaselineState | None = None
    end: EndLine | None = None
    strange: Counter[str] = Counter()
    for number, data in _parse_lines(path, lines, notes):
        kind = data.get("kind")
        with _named_line(path, number):
            if kind in _OF_A_CASE:
                of = convert(data, _OfACase, of=f"the {kind!r} line")
                if of.case not in cases:
                    raise UsageError(f"the {kind!r} line is of case {of.case!r}, which has no line before it")
            match kind:
                case "case":
                    spec = CaseSpec.from_json(data)
                    if spec.id != data.get("case"):
                        given = reprlib.repr(data.get("case"))
                        raise UsageError(f"the case {given} is not the one that it spells, which is {spec.id}")
                    cases[spec.id] = spec
                case "outcome":
                    outcome = convert(_read_numbers(data), Outcome, of="an outcome")
                    if outcome.verdict not in RECORDED:
                        raise UsageError(f"an outcome's `verdict` cannot be {str(outcome.verdict)!r}")
                    entries.pop((of.case, outcome.check), None)
                    entries[of.case, outcome.check] = RecordedOutcome(
                        case=of.case, outcome=outcome, fingerprint=of.fingerprint
                    )
                case "row":
                    row = convert(data, RowSummary, of="what came of a circumstance", strict=False)
                    rows.pop(row.key, None)
                    rows[row.key] = row
                case "done":
                    done[of.case] = convert(data, _Done, of="the 'done' line").seconds
                case "lost":
                    lost.append(convert(data, LostProcess, of="a lost process"))
                case "resumed":
                    resumed, end = resumed + 1, None
                    entries = {key: entry for key, entry in entries.items() if entry.case in done}
                    rows = {key: row for key, row in rows.items() if row.case in done}
                case "evidence":
                    seen = convert(data, Evidence, of="the evidence", strict=False)
                    if seen.fingerprint is not None:
                        evidence[seen.fingerprint, seen.case] = seen
                case "ladder":
                    ladders[of.case] = convert(data, Ladder, of="the ladder", strict=False)
                case "alone":
                    confirmed = convert(data, Confirmation, of="what came of a failure alone")
                    confirmations[confirmed.fingerprint, confirmed.case] = confirmed
                case "found":
                    shrunk = convert(data, ShrunkFailure, of="a fuzzing finding")
                    found[shrunk.fingerprint] = shrunk
                case "baseline":
                    held = replace(convert(data, BaselineState, of="the baseline"), settled=())
                case "known":
                    held = _add_known(held, read_settled(data))
                case "end":
                    end = convert(data, EndLine, of="the last line")
                case _:
                    strange[str(kind)] += 1
    for kind, number in sorted(strange.items()):
        notes.append(f"{number} line(s) of the kind {kind!r}, which this version does not know, were left aside")
    if end is None:
        notes.append("the run was cut off: the record has no last line")
    return Record(
        path=path,
        run=run,
        cases=cases,
        entries=tuple(entries.values()),
        rows=tuple(rows.values()),
        schema=first["schema"],
        done=done,
        lost=tuple(lost),
        resumed=resumed,
        evidence=evidence,
        ladders=ladders,
        confirmations=confirmations,
        found=found,
        held=held,
        end=end,
        notes=tuple(notes),
        contradicts_itself=end is not None and dict(end.counts) != _count_verdicts(entries.values()),
    )


def _count_verdicts(entries: Iterable[RecordedOutcome]) -> dict[str, int]:
    """Count the outcomes of each verdict, as a last line does."""
    return dict(Counter(str(entry.outcome.verdict) for entry in entries))


def durations(path: Path) -> dict[str, float]:
    """Read the seconds that each finished case took, by id; a broken record gives what can be read of it.

    Only the order of a run rests on it, so a line that is broken is left aside.
    """
    found = {}
    with contextlib.suppress(OSError), open_file(path) as file:
        for line in file:
            if line.startswith(DONE):
                with contextlib.suppress(ValueError, UsageError):
                    data = parse_json(line)
                    case = convert(data, _OfACase, of="the 'done' line").case
                    found[case] = convert(data, _Done, of="the 'done' line").seconds
    return found


def first_line(path: Path) -> RunLine:
    """Read the first line of a record alone: what was run.

    Raises:
        UsageError: it cannot be read, is no record, or is of another schema.
    """
    try:
        with open_file(path) as file:
            line = file.readline(MOST_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read the record {str(path)!r}: {error.strerror}") from error
    return _read_run(path, parse(path, 1, line))


def _parse_lines(path: Path, lines: list[bytes], notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Parse all lines but the first, each with its number; a last line that is cut off is noted and left aside."""
    for number, line in enumerate(lines[1:], start=2):
        try:
            yield number, parse(path, number, line)
        except UsageError:
            if number == len(lines) and not line.endswith(b"\n"):
                notes.append(f"line {number}, the last one, is torn and was skipped")
                return
            raise


def parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Parse one line, which must be a JSON object.

    Args:
        path: the file that the line is of, for messages.
        number: the number of the line, for messages.
        line: the line, in UTF-8.

    Returns:
        The object, by key.

    Raises:
        UsageError: it spells none.
    """
    try:
        data = parse_json(line)
    except ValueError as error:
        raise UsageError(f"{path} line {number}: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} line {number}: not an object")
    return data


def _read_run(path: Path, data: Mapping[str, Any]) -> RunLine:
    """Read the first line, which must be of a schema that this version reads."""
    if data.get("kind") != "run":
        raise UsageError(f"{str(path)!r} is no verifier record: its first line is not a `run` line")
    if data.get("schema") not in READABLE:
        schema, readable = reprlib.repr(data.get("schema")), " and ".join(map(str, READABLE))
        raise UsageError(f"{path}: schema {schema}; this version of verifier reads schemas {readable}")
    with _named_line(path, 1):
        run = convert(data, RunLine, of="the run")
        for name, value in (("adapter_name", run.adapter_name), ("adapter_version", run.adapter_version)):
            if text.visible(value) != value or "\n" in value.strip():  # a version may have been read from a file
                raise UsageError(f"the run's `{name}` is {ascii(value)[:80]}; it must be printable, on one line")
        return run


def _add_known(held: BaselineState | None, one: Settled) -> BaselineState:
    """Add a known failure to the baseline that stands before it."""
    if held is None:
        raise UsageError("a known failure, and no baseline before it")
    if any(other.failure.fingerprint == one.failure.fingerprint for other in held.settled):
        raise UsageError(f"the known failure {one.failure.fingerprint!r} stands there twice")
    return replace(held, settled=(*held.settled, one))


def _read_numbers(data: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the strings that stand for numbers that are not finite by these numbers."""
    spelt = {name: float(data[name]) for name in _NUMBERS if data.get(name) in NOT_FINITE}
    return {**data, **spelt}


@contextlib.contextmanager
def _named_line(path: Path, number: int) -> Iterator[None]:
    """Name the file and the line in every error of the data inside the block."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path} line {number}: {error}") from error
