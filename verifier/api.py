"""`verifier.run`: the command from Python, and what came of it as an object that notebooks show."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from verifier.analysis.bugs import Bug
from verifier.analysis.view import RecordView, view_record
from verifier.commands.recording import record_run
from verifier.errors import ExitStatus, UsageError
from verifier.record import Record, read
from verifier.record.case_description import describe_case
from verifier.record.excusing import apply_known_failures
from verifier.requests.folders import REPORT_FILE
from verifier.requests.planning import plan_run
from verifier.requests.python import PythonOptions, describe_options, python_request

if TYPE_CHECKING:
    import pandas


class Result:
    """What a run found, made from its record alone.

    Args:
        record: the record.
        folder: where record and report are; None where they do not stay.
    """

    def __init__(self, record: Record, folder: Path | None = None) -> None:
        self.record = record
        self.folder = folder

    @cached_property
    def view(self) -> RecordView:
        """Everything that a report says."""
        return view_record(self.record)

    @property
    def status(self) -> ExitStatus:
        """How the command would have ended."""
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
        """What explains each failure, by fingerprint: `new_decoder_architecture and multi_query`; those that nothing
        explains are left out."""
        return {one.fingerprint: one.rule.text for one in self.failures if one.rule is not None}

    def to_dataframe(self) -> pandas.DataFrame:
        """Every outcome as a row: case, config, check, area, verdict, measured, bound, where, message, fingerprint,
        seconds.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError("to_dataframe needs pandas: pip install pandas") from error
        configs = {case: describe_case(spec) for case, spec in self.record.cases.items()}
        rows = []
        for entry in apply_known_failures(self.record).entries:
            outcome = entry.outcome
            rows.append(
                {
                    "case": entry.case,
                    "label": self.record.cases[entry.case].label,
                    "valid": self.record.cases[entry.case].valid,
                    "area": outcome.check.partition(".")[0],
                    "check": outcome.check,
                    "verdict": str(outcome.verdict),
                    "measured": outcome.measured,
                    "bound": outcome.bound,
                    "where": outcome.where,
                    "message": outcome.message,
                    "fingerprint": entry.fingerprint,
                    "seconds": outcome.seconds,
                    **configs[entry.case],
                }
            )
        return pandas.DataFrame(rows)

    def report(self, path: str | Path) -> Path:
        """Write the page of it.

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
        terminal.show_verdict(self.view.summary, console.into(text))
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
    """Run the family's cases under an adapter, as `verifier run` does, and give back what came of it.

    ```python
    result = verifier.run("falcon", "bridge", only="qkv", where={"alibi": True})
    assert result.conforms, result.failures
    ```

    Args:
        family: the family's name.
        adapter: a registered name, `module:object`, or the adapter itself, which then runs in this very process,
            without limits; None for the one that the configuration names.
        out: the folder for record and report; None for none that stays.
        progress: whether to show how far it is.
        options: any of the options that are listed below.

    Raises:
        UsageError: something of it is wrong.
        Inconclusive: no case is like that.
        VerifierError: the harness, or code from outside at its import, failed.
        KeyboardInterrupt: Ctrl-C before the first case; later on what is there is given back.
    """
    from verifier.output import console

    planned = plan_run(python_request(family, adapter, options), "this run")
    shown = console.standard_error() if progress else console.into(io.StringIO())
    with tempfile.TemporaryDirectory(prefix="verifier-") as spare:
        folder = Path(spare) if out is None else Path(out)
        path = record_run(planned, folder, shown)
        if path is None:
            raise KeyboardInterrupt
        result = Result(read(path), None if out is None else folder)
    if out is not None:
        result.report(Path(out) / REPORT_FILE)
    return result


run.__doc__ = f"{run.__doc__}\n    Options:\n{describe_options()}\n"
