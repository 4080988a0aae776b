"""What is kept of a run: a JSON Lines file of schema 1, appended as results come, and read back with suspicion.

Its lines, each one object written whole in one append:

- `run`, first: family, adapter (both as references), versions, seed, flags with their values (plainest first), dims,
  the selected checks with what they prove, how many cases are planned, and what was asked for;
- `case`: the case's id and every field of its `CaseSpec`, before its outcomes;
- `outcome`: the case's id and every field of an `Outcome` that is not None, with its fingerprint;
- `end`: counts by verdict, the exit status, why the run stopped, and its seconds.

JSON has no spelling for numbers that are not finite; they stand as the strings `"inf"`, `"-inf"` and `"nan"`. A later
line for the same case and check replaces the earlier one. Lines of other kinds are left aside.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from verifier.errors import ExitStatus, UsageError, VerifierError
from verifier.outcome import Outcome, Verdict
from verifier.spec import CaseSpec

SCHEMA = 1
FILE = "record.jsonl"

_NOT_FINITE = ("inf", "-inf", "nan")
# What two runs with one seed may differ in.
_CIRCUMSTANCES = frozenset({"seconds", "started", "workers", "out"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """The first line: what was run.

    Attributes:
        family: reference.
        adapter: reference.
        adapter_name: what it calls itself.
        adapter_version: as it says.
        versions: of Python and of the distributions that matter.
        seed: of weights and inputs.
        started: ISO 8601, UTC.
        flags: every flag and its values, the plainest first.
        dims: the dims that the flag matrix gives to every combination.
        checks: id and what it proves, in the order in which they run.
        planned: how many `valid` and `refused` cases.
        asked: the options that narrowed the run, as the user wrote them.
        workers: processes.
    """

    family: str
    adapter: str
    adapter_name: str
    adapter_version: str
    versions: Mapping[str, str]
    seed: int
    started: str
    flags: Mapping[str, Sequence[Any]]
    dims: Mapping[str, Any]
    checks: Sequence[Mapping[str, str]]
    planned: Mapping[str, int]
    asked: Mapping[str, Any]
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLine:
    """The last line: how it ended."""

    counts: Mapping[str, int]
    exit: int
    stop: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An outcome on a case, with the fingerprint that was written."""

    case: str
    outcome: Outcome
    fingerprint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record that was read.

    Attributes:
        path: where it was.
        run: its first line.
        cases: by id, in the order of the file.
        entries: one for each case and check, in the order of the file.
        end: its last line; None where the run was killed.
        notes: what a reader should know of the file, in sentences.
    """

    path: Path
    run: RunLine
    cases: Mapping[str, CaseSpec]
    entries: tuple[Entry, ...]
    end: EndLine | None
    notes: tuple[str, ...]


# ---------------------------------------------------------------- writing


class Writer:
    """Writes `record.jsonl` in a folder; a record that is there stays until this one's first line is written.

    Raises:
        UsageError: the folder cannot be made or written, or what has the record's name is no record.
        VerifierError: the disk is full; what was written before stays readable.

    Attributes:
        path: the record.
        verdicts: those written so far, by case and check.
        valid: the ids of the cases written so far that HF accepts.
        ended: whether its last line is written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._fresh = folder / f".{FILE}.{os.getpid()}"
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.valid: set[str] = set()
        self.ended = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_replaceable(self.path)
            self._file = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"cannot write a record into {str(folder)!r}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._fresh.unlink(missing_ok=True)  # there only if no first line was written

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many outcomes of each verdict so far."""
        return dict(Counter(self.verdicts.values()))

    def run(self, line: RunLine) -> None:
        """The first line; with it the record takes its place."""
        self._append({"kind": "run", "schema": SCHEMA, **asdict(line)})
        os.replace(self._fresh, self.path)

    def case(self, spec: CaseSpec) -> None:
        self._append({"kind": "case", "case": spec.id, **spec.to_json()})
        if spec.valid:
            self.valid.add(spec.id)

    def outcome(self, case: str, outcome: Outcome) -> None:
        values = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
        values["fingerprint"] = outcome.fingerprint
        values = {name: value for name, value in values.items() if value is not None}
        self._append({"kind": "outcome", "case": case, **values})
        self.verdicts[case, outcome.check] = outcome.verdict

    def end(self, *, status: ExitStatus, stop: str, seconds: float) -> None:
        counts = {str(verdict): number for verdict, number in sorted(self.counts.items())}
        line = EndLine(counts=counts, exit=int(status), stop=stop, seconds=seconds)
        self._append({"kind": "end", **asdict(line)})
        self.ended = True

    def _append(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(_spelt(line), allow_nan=False).encode() + b"\n"
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise VerifierError(f"cannot write to {str(self.path)!r}: {error.strerror}") from error
        if written < len(data):
            os.ftruncate(self._file, before)
            raise VerifierError(f"cannot write to {str(self.path)!r}: the disk is full")


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            _run_line(path, _parse(path, 1, file.readline()))
    except (UsageError, OSError) as error:
        raise UsageError(
            f"{str(path)!r} is in the way: it is no verifier record, and is not overwritten; "
            f"name another folder with --out"
        ) from error


def _spelt(value: Any) -> Any:
    """The value with what JSON cannot spell replaced by strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _spelt(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(item) for item in value]
    return value


