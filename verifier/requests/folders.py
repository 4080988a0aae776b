"""Where the record and the report of a run go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from verifier.requests.request import RunOptions

REPORTS = Path("reports")
REPORT_FILE = "report.html"


def folder_name(*parts: str) -> str:
    """The name of a folder that is of these."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))


def result_folders(options: RunOptions, references: Sequence[str]) -> list[Path]:
    """The folder of each adapter's record and report."""
    shard = [] if options.shard is None else [f"{options.shard.number}-of-{options.shard.of}"]
    names = [folder_name(options.family, reference, *shard) for reference in references]
    if options.out is None:
        return [REPORTS / name for name in names]
    return [options.out] if len(names) == 1 else [options.out / name for name in names]
