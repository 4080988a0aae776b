"""Keep the record of a pytest run, in the process that hears of every item."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from verifier import adapter, record
from verifier.analysis.summary import Summary, summarize
from verifier.engine import inline, recording
from verifier.engine.environment import usable_cores
from verifier.engine.events import Event, Stop
from verifier.engine.plan import Plan
from verifier.engine.run import run as run_plan
from verifier.errors import UsageError, VerifierError
from verifier.record.known_failure import Settled
from verifier.requests.folders import REPORT_FILE
from verifier.system.temporary import temporary_folder
from verifier.testing.running import Introduction, News


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """The result of a plan.

    Attributes:
        summary: of the plan's record.
        folder: where record and report are; None if they are deleted.
    """

    summary: Summary
    folder: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenRecord:
    """A record that is being written.

    Attributes:
        writer: of the record.
        introduction: what the record begins with.
        stays: whether the record is in the folder that was asked for, and not in one that is deleted.
        settled: what became of each known failure, by fingerprint.
    """

    writer: record.Writer
    introduction: Introduction
    stays: bool
    settled: dict[str, Settled]

    @property
    def engine(self) -> Callable[[Plan], Iterator[Event]] | None:
        """Runs a plan, to diagnose failures; None if nobody would see the evidence, or only another process has the
        adapter."""
        one = self.introduction
        if not self.stays or (one.is_object and not adapter.is_registered_instance(one.line.adapter)):
            return None
        return (lambda plan: run_plan(plan, workers=usable_cores())) if one.isolated else inline.run

    def write(self, events: Sequence[Event | Settled]) -> None:
        """Write what happened into the record."""
        for event in events:
            if isinstance(event, Settled):
                self.settled[event.failure.fingerprint] = event
            else:
                recording.write_event(self.writer, event)

    def end(self, stop: Stop, seconds: float) -> None:
        """Diagnose the failures and write the end of the record."""
        one = self.introduction
        if one.baseline is not None:
            self.writer.held(replace(one.baseline, settled=tuple(self.settled.values())))
        recording.finish(
            self.writer, one.plan, self.engine, recording.Silent(), isolated=one.isolated, stop=stop, seconds=seconds
        )


class Keeper:
    """Writes a record for each plan as its cases come in, and the report at the end.

    Args:
        folder: where each plan gets a folder of its own; None to keep records for the verdict only.

    Attributes:
        complaints: what could not be kept, and why. If a folder cannot be used, its record is kept elsewhere until the
            verdict is known.
    """

    def __init__(self, folder: Path | None) -> None:
        self.complaints: list[str] = []
        self._folder = folder
        self._resources = contextlib.ExitStack()
        self._records: dict[str, _OpenRecord | None] = {}  # None if not even the first line could be written

    def note(self, news: News) -> None:
        """Write what a share reports into the record of its plan."""
        try:
            if news.plan not in self._records:
                self._records[news.plan] = None
                assert news.introduction is not None
                self._records[news.plan] = self._begin(news.plan, news.introduction)
            opened = self._records[news.plan]
            if opened is not None:
                opened.write(news.events)
        except VerifierError as error:  # a full disk: the tests go on
            if str(error) not in self.complaints:
                self.complaints.append(str(error))

    def _begin(self, plan: str, introduction: Introduction) -> _OpenRecord:
        """Write the first line of a plan's record: in its folder, or elsewhere if that cannot be had."""
        line = introduction.line
        writer = None
        if self._folder is not None:
            folder = self._folder / introduction.folder
            try:
                self._resources.enter_context(record.lock_folder(folder))
                writer = record.Writer(folder, of=(line.family, line.adapter))
            except UsageError as error:
                self.complaints.append(str(error).replace("--out", "--verifier-out"))
        stays = writer is not None
        if writer is None:
            writer = record.Writer(self._resources.enter_context(temporary_folder()))
        self._resources.enter_context(writer)
        writer.run(line)
        settled = () if introduction.baseline is None else introduction.baseline.settled
        return _OpenRecord(
            writer=writer,
            introduction=introduction,
            stays=stays,
            settled={one.failure.fingerprint: one for one in settled},
        )

    def finish(self, stop: Stop, seconds: float) -> list[PlanResult]:
        """End every record, write its report, and give what came of each.

        Args:
            stop: why the session ended.
            seconds: how long it took.
        """
        results = []
        with self._resources:
            for one in filter(None, self._records.values()):
                try:
                    one.end(stop, seconds)
                    kept = record.read(one.writer.path)
                    if one.stays:
                        _report(kept)
                except VerifierError as error:
                    self.complaints.append(str(error))
                    continue
                folder = one.writer.path.parent if one.stays else None
                results.append(PlanResult(summary=summarize(kept), folder=folder))
        return results


def _report(kept: record.Record) -> None:
    from verifier.analysis.view import view_record
    from verifier.record import files
    from verifier.report import html

    files.write_report(html.render([view_record(kept)]), kept.path.with_name(REPORT_FILE))
