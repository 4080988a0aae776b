"""`verifier.run`: run the command from Python; its result is an object that notebooks show."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from verifier.analysis.bugs import Bug
from verifier.analysis.view import RecordView, view_record
from verifier.commands.recording import record_run
from verifier.engine.asking import asking_hugging_face
from verifier.errors import ExitStatus, UsageError
from verifier.record import Record, read
from verifier.record.case_description import describe_case
from verifier.record.excusing import apply_known_failures
from verifier.requests.folders import REPORT_FILE
from verifier.requests.planning import plan_run
from verifier.requests.python import PythonOptions, describe_options, python_request
from verifier.system.temporary import temporary_folder

if TYPE_CHECKING:
    import pandas


class Result:
    """The result of a run, made from its record alone.

    Args:
        record: the record.
        folder: where record and report are; None if they are deleted.
    """

    def __init__(self, record: Record, folder: Path | None = None) -> None:
        self.record = record
        self.folder = folder

    @cached_property
    def view(self) -> RecordView:
        """The record as a report shows it."""
        return view_record(self.record)

    @property
    def status(self) -> ExitStatus:
        """The exit status that the command would have."""
        return self.view.summary.status

    @property
    def conforms(self) -> bool:
        """Whether the adapter conforms: nothing failed that is not known, and enough was looked at."""
        return self.status is ExitStatus.CONFORMS

    @property
    def failures(self) -> tuple[Bug, ...]:
        """The adapter's distinct failures, each with its smallest case, its rule and its evidence."""
        return self.view.summary.bugs

    @property
    def upstream(self) -> tuple[Bug, ...]:
        """Where Hugging Face disagrees with itself."""
        return self.view.summary.upstream

    @property
    def rules(self) -> Mapping[str, str]:
        """The rule of each failure that has one, by fingerprint: `new_decoder_architecture and multi_query`."""
        return {one.fingerprint: one.rule.text for one in self.failures if one.rule is not None}

    def to_dataframe(self) -> pandas.DataFrame:
        """Make a table with a row for each outcome: its case with the config, and what the check found there.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError("to_dataframe needs pandas: pip install pandas") from error
        columns = ("check", "verdict", "measured", "bound", "where", "message")
        configs = {case: describe_case(spec) for case, spec in self.record.cases.items()}
        rows = []
        for entry in apply_known_failures(self.record).entries:
            outcome, spec = entry.outcome, self.record.cases[entry.case]
            rows.append(
                {
                    "case": entry.case,
                    "label": spec.label,
                    "valid": spec.valid,
                    "area": outcome.check.partition(".")[0],
                    **{column: getattr(outcome, column) for column in columns},
                    "verdict": str(outcome.verdict),
                    "fingerprint": entry.fingerprint,
                    "seconds": outcome.seconds,
                    **configs[entry.case],
                }
            )
        return pandas.DataFrame(rows)

    def report(self, path: str | Path) -> Path:
        """Write the report, an HTML page.

        Raises:
            UsageError: it cannot be written there.
        """
        from verifier.record import files
        from verifier.report import html

        files.write_report(html.render([self.view]), Path(path))
        return Path(path)

    def __repr__(self) -> str:
        from verifier.output import console
        from verifier.report import terminal

        text = io.StringIO()
        terminal.show_verdict(self.view.summary, console.stream_console(text))
        return text.getvalue().strip()

    def _repr_html_(self) -> str:
        from verifier.report.notebook import render

        return render(self.view)


def run(
    family: str,
    adapter: object = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Unpack[PythonOptions],
) -> Result:
    """Run the family's cases under an adapter, as `verifier run` does.

    ```python
    result = verifier.run("falcon", "bridge", only="qkv", where={"alibi": True})
    assert result.conforms, result.failures
    ```

    Args:
        family: the family's name.
        adapter: a registered name, `module:object`, or the adapter itself, which then runs in this process, without
            limits; None for the one that the configuration names.
        out: the folder for record and report; None to keep neither.
        progress: whether to show how far the run is.
        options: any of the options that are listed below.

    Raises:
        UsageError: an argument is wrong.
        Inconclusive: no case is selected.
        VerifierError: the harness, or code from outside at its import, failed.
        KeyboardInterrupt: Ctrl-C before the first case; after it, the result has what is there.
    """
    from verifier.output import console

    request = python_request(family, adapter, options)
    with asking_hugging_face(family):
        planned = plan_run(request, "this run")
    meter_console = console.standard_error() if progress else console.stream_console(io.StringIO())
    with temporary_folder() as spare:
        folder = spare if out is None else Path(out)
        path = record_run(planned, folder, meter_console)
        if path is None:
            raise KeyboardInterrupt
        result = Result(read(path), None if out is None else folder)
    if out is not None:
        result.report(Path(out) / REPORT_FILE)
    return result


run.__doc__ = f"{run.__doc__}\n    Options:\n{describe_options()}\n"
