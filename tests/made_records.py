"""Cases and outcomes of a toy family, of which tests make records."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from verifier.cases.spec import CaseSpec
from verifier.judging.evidence import Difference, Element, Evidence, Heat, Ladder, Rung
from verifier.judging.outcome import RECORDED, Outcome, Verdict
from verifier.judging.row_summary import RowSummary, WorstFinding
from verifier.record import Record

FLAGS = {"bias": [False, True], "alibi": [False, True], "kv_heads": [None, 1, 4]}
DIMS = {"hidden_size": 16, "layers": 2}
CHECKS = ("reference.acceptance", "build.adapter", "build.refusal", "qkv.rows", "forward.logits")

# What a terminal, a browser or a template engine might obey, and what Markdown or a tracker might.
HOSTILE = "<script>alert(1)</script> \x1b]0;title\x07\x1b[2J [bold]rich[/bold] {{ 7*7 }} \u202eevil \ud800 &amp;"
HOSTILE_MARKDOWN = (
    "`` ``` ` <b>bold</b> <!-- @someone **strong** _so_ ~~gone~~ [link](https://evil.example) ![image](x) "
    "| a \\| b \\\\| c \\\n\n# heading\n\n- item\n```\n</details>\n| x | y |\n|---|---|\x1b[2J\x00\r\u202e\ud800"
)

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


def rows_fail(spec: CaseSpec, check: str) -> Outcome | None:
    """A bug of every case with a bias."""
    if check == "qkv.rows" and spec.config["bias"]:
        return outcome(check, Verdict.FAIL, where="blocks.0.attn.hook_q", measured=0.5, bound=1e-14)
    return None


def hostile_fails(spec: CaseSpec, check: str) -> Outcome | None:
    """Hostile texts wherever an outcome has one."""
    if check == "qkv.rows" and spec.config["bias"]:
        texts = dict.fromkeys(("where", "exception", "site"), HOSTILE)
        return outcome(check, Verdict.ERROR, message=HOSTILE + "x" * 1_000_000, detail=HOSTILE * 1_000, **texts)
    if check == "forward.logits":
        return outcome(check, Verdict.SKIP, message=HOSTILE)
    return None


def of_every_verdict() -> Fails:
    """Outcomes of every verdict in turn."""
    verdicts = itertools.cycle(RECORDED)
    return lambda spec, check: outcome(check, next(verdicts), where="x", message="y")


def row(case: str, *, dtype: str = "bfloat16", ratio: float = 0.25) -> RowSummary:
    """What came of a circumstance in which an error was measured."""
    where = "blocks.0.attn.hook_q"
    return RowSummary(
        case=case,
        circumstance={"dtype": dtype, "mask": "left"},
        seconds=0.5,
        refused="double: it raises",
        passed=("forward.outputs",),
        observables={"hooks.shown": WorstFinding(ratio=ratio, where=where)},
    )


def rung(where: str, verdict: Verdict = Verdict.PASS, *, measured: float = 1e-16, bound: float = 1e-14) -> Rung:
    return Rung(where=where, verdict=verdict, measured=measured, bound=bound)


def wrong(where: str) -> Rung:
    """A place that differs."""
    return rung(where, Verdict.FAIL, measured=0.5)


def ladder(
    case: str, forward: Sequence[Rung] = (), backward: Sequence[Rung] = (), missing: Mapping[str, str] | None = None
) -> Ladder:
    return Ladder(case=case, forward=tuple(forward), backward=tuple(backward), missing=missing or {})


def looked_at(case: str, check: str, fingerprint: str | None, places: Sequence[Rung] = ()) -> Evidence:
    """What a look at the case found: a tensor of which one number of four is off."""
    difference = Difference(
        where="blocks.0.attn.hook_q",
        axes=("head", "pos"),
        shape=(2, 2),
        bound=1e-14,
        heat=Heat(axes=("head", "pos"), lengths=(2, 2), values=((0.0, 0.0), (0.0, 0.5))),
        worst=(Element(index=(1, 1), given=1.5, right=1.0),),
    )
    return Evidence(
        case=case, check=check, fingerprint=fingerprint, places=tuple(places), more=0, difference=difference
    )


def with_looks(found: Record, *looks: Evidence | Ladder) -> Record:
    """The record with what closer looks found."""
    evidence = {(one.fingerprint or "", one.case): one for one in looks if isinstance(one, Evidence)}
    return replace(found, evidence=evidence, ladders={one.case: one for one in looks if isinstance(one, Ladder)})
