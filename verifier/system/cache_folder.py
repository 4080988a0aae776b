"""The folder in which this user's processes keep what can be found out again."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "VERIFIER_CACHE_DIR"


def cache_folder() -> Path | None:
    """Name the folder, which need not be there: `VERIFIER_CACHE_DIR`, else `verifier` in the user's cache folder.

    Returns:
        The folder; None where the user has no home.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(caches):  # the XDG specification has others ignored
        return Path(caches) / "verifier"
    try:
        return Path.home() / ".cache" / "verifier"
    except RuntimeError:
        return None
