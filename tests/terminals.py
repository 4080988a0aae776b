"""The environment of a person at a terminal, wherever the tests themselves run."""

from __future__ import annotations

import os

# What tells a program that it runs in CI, that it is to colour what it prints, or what another Python, pytest or
# GitHub step was told: with any of them the same command prints other things.
TOLD = ("CI", "BUILD_NUMBER", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
TOLD_BY = ("PYTEST_", "PYTHON", "GITHUB_")


def environment(**variables: str) -> dict[str, str]:
    """That of the tests without any of this, and with these variables."""
    inherited = {name: value for name, value in os.environ.items() if name not in TOLD and not name.startswith(TOLD_BY)}
    return inherited | variables
