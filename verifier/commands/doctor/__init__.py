"""`verifier doctor`: what is installed, configured and registered here, what a run would do, and what is in its way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from verifier.commands.doctor.diagnosing import diagnose
from verifier.errors import ExitStatus
from verifier.output import pipe
from verifier.record import files

STANDARD_OUTPUT = Path("-")


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
    text = json.dumps(diagnosis.to_json(), indent=1) + "\n"
    if json_file is not None and json_file != STANDARD_OUTPUT:
        files.write_report(text, json_file)
    with pipe.until_closed(sys.stdout):
        if json_file == STANDARD_OUTPUT:
            sys.stdout.write(text)
        else:
            from verifier.commands.doctor import printing

            printing.show(diagnosis)
    return diagnosis.status
