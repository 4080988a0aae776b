"""The record of a pytest run: kept by the process that hears of every item."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from verifier import adapter, record
from verifier.analysis.summary import Summary, summarise
from verifier.cases.spec import CaseSpec
from verifier.engine import diagnose, inline
from verifier.engine.environment import usable_cores
from verifier.engine.events import Event, Stop
from verifier.engine.limits import Limits
from verifier.engine.plan import Plan
from verifier.engine.run import run as run_plan
from verifier.errors import UsageError, VerifierError
from verifier.judging.outcome import Verdict
from verifier.record.known_failure import BaselineState, Settled, settled_of
from verifier.requests.folders import REPORT_FILE
from verifier.testing.running import outcome_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What came of a plan.

    Attributes:
        summary: of its record.
        folder: where record and report are; None where they do not stay.
    """

    summary: Summary
    folder: Path | None


@dataclass(slots=True, kw_only=True)
class _Open:
    """A record that is being written.

    Attributes:
        writer: of the record.
        run: its first line.
        stays: whether it is where it was asked for.
        engine: what a closer look is made with; None where the adapter is an object of another process.
        held: what it is held against.
        settled: what became of each known failure, by fingerprint.
        cases: the ids of those that are in it.
    """

    writer: record.Writer
    run: record.RunLine
    stays: bool
    engine: Callable[[Plan], Iterator[Event]] | None
    held: BaselineState | None
    settled: dict[str, Settled]
    cases: set[str] = field(default_factory=set)


class Keeper:
    """Writes a record for each plan as its cases come in, and the report at the end.

    Args:
        folder: where, each plan in a folder of its own; None for nowhere that stays.

    Attributes:
        complaints: what could not be kept, and why. Where a folder cannot be had its record is kept elsewhere, for the
            verdict.
    """

    def __init__(self, folder: Path | None) -> None:
        self.complaints: list[str] = []
        self._folder = folder
        self._folders = contextlib.ExitStack()
        self._spare: Path | None = None
        self._open: dict[str, _Open | None] = {}  # None where not even the first line could be written

    def note(self, news: Mapping[str, Any]) -> None:
        """Take in what a share told."""
        plan = news["plan"]
        try:
            if plan not in self._open:
                self._open[plan] = None
                self._open[plan] = self._begin(plan, news["of"])
            one = self._open[plan]
            if one is not None:
                self._write(one, news)
        except VerifierError as error:  # a full disk: the tests go on
            if str(error) not in self.complaints:
                self.complaints.append(str(error))

    def _write(self, one: _Open, news: Mapping[str, Any]) -> None:
        for case in news["cases"]:
            spec = CaseSpec.from_json(case["spec"])
            if spec.id not in one.cases:
                one.writer.case(spec)
                one.cases.add(spec.id)
            for lost in news["lost"]:
                if lost["case"] == spec.id:
                    one.writer.lost(record.Lost(**{**lost, "verdict": Verdict(lost["verdict"])}))
            for outcome in case["outcomes"]:
                one.writer.outcome(spec.id, outcome_of(outcome))
            one.writer.done(spec.id, case["seconds"])
        for data in news["settled"]:
            found = settled_of(data)
            one.settled[found.failure.fingerprint] = found

    def _begin(self, plan: str, of: Mapping[str, Any]) -> _Open:
        line = record.RunLine(**of["run"])
        writer = None if self._folder is None else self._writer(self._folder / of["folder"], line)
        stays = writer is not None
        if writer is None:
            if self._spare is None:
                self._spare = Path(self._folders.enter_context(tempfile.TemporaryDirectory(prefix="verifier-")))
            writer = record.Writer(self._spare / plan)
        writer.run(line)
        held = of["held"]
        settled = [settled_of(one) for one in held["settled"]] if held is not None else []
        return _Open(
            writer=self._folders.enter_context(writer),
            run=line,
            stays=stays,
            engine=_engine(line.adapter, isolated=of["isolated"], is_object=of["object"]),
            held=None if held is None else BaselineState(**{**held, "settled": ()}),
            settled={one.failure.fingerprint: one for one in settled},
        )

    def _writer(self, folder: Path, line: record.RunLine) -> record.Writer | None:
        """Of a record there; None where that cannot be had."""
        try:
            self._folders.enter_context(record.held(folder))
            return record.Writer(folder, of=(line.family, line.adapter))
        except UsageError as error:
            self.complaints.append(str(error).replace("--out", "--verifier-out"))
            return None

    def finish(self, stop: Stop, seconds: float) -> list[Kept]:
        """End every record and write its report; what came of each.

        Args:
            stop: why the session ended.
            seconds: how long it took.
        """
        found = []
        with self._folders:
            for one in filter(None, self._open.values()):
                try:
                    self._end(one, stop, seconds)
                    kept = record.read(one.writer.path)
                    if one.stays:
                        _report(kept)
                except VerifierError as error:
                    self.complaints.append(str(error))
                    continue
                folder = one.writer.path.parent if one.stays else None
                found.append(Kept(summary=summarise(kept), folder=folder))
        return found

    def _end(self, one: _Open, stop: Stop, seconds: float) -> None:
        if one.held is not None:
            one.writer.held(replace(one.held, settled=tuple(one.settled.values())))
        limits = Limits(seconds=one.run.limits.get("timeout"), bytes=one.run.limits.get("memory"))
        device = str(one.run.asked.get("device", "cpu"))
        plan = Plan(family=one.run.family, adapter=one.run.adapter, specs=(), device=device, limits=limits)
        engine = one.engine if one.stays else None  # nobody would see what it finds
        diagnose.finish_record(one.writer, plan, engine, lambda cases: None, stop=stop, seconds=seconds)


def _engine(reference: str, *, isolated: bool, is_object: bool) -> Callable[[Plan], Iterator[Event]] | None:
    if isolated:
        return lambda plan: run_plan(plan, workers=usable_cores())
    if is_object and not adapter.is_registered_instance(reference):
        return None
    return inline.run


def _report(kept: record.Record) -> None:
    from verifier.analysis.view import view_record
    from verifier.record import files
    from verifier.report import html

    files.put(html.render([view_record(kept)]), kept.path.with_name(REPORT_FILE))
