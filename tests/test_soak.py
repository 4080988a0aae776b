"""The soak, short: each planted death costs its own case, and the script says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SOAK = Path(__file__).parent.parent / "benchmarks" / "soak.py"


def test_every_case_has_the_verdict_that_was_planted_in_it() -> None:
    ended = subprocess.run(
        [sys.executable, str(SOAK), "--cases", "100"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "every case has its verdict: 97 pass, 2 crash, 1 timeout"
