"""Print what the doctor found in the terminal: the facts first, and what is in the way last."""

from __future__ import annotations

from rich.text import Text

from verifier.commands.doctor.facts import Diagnosis, Section
from verifier.errors import ExitStatus
from verifier.output import text
from verifier.output.console import show_rows, standard_output

_NO_FILE = "no file: neither [tool.verifier] in a pyproject.toml nor a verifier.toml, here or above"


def show(found: Diagnosis) -> None:
    """Print every section that has facts, every problem, and whether a run would begin."""
    console = standard_output()
    for section in Section:
        rows = [row for fact in found.facts if fact.section is section for row in fact.rows]
        if rows:
            file = f": {found.file or _NO_FILE}" if section is Section.SETTINGS else ""
            console.print(Text(text.line(section + file), style="bold"))
            show_rows(rows, console, indent=2)
            console.print()
    for problem in found.problems:
        mark, style = ("!", "yellow") if problem.status is None else ("✗", "bold red")
        console.print(Text(f"{mark} {text.line(problem.what)}", style), soft_wrap=True)
        console.print(Text(f"  {text.line(problem.remedy)}"), soft_wrap=True)
    if found.status is not ExitStatus.CONFORMS:
        verdict = Text("`verifier run` would not begin here", style="bold red")
    else:
        is_planned = any(fact.section is Section.PLANNED for fact in found.facts)
        verdict = Text(f"`verifier run{'' if is_planned else ' FAMILY'}` would begin here", style="bold green")
    console.print(verdict, soft_wrap=True)
