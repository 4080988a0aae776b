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
    """Look at everything and tell; the status is the one with which a run would end at once.

    Args:
        family: the one that would be run; None for the configured one.
        adapters: those that would be run; none for the configured ones.
        json_file: where everything goes as JSON; `-` is the standard output, which then has nothing else.

    Raises:
        UsageError: the file cannot be written.
    """
    found = diagnose(Path.cwd(), family, adapters)
    text = json.dumps(found.to_json(), indent=1) + "\n"
    if json_file is not None and json_file != STANDARD_OUTPUT:
        files.put(text, json_file)
    try:
        if json_file == STANDARD_OUTPUT:
            sys.stdout.write(text)
        else:
            from verifier.commands.doctor import printing as page
            from verifier.output import console

            page.show(found, console.standard_output())
        sys.stdout.flush()
    except BrokenPipeError:
        pipe.discard(sys.stdout)
    return found.status
