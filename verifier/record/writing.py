"""Write a record: each line whole in one append, and never over another run's."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus, UsageError, VerifierError
from verifier.judging.evidence import Evidence, Ladder
from verifier.judging.outcome import Outcome, Verdict
from verifier.judging.row_summary import RowSummary
from verifier.record.confirmation import Confirmation
from verifier.record.fuzz_finding import ShrunkFailure
from verifier.record.known_failure import BaselineState
from verifier.record.known_failure import settled_to_json as settled_to_json
from verifier.record.lines import FILE, SCHEMA, EndLine, LostProcess, Record, RunLine
from verifier.record.reading import first_line


class RecordLost(VerifierError):
    """The record cannot be written on: the disk is full, or it was removed while it was written.

    Attributes:
        path: the record.
        content: its lines so far, which may be nowhere else.
    """

    def __init__(self, message: str, path: Path = Path(), content: bytes = b"") -> None:
        super().__init__(message)
        self.path, self.content = path, content


# The record that stood where a new one was written.
PREVIOUS = "previous.jsonl"


class Writer:
    """Writes `record.jsonl` in a folder.

    A record that is there stays until this one's first line is written, and is kept beside it as `previous.jsonl`.

    Args:
        folder: where the record is written; `lock_folder` keeps other runs out of it.
        of: the family and the adapter, as references: a record of others is not replaced.
        shard: the shard of the run: the record of another one is not replaced.
        onto: the record in that folder that is to be continued. Its lines about cases that did not come to their end
            count for nothing.

    Raises:
        UsageError: the folder cannot be made or written, or what has the record's name is no record, or is one of
            another family, adapter or shard.
        RecordLost: the disk is full, or the record was removed while it was written.

    Attributes:
        path: the record.
        verdicts: those written so far, by case and check.
        valid: the ids of the cases written so far that Hugging Face accepts.
        ended: whether its last line is written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        of: tuple[str, str] | None = None,
        shard: str | None = None,
        onto: Record | None = None,
    ) -> None:
        self.path = folder / FILE
        self._fresh = folder / f".{FILE}.new"  # what a killed run left of it is written over: the folder is held
        self._place = self._fresh  # where the file is now
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.valid: set[str] = set()
        self._cases: dict[str, CaseSpec] = {}
        self.ended = False
        try:
            if onto is not None:
                self._file, self._place = os.open(self.path, os.O_RDWR | os.O_APPEND), self.path
                self._take_over(onto)
                return
            folder.mkdir(parents=True, exist_ok=True)
            _require_replaceable(self.path, of, shard)
            self._file = os.open(self._fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
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
        """The number of outcomes of each verdict so far."""
        return dict(Counter(self.verdicts.values()))

    def run(self, line: RunLine) -> None:
        """Write the first line; with it the record takes its place."""
        self._append({"kind": "run", "schema": SCHEMA, **asdict(line)})
        try:
            if self.path.exists():
                os.replace(self.path, self.path.with_name(PREVIOUS))
            os.replace(self._fresh, self.path)
        except OSError as error:
            raise self._lost(error.strerror) from error
        self._place = self.path

    def resumed(self, *, started: str, workers: int) -> None:
        """Write that the run was taken up again.

        Args:
            started: the time at which it was taken up, in ISO 8601 and UTC.
            workers: the number of processes from then on.
        """
        self._append({"kind": "resumed", "started": started, "workers": workers})

    def case(self, spec: CaseSpec) -> None:
        """Write a case; a case that is run several times is written once."""
        if spec.id in self._cases:
            return
        self._append({"kind": "case", "case": spec.id, **spec.to_json()})
        self._cases[spec.id] = spec
        if spec.valid:
            self.valid.add(spec.id)

    def refused(self, case: str, reason: str) -> None:
        """Write a case again, which turned out to be refused; the earlier line of the case is replaced.

        Args:
            case: the id of a case that was written.
            reason: why Hugging Face refuses it.
        """
        self.valid.discard(case)
        self.case(replace(self._cases.pop(case), valid=False, reason=reason))

    def outcome(self, case: str, outcome: Outcome) -> None:
        """Write what a check said of a case.

        Args:
            case: the id of the case.
            outcome: what the check said.
        """
        values = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
        values["fingerprint"] = outcome.fingerprint
        values = {name: value for name, value in values.items() if value is not None}
        self._append({"kind": "outcome", "case": case, **values})
        self.verdicts[case, outcome.check] = outcome.verdict

    def row(self, row: RowSummary) -> None:
        """Write what came of one circumstance of a case."""
        self._append({"kind": "row", **msgspec.to_builtins(row)})

    def done(self, case: str, seconds: float) -> None:
        """Write that every outcome of the case is there.

        Args:
            case: the id of the case.
            seconds: how long the case took.
        """
        self._append({"kind": "done", "case": case, "seconds": seconds})

    def lost(self, lost: LostProcess) -> None:
        """Write that a process died in a case."""
        self._append({"kind": "lost", **asdict(lost)})

    def evidence(self, found: Evidence | Ladder) -> None:
        """Write what the diagnosis of a case found."""
        self._append({"kind": "evidence" if isinstance(found, Evidence) else "ladder", **asdict(found)})

    def alone(self, confirmation: Confirmation) -> None:
        """Write what became of a failure that was run again alone; an earlier line of the same failure is replaced."""
        self._append({"kind": "alone", **asdict(confirmation)})

    def held(self, held: BaselineState) -> None:
        """Write the baseline of the run, and what became of each known failure; earlier lines of these are replaced."""
        self._append({"kind": "baseline", "path": held.path, "asked": dict(held.asked), "ran": dict(held.ran)})
        for one in held.settled:
            self._append({"kind": "known", **settled_to_json(one)})

    def found(self, found: ShrunkFailure) -> None:
        """Write a distinct failure of a fuzzing campaign, at its minimal case."""
        self._append({"kind": "found", **asdict(found)})

    def end(self, *, status: ExitStatus, stop: str, seconds: float) -> None:
        """Write the last line.

        Args:
            status: the exit status that the run ends with.
            stop: why the run stopped.
            seconds: since it began or was resumed.
        """
        counts = {str(verdict): number for verdict, number in sorted(self.counts.items())}
        line = EndLine(counts=counts, exit=status, stop=stop, seconds=seconds)
        self._append({"kind": "end", **asdict(line)})
        self.ended = True

    def _take_over(self, record: Record) -> None:
        """Count the outcomes of finished cases, and cut off a torn last line."""
        size = os.fstat(self._file).st_size
        torn = size - (os.pread(self._file, size, 0).rfind(b"\n") + 1)
        if torn:
            os.ftruncate(self._file, size - torn)
        self.valid = {case for case in record.done if record.cases[case].valid}
        self.verdicts = {
            (entry.case, entry.outcome.check): entry.outcome.verdict
            for entry in record.entries
            if entry.case in record.done
        }

    def _append(self, line: Mapping[str, Any]) -> None:
        """Write one line whole, or none of it.

        Raises:
            RecordLost: the disk is full, or the file is not in its place any more.
        """
        data = _spell_line(line).encode() + b"\n"
        before = os.fstat(self._file)
        try:
            if not os.path.samestat(before, os.stat(self._place)):
                raise self._lost("another file was put in its place while it was written")
        except OSError as error:
            raise self._lost("it was removed while it was written") from error
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise self._lost(error.strerror) from error
        if written < len(data):
            os.ftruncate(self._file, before.st_size)
            raise self._lost("the disk is full")

    def _lost(self, why: str | None) -> RecordLost:
        """Make the error of a record that cannot be written on, with what was written so far."""
        size = os.fstat(self._file).st_size
        content = os.pread(self._file, size, 0)
        return RecordLost(f"cannot write to {str(self.path)!r}: {why}", self.path, content)


def _require_replaceable(path: Path, of: tuple[str, str] | None, shard: str | None) -> None:
    """Make sure that what is there is nothing, or a record of the same run."""
    if not path.exists():
        return
    try:
        found = first_line(path)
    except UsageError as error:
        raise UsageError(
            f"{str(path)!r} is in the way: it is no verifier record, and is not overwritten; "
            f"name another folder with --out"
        ) from error
    if of not in (None, (found.family, found.adapter)):
        raise UsageError(
            f"{str(path)!r} is the record of another run, of {found.family} × {found.adapter}, and is not overwritten; "
            f"name another folder with --out"
        )
    there = found.asked.get("shard")
    if shard is not None and there not in (None, shard):
        raise UsageError(
            f"{str(path)!r} is the record of shard {there}, and is not overwritten by shard {shard}; name another "
            f"folder for each with --out"
        )


def _spell_line(line: Mapping[str, Any]) -> str:
    """Spell a line as JSON."""
    try:
        return json.dumps(line, allow_nan=False)
    except ValueError:  # a number that JSON cannot spell, in one line of thousands
        return json.dumps(spell_non_finite(line), allow_nan=False)


def spell_non_finite(value: Any) -> Any:
    """Replace each number that JSON cannot spell by a string: `"inf"`, `"-inf"` or `"nan"`."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): spell_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [spell_non_finite(item) for item in value]
    return value
