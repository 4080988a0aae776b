"""Records of the toy family, written and read as those of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from known_toys import CHECKS, RUN, Fails, bias_fails, specs

from verifier import record
from verifier.analysis.verdict import exit_status
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.known_failure import BaselineState

Make = Callable[..., record.Record]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a record of the toy family in which the toy bug is, and reads it."""

    def write(
        fails: Fails = bias_fails,
        *,
        cases: Sequence[CaseSpec] = (),
        checks: Sequence[str] = CHECKS,
        against: BaselineState | None = None,
        stop: str | None = "complete",
        name: str = "run",
        **run: Any,
    ) -> record.Record:
        with record.Writer(tmp_path / name) as writer:
            writer.run(replace(RUN, **run))
            if against is not None:
                writer.held(against)
            for one in cases or specs():
                writer.case(one)
                for check in checks:
                    writer.outcome(one.id, fails(one, check) or Outcome(check=check, verdict=Verdict.PASS))
                writer.done(one.id, 0.5)
            if stop is not None:
                status = ExitStatus.INTERRUPTED if stop == "interrupted" else exit_status(writer.valid, writer.verdicts)
                writer.end(status=status, stop=stop, seconds=1.0)
        return record.read(tmp_path / name)

    return write
