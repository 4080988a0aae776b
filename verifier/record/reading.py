"""A record read back, with suspicion: it may be torn, broken, or no record at all."""

from __future__ import annotations

import contextlib
import json
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus, UsageError, one_line
from verifier.judging.evidence import Evidence, Ladder, evidence_of, ladder_of
from verifier.judging.outcome import RECORDED, Outcome, Verdict
from verifier.record.fuzz_finding import Found, found_of
from verifier.record.known_failure import BaselineState, Settled, is_count, settled_of
from verifier.record.lines import DONE, FILE, NOT_FINITE, SCHEMA, EndLine, Entry, Lost, Record, RunLine

T = TypeVar("T")


def read(path: Path) -> Record:
    """The record in a file, or in a folder that holds one.

    Raises:
        UsageError: it is not there, is no record, is of another schema, or a line of it is broken.
    """
    if path.is_dir():
        path = path / FILE
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UsageError(f"cannot read the record {str(path)!r}: {error.strerror}") from error
    if not lines:
        raise UsageError(f"{str(path)!r} is no verifier record: it is empty")
    notes: list[str] = []
    run = _run_line(path, parse(path, 1, lines[0]))
    cases: dict[str, CaseSpec] = {}
    entries: dict[tuple[str, str], Entry] = {}
    done: dict[str, float] = {}
    lost: list[Lost] = []
    resumed = 0
    evidence: dict[tuple[str, str], Evidence] = {}
    ladders: dict[str, Ladder] = {}
    found: dict[str, Found] = {}
    held: BaselineState | None = None
    end: EndLine | None = None
    strange: Counter[str] = Counter()
    for number, data in _objects(path, lines, notes):
        kind = data.get("kind")
        with _located(path, number):
            if kind == "case":
                spec = CaseSpec.from_json(data)
                if spec.id != _take(data, "case", str):
                    raise UsageError(f"the case {data['case']!r} is not the one that it spells, which is {spec.id}")
                cases[spec.id] = spec
            elif kind == "outcome":
                entry = _entry(data, cases)
                entries.pop((entry.case, entry.outcome.check), None)
                entries[entry.case, entry.outcome.check] = entry
            elif kind == "done":
                done[_known(data, cases)] = _number(data, "seconds") or 0.0
            elif kind == "lost":
                lost.append(_lost(data, cases))
            elif kind == "resumed":
                resumed, end = resumed + 1, None
                entries = {key: entry for key, entry in entries.items() if entry.case in done}
            elif kind == "evidence":
                one = _of_a_look(data, cases, evidence_of)
                if one.fingerprint is not None:
                    evidence[one.fingerprint, one.case] = one
            elif kind == "ladder":
                ladders[_known(data, cases)] = _of_a_look(data, cases, ladder_of)
            elif kind == "found":
                shrunk = _of_a_look(data, cases, found_of)
                found[shrunk.fingerprint] = shrunk
            elif kind == "baseline":
                held = _baseline(data)
            elif kind == "known":
                if held is None:
                    raise UsageError("a known failure, and no baseline before it")
                held = _with(held, _settled(data))
            elif kind == "end":
                end = _end(data)
            else:
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
        done=done,
        lost=tuple(lost),
        resumed=resumed,
        evidence=evidence,
        ladders=ladders,
        found=found,
        held=held,
        end=end,
        notes=tuple(notes),
        contradicts_itself=end is not None and dict(end.counts) != _counts(entries.values()),
    )


def _counts(entries: Iterable[Entry]) -> dict[str, int]:
    return dict(Counter(str(entry.outcome.verdict) for entry in entries))


def durations(path: Path) -> dict[str, float]:
    """The seconds that each finished case took, by id, of a record that need not be whole; empty where there is none.

    Only the order of a run rests on it, so a line that is broken is left aside.
    """
    found = {}
    with contextlib.suppress(OSError), path.open("rb") as file:
        for line in file:
            if line.startswith(DONE):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    data = json.loads(line)
                    found[str(data["case"])] = float(data["seconds"])
    return found


def first_line(path: Path) -> RunLine:
    """What the record in that file is of; the rest of it is not looked at.

    Raises:
        UsageError: it cannot be read, is no record, or is of another schema.
    """
    try:
        with path.open("rb") as file:
            line = file.readline()
    except OSError as error:
        raise UsageError(f"cannot read the record {str(path)!r}: {error.strerror}") from error
    return _run_line(path, parse(path, 1, line))


def _objects(path: Path, lines: list[bytes], notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines[1:], start=2):
        try:
            yield number, parse(path, number, line)
        except UsageError:
            if number == len(lines) and not line.endswith(b"\n"):
                notes.append(f"line {number}, the last one, is torn and was skipped")
                return
            raise


def parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The object that the line spells.

    Raises:
        UsageError: it spells none.
    """
    try:
        data = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} line {number}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} line {number}: not JSON: {error.msg} at column {error.colno}") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise UsageError(f"{path} line {number}: not JSON: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path} line {number}: nested too deep") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} line {number}: not an object")
    return data


def _run_line(path: Path, data: Mapping[str, Any]) -> RunLine:
    if data.get("kind") != "run":
        raise UsageError(f"{str(path)!r} is no verifier record: its first line is not a `run` line")
    if data.get("schema") != SCHEMA:
        raise UsageError(f"{path}: schema {data.get('schema')!r}; this version of verifier reads schema {SCHEMA}")
    kinds: dict[str, type | tuple[type, ...]] = {
        "family": str,
        "adapter": str,
        "adapter_name": str,
        "adapter_version": str,
        "versions": dict,
        "seed": int,
        "started": str,
        "flags": dict,
        "dims": dict,
        "checks": list,
        "planned": dict,
        "asked": dict,
        "workers": int,
    }
    with _located(path, 1):
        values = {name: _take(data, name, kind) for name, kind in kinds.items()}
        for name, choices in values["flags"].items():
            if not isinstance(choices, list) or not choices:
                raise UsageError(f"the flag {name!r} has no list of values")
        for check in values["checks"]:
            if not isinstance(check, dict) or not isinstance(check.get("id"), str):
                raise UsageError("a check has no `id`")
            _require_texts(check.values(), "what is said of a check")
        _require_texts(values["versions"].values(), "a version")
        if not all(map(is_count, values["planned"].values())):
            raise UsageError("`planned` holds what is no number of cases")
        return RunLine(**values, limits=_limits(data))


def _require_texts(values: Iterable[Any], what: str) -> None:
    if not all(isinstance(value, str) for value in values):
        raise UsageError(f"{what} is no text")


def _limits(data: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds and bytes; older records have none."""
    limits: dict[str, Any] = _take(data, "limits", dict) if "limits" in data else {}
    for name in limits:
        _number(limits, name)
    return limits


def _entry(data: Mapping[str, Any], cases: Mapping[str, CaseSpec]) -> Entry:
    case, verdict = _known(data, cases), _verdict(data)
    words = ("where", "message", "exception", "site", "detail")
    outcome = Outcome(
        check=_take(data, "check", str),
        verdict=verdict,
        measured=_number(data, "measured"),
        bound=_number(data, "bound"),
        seconds=_number(data, "seconds") or 0.0,
        **{word: _take(data, word, (str, type(None))) for word in words},
    )
    return Entry(case=case, outcome=outcome, fingerprint=_take(data, "fingerprint", (str, type(None))))


def _lost(data: Mapping[str, Any], cases: Mapping[str, CaseSpec]) -> Lost:
    return Lost(
        case=_known(data, cases),
        check=_take(data, "check", str),
        verdict=_verdict(data),
        reason=_take(data, "reason", str),
    )


def _of_a_look(data: Mapping[str, Any], cases: Mapping[str, CaseSpec], read: Callable[[Mapping[str, Any]], T]) -> T:
    _known(data, cases)
    try:
        return read(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"what a closer look or a shrink found is not as it should be: {one_line(error)}") from error


def _known(data: Mapping[str, Any], cases: Mapping[str, CaseSpec]) -> str:
    case: str = _take(data, "case", str)
    if case not in cases:
        raise UsageError(f"an outcome of case {case!r}, which has no line before it")
    return case


def _verdict(data: Mapping[str, Any]) -> Verdict:
    verdict = _take(data, "verdict", str)
    if verdict not in RECORDED:
        raise UsageError(f"unknown verdict {verdict!r}")
    return Verdict(verdict)


def _baseline(data: Mapping[str, Any]) -> BaselineState:
    ran = _take(data, "ran", dict)
    if not all(map(is_count, ran.values())):
        raise UsageError("`ran` holds what is no number of cases")
    return BaselineState(path=_take(data, "path", str), asked=_take(data, "asked", dict), ran=ran)


def _with(held: BaselineState, one: Settled) -> BaselineState:
    if any(other.failure.fingerprint == one.failure.fingerprint for other in held.settled):
        raise UsageError(f"the known failure {one.failure.fingerprint!r} stands there twice")
    return replace(held, settled=(*held.settled, one))


def _settled(data: Mapping[str, Any]) -> Settled:
    try:
        return settled_of(data)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"a known failure is not as it should be: {one_line(error)}") from error


def _end(data: Mapping[str, Any]) -> EndLine:
    status = _take(data, "exit", int)
    if status not in list(ExitStatus):
        raise UsageError(f"`exit` is {reprlib.repr(status)}, with which no run ends")
    return EndLine(
        counts=_take(data, "counts", dict),
        exit=status,
        stop=_take(data, "stop", str),
        seconds=_number(data, "seconds") or 0.0,
    )


def _take(data: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = data.get(name)
    if not isinstance(value, kind):
        words = kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind)
        raise UsageError(f"`{name}` is " + ("missing" if name not in data else f"not of type {words}"))
    return value


def _number(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        with contextlib.suppress(OverflowError):  # a whole number that is larger than any
            return None if value is None else float(value)
    elif isinstance(value, str) and value in NOT_FINITE:
        return float(value)
    raise UsageError(f"`{name}` is not a number")


@contextlib.contextmanager
def _located(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path} line {number}: {error}") from error