# ---------------------------------------------------------------- reading


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
    run = _run_line(path, _parse(path, 1, lines[0]))
    cases: dict[str, CaseSpec] = {}
    entries: dict[tuple[str, str], Entry] = {}
    end: EndLine | None = None
    strange: Counter[str] = Counter()
    for number, data in _objects(path, lines, notes):
        kind = data.get("kind")
        with _located(path, number):
            if kind == "case":
                cases[_take(data, "case", str)] = CaseSpec.from_json(data)
            elif kind == "outcome":
                entry = _entry(data, cases)
                entries.pop((entry.case, entry.outcome.check), None)
                entries[entry.case, entry.outcome.check] = entry
            elif kind == "end":
                end = _end(data)
            else:
                strange[str(kind)] += 1
    for kind, number in sorted(strange.items()):
        notes.append(f"{number} line(s) of the kind {kind!r}, which this version does not know, were left aside")
    if end is None:
        notes.append("the run was cut off: the record has no last line")
    return Record(path=path, run=run, cases=cases, entries=tuple(entries.values()), end=end, notes=tuple(notes))


def _objects(path: Path, lines: list[bytes], notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines[1:], start=2):
        try:
            yield number, _parse(path, number, line)
        except UsageError:
            if number == len(lines) and not line.endswith(b"\n"):
                notes.append(f"line {number}, the last one, is torn and was skipped")
                return
            raise


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} line {number}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} line {number}: not JSON: {error.msg} at column {error.colno}") from error
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
        return RunLine(**values)


def _entry(data: Mapping[str, Any], cases: Mapping[str, CaseSpec]) -> Entry:
    case = _take(data, "case", str)
    if case not in cases:
        raise UsageError(f"an outcome of case {case!r}, which has no line before it")
    verdict = _take(data, "verdict", str)
    if verdict not in tuple(Verdict):
        raise UsageError(f"unknown verdict {verdict!r}")
    words = ("where", "message", "exception", "site", "detail")
    outcome = Outcome(
        check=_take(data, "check", str),
        verdict=Verdict(verdict),
        measured=_number(data, "measured"),
        bound=_number(data, "bound"),
        seconds=_number(data, "seconds") or 0.0,
        **{word: _take(data, word, (str, type(None))) for word in words},
    )
    return Entry(case=case, outcome=outcome, fingerprint=_take(data, "fingerprint", (str, type(None))))


def _end(data: Mapping[str, Any]) -> EndLine:
    return EndLine(
        counts=_take(data, "counts", dict),
        exit=_take(data, "exit", int),
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
        return None if value is None else float(value)
    if value in _NOT_FINITE:
        return float(value)
    raise UsageError(f"`{name}` is not a number")


@contextlib.contextmanager
def _located(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path} line {number}: {error}") from error


# ---------------------------------------------------------------- comparing


def same(first: Path, second: Path) -> bool:
    """Whether two files are of the same result: equal but for times, the number of workers and the order of lines.

    The last output of a process that crashed depends on what it had run before, and is left out too.
    """
    return _essence(first) == _essence(second)


def _essence(path: Path) -> list[str]:
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        data = {key: value for key, value in _parse(path, number, line).items() if key not in _CIRCUMSTANCES}
        if data.get("verdict") == Verdict.CRASH:
            data.pop("detail", None)
        lines.append(json.dumps(data, sort_keys=True))
    return sorted(lines)
