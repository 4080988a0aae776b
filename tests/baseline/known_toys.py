"""Known failures of a toy family, and baselines of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verifier import record
from verifier.cases.spec import CaseSpec
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.known_failure import Baseline, BaselineState, EntryState, KnownFailure, Settled

FLAGS = {"bias": [False, True], "alibi": [False, True], "heads": [None, 1, 4]}
DIMS = {"hidden_size": 16}
CHECKS = ("build.adapter", "qkv.rows", "forward.logits")
RUN = record.RunLine(
    family="toy",
    adapter="mine:Adapter",
    adapter_name="mine",
    adapter_version="1",
    versions={"torch": "2"},
    seed=0,
    started="2024-01-01T00:00:00+00:00",
    flags=FLAGS,
    dims=DIMS,
    checks=[{"id": check, "doc": "", "applies": "valid"} for check in CHECKS],
    planned={"valid": 12, "refused": 0},
    asked={},
    workers=1,
)
Q = "blocks.0.attn.hook_q"
WRONG = Outcome(check="qkv.rows", verdict=Verdict.FAIL, where=Q)  # the toy bug
OTHER = Outcome(check="qkv.rows", verdict=Verdict.ERROR, exception="KeyError", site="mine.py:wrap", message="'q'")
ID = WRONG.fingerprint or ""


Fails = Callable[[CaseSpec, str], Outcome | None]


def bias_fails(one: CaseSpec, check: str) -> Outcome | None:
    """The toy bug: of every case with a bias."""
    return WRONG if check == WRONG.check and one.config.get("bias") else None


def spec(**config: Any) -> CaseSpec:
    """The plainest case but for these."""
    return CaseSpec(family="toy", config={**DIMS, **{name: values[0] for name, values in FLAGS.items()}, **config})


def specs() -> list[CaseSpec]:
    """The product of the flags."""
    return [spec(**dict(zip(FLAGS, values, strict=True))) for values in itertools.product(*FLAGS.values())]


def failure(**changed: Any) -> KnownFailure:
    """The toy bug, accepted wherever there is a bias."""
    usual = {
        "fingerprint": ID,
        "check": "qkv.rows",
        "rule": "bias",
        "spec": spec(bias=True),
        "reason": "the rows are in another order",
        "issue": "#7",
    }
    return KnownFailure(**{**usual, **changed})


def baseline(*failures: KnownFailure, **changed: Any) -> Baseline:
    usual = {
        "path": "known.toml",
        "digest": "",
        "family": "toy",
        "adapter": "mine:Adapter",
        "ran": {"qkv.rows": 12},
        "failures": failures,
    }
    return Baseline(**{**usual, **changed})


def settled(state: EntryState = EntryState.KNOWN, said: str | None = None, **changed: Any) -> Settled:
    return Settled(failure=failure(**changed), state=state, message=said)


def held(*some: Settled, **changed: Any) -> BaselineState:
    return BaselineState(**{"path": "known.toml", "asked": {}, "ran": {}, "settled": some, **changed})


# A finished entry as people have it in the file.
ENTRY = {
    "id": f'"{ID}"',
    "check": '"qkv.rows"',
    "rule": '"bias"',
    "reason": '"the rows are in another order"',
    "issue": '"#7"',
    "case": """'{"family": "toy", "config": {"bias": true}}'""",
}


def file(path: Path, *entries: dict[str, str | None], head: str = "", **top: str | None) -> Path:
    """A baseline as text; a key with None is left out."""
    keys = {"schema": "1", "family": '"toy"', "adapter": '"mine:Adapter"', **top}
    blocks = ["\n".join(f"{key} = {value}" for key, value in keys.items() if value is not None) + f"\n{head}"]
    for entry in entries:
        lines = (f"{key} = {value}" for key, value in {**ENTRY, **entry}.items() if value is not None)
        blocks.append("\n".join(["[[failure]]", *lines]) + "\n")
    path.write_text("\n".join(blocks))
    return path
