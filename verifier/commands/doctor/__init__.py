"""`verifier doctor`: what is installed, configured and registered here, what a run would do, and what is in its way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from verifier.commands.doctor.diagnosing import diagnose
from verifier.commands.doctor.facts import Diagnosis, Section
from verifier.errors import ExitStatus
from verifier.output import pipe, text
from verifier.record import files

STANDARD_OUTPUT = Path("-")
_NO_FILE = "no file: neither [tool.verifier] in a pyproject.toml nor a verifier.toml, here or above"


def doctor(family: str | None, adapters: tuple[str, ...], json_file: Path | None) -> ExitStatus:
    """Look at everything that a run needs, and print what was found.

    Args:
        family: the family that would be run; None for the configured one.
        adapters: the adapters that would be run; none for the configured ones.
        json_file: the file that everything is written to as JSON; `-` is the standard output, which then has only that.

    Returns:
        The exit status that a run would end with at once; `CONFORMS` if it would begin.

    Raises:
        UsageError: the file cannot be written.
    """
    diagnosis = diagnose(Path.cwd(), family, adapters)
    as_json = json.dumps(diagnosis.to_json(), indent=1) + "\n"
    if json_file is not None and json_file != STANDARD_OUTPUT:
        files.write_report(as_json, json_file)
    with pipe.until_closed(sys.stdout):
        if json_file == STANDARD_OUTPUT:
            sys.stdout.write(as_json)
        else:
            _print(diagnosis)
    return diagnosis.status


def _print(diagnosis: Diagnosis) -> None:
    """Print every section that has facts, every problem, and whether a run would begin."""
    from rich.text import Text

    from verifier.output.console import show_rows, standard_output

    console = standard_output()
    for section in Section:
        rows = [row for fact in diagnosis.facts if fact.section is section for row in fact.rows]
        if rows:
            file = f": {diagnosis.file or _NO_FILE}" if section is Section.SETTINGS else ""
            console.print(Text(text.line(section + file), style="bold"))
            show_rows(rows, console, indent=2)
            console.print()
    for problem in diagnosis.problems:
        mark, style = ("!", "yellow") if problem.status is None else ("✗", "bold red")
        console.print(Text(f"{mark} {text.line(problem.what)}", style), soft_wrap=True)
        console.print(Text(f"  {text.line(problem.remedy)}"), soft_wrap=True)
    if diagnosis.status is not ExitStatus.CONFORMS:
        verdict = Text("`verifier run` would not begin here", style="bold red")
    else:
        is_planned = any(fact.section is Section.PLANNED for fact in diagnosis.facts)
        verdict = Text(f"`verifier run{'' if is_planned else ' FAMILY'}` would begin here", style="bold green")
    console.print(verdict, soft_wrap=True)
