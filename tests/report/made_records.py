"""Cases and outcomes of a toy family, of which tests make records."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from verifier.outcome import Outcome, Verdict
from verifier.spec import CaseSpec

FLAGS = {"bias": [False, True], "alibi": [False, True], "kv_heads": [None, 1, 4]}
DIMS = {"hidden_size": 16, "layers": 2}
CHECKS = ("reference.acceptance", "build.adapter", "build.refusal", "qkv.rows", "forward.logits")

Fails = Callable[[CaseSpec, str], Outcome | None]


def specs(refused: Callable[[Mapping[str, Any]], bool] = lambda config: False) -> list[CaseSpec]:
    """The product of the flags."""
    made = []
    for values in itertools.product(*FLAGS.values()):
        config = {**DIMS, **dict(zip(FLAGS, values, strict=True))}
        no = refused(config)
        made.append(CaseSpec(family="toy", config=config, valid=not no, reason="HF says no" if no else None))
    return made


def outcome(check: str, verdict: Verdict = Verdict.PASS, **evidence: Any) -> Outcome:
    return Outcome(check=check, verdict=verdict, **evidence)
