"""`verifier selftest`: planted faults, and whether each check sees its own."""

from __future__ import annotations

from pathlib import Path

from verifier.commands.run import require_adapter
from verifier.errors import ExitStatus


def selftest(
    family: str, adapter: str, seed: int, *, as_markdown: bool = False, json_file: Path | None = None
) -> ExitStatus:
    """Plant the faults and print the kill table, for a terminal or as Markdown.

    Raises:
        UsageError: the family or the adapter is not what it should be.
    """
    require_adapter(adapter)
    from verifier.faults.selftest import main  # imports torch

    status: ExitStatus = main(family, adapter, seed, as_markdown=as_markdown, json_file=json_file)
    return status
