"""Records as a run leaves them, made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_records import CHECKS, DIMS, FLAGS, HOSTILE, Fails, hostile_fails, outcome, specs

from verifier import record
from verifier.analysis.verdict import exit_status
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus
from verifier.output import text


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., record.Record]:
    """Writes a record of these cases, in which each check passes unless `fails` gives another outcome; reads it."""

    def write(
        cases: list[CaseSpec],
        fails: Fails = lambda spec, check: None,
        *,
        stop: str | None = "complete",
        planned: int | None = None,
        **run: Any,
    ) -> record.Record:
        line = {
            "family": "toy",
            "adapter": "mine:Adapter",
            "adapter_name": "mine",
            "adapter_version": "1",
            "versions": {"python": "3.11", "torch": "2.9", "transformers": "5.20"},
            "seed": 0,
            "started": "2024-01-01T00:00:00+00:00",
            "flags": FLAGS,
            "dims": DIMS,
            "checks": [{"id": check, "doc": f"What {check} proves."} for check in CHECKS],
            "planned": {"valid": len(cases) if planned is None else planned, "refused": 0},
            "asked": {},
            "workers": 2,
        }
        with record.Writer(tmp_path) as writer:
            told = {name: text.line(run[name]) for name in ("adapter_name", "adapter_version") if name in run}
            writer.run(record.RunLine(**{**line, **run, **told}))  # as a run writes what an adapter says of itself
            for spec in cases:
                writer.case(spec)
                for check in CHECKS:
                    if check == "reference.acceptance" or (check == "build.refusal") != spec.valid:
                        writer.outcome(spec.id, fails(spec, check) or outcome(check))
            if stop is not None:
                status = ExitStatus.INTERRUPTED if stop == "interrupted" else exit_status(writer.valid, writer.verdicts)
                writer.end(status=status, stop=stop, seconds=12.5)
        return record.read(tmp_path)

    return write


@pytest.fixture
def hostile(make: Callable[..., record.Record]) -> record.Record:
    """A record of hostile texts, in which HF refuses some cases."""
    cases = specs(lambda config: config["kv_heads"] == 4)
    return make(cases, hostile_fails, adapter=HOSTILE, adapter_name=HOSTILE, asked={"only": [HOSTILE]})
