"""Name the folders that the records and reports of a run go to."""

from __future__ import annotations

import re
from pathlib import Path

from verifier.requests.request import RunRequest

REPORTS = Path("reports")
REPORT_FILE = "report.html"


def folder_name(*parts: str) -> str:
    """Make the name of a folder out of these parts."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))


def result_folders(request: RunRequest) -> dict[str, Path]:
    """Name the folder of each adapter's record and report, by the adapter's reference."""
    shard = [] if request.shard is None else [f"{request.shard.number}-of-{request.shard.of}"]
    names = {adapter: folder_name(request.family, adapter, *shard) for adapter in request.adapters}
    if request.out is not None and len(request.adapters) == 1:
        return {request.adapter: request.out}
    return {adapter: (request.out or REPORTS) / name for adapter, name in names.items()}
