"""A record with a line of every kind, of a toy family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from made_records import looked_at, outcome, row, rung, specs, wrong

from verifier import record
from verifier.errors import ExitStatus
from verifier.judging.evidence import Ladder
from verifier.judging.outcome import Verdict
from verifier.record.fuzz_finding import PassingNeighbour, ShrunkFailure
from verifier.record.known_failure import BaselineState, EntryState, KnownFailure, Settled


def write_every_line(folder: Path) -> list[dict[str, Any]]:
    """Write the record into a folder, and give its lines."""
    line = record.RunLine(
        family="toy",
        adapter="mine:Adapter",
        adapter_name="mine",
        adapter_version="1",
        versions={"python": "3.11"},
        seed=0,
        started="2024-01-01T00:00:00+00:00",
        flags={"bias": [False, True]},
        dims={"hidden_size": 8},
        checks=[{"id": "qkv.rows", "doc": "What it proves.", "applies": "valid"}],
        planned={"valid": 2, "refused": 0},
        asked={"only": ["qkv"], "shard": "1/2"},
        workers=2,
        limits={"timeout": 60.0, "memory": 2**31},
    )
    good, bad = specs()[:2]
    failed = outcome("qkv.rows", Verdict.FAIL, where="blocks.0.attn.hook_q", measured=0.5, bound=1e-14, message="off")
    assert failed.fingerprint is not None
    known = KnownFailure(
        fingerprint=failed.fingerprint, check="qkv.rows", rule="bias", spec=bad, reason="so", issue="#7"
    )
    with record.Writer(folder) as writer:
        writer.run(line)
        writer.held(
            BaselineState(
                path="known.toml",
                asked={},
                ran={"qkv.rows": 2},
                settled=(Settled(failure=known, state=EntryState.KNOWN),),
            )
        )
        for spec, came in ((good, outcome("qkv.rows")), (bad, failed)):
            writer.case(spec)
            writer.lost(record.LostProcess(case=spec.id, check="qkv.rows", verdict=Verdict.CRASH, reason="ended"))
            writer.row(row(spec.id))
            writer.outcome(spec.id, came)
            writer.done(spec.id, 0.5)
        writer.resumed(started="2024-01-01T00:00:00+00:00", workers=2)
        writer.evidence(looked_at(bad.id, "qkv.rows", failed.fingerprint, [wrong("blocks.0.attn.hook_q")]))
        writer.evidence(Ladder(case=bad.id, forward=(rung("embed"),), backward=(), missing={"backward": "none"}))
        writer.found(
            ShrunkFailure(
                fingerprint=failed.fingerprint,
                check="qkv.rows",
                case=bad.id,
                differs={"bias": True},
                first=2,
                calls=7,
                again=(2, 2),
                neighbours=(PassingNeighbour(field="bias", value=False, case=good.id, verdict=Verdict.PASS),),
            )
        )
        writer.end(status=ExitStatus.DIFFERS, stop="complete", seconds=1.5)
    return [json.loads(line) for line in (folder / record.FILE).read_text().splitlines()]
