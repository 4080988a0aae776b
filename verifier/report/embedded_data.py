"""Every outcome of a record as columns of text, small enough to travel inside a page.

A check's outcomes are a string with a letter for each case, and so are its errors over their bounds, to a tenth of an
order of magnitude; what was said is kept once for each text. Compressed, ten thousand cases of a hundred checks are
some megabytes. Where that is too much, parts are left out in the order of `LEVELS`, and the page says which.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verifier.analysis.parity import ratio
from verifier.judging import wording
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.record import Record, RecordedOutcome

LETTERS = {verdict: verdict[0] for verdict in Verdict}  # no two verdicts begin alike
NOTHING = "."
# A letter for each tenth of an order of magnitude of error over bound, from 10^-5 to 10^4; `!` is no number.
_FIRST, _LOWEST, _HIGHEST = "!", -50, 40

# What is left out, each with all before it, where a page would grow too large.
LEVELS = (
    "",
    "the errors of checks that pass",
    "the errors of checks that pass, and why checks did not run",
    "every outcome that is no failure, and every case without one",
)
LIMIT = 4_000_000  # bytes of text in a page, for one record


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedData:
    """The data of a record, and what of it was left out, in words; empty where nothing was."""

    data: str
    left_out: str


def embed_data(record: Record, limit: int = LIMIT) -> EmbeddedData:
    """The record's outcomes, with as little left out as the limit allows."""
    data = ""
    for level, left_out in enumerate(LEVELS):
        data = _encoded(_columns(record, level))
        if len(data) <= limit:
            return EmbeddedData(data=data, left_out=left_out)
    return EmbeddedData(data="", left_out="every case and outcome")


def extract_data(data: str) -> dict[str, Any]:
    """Decode the data that `embed_data` made, for tests and for whoever reads pages."""
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(data)))
    return found


def _encoded(columns: dict[str, Any]) -> str:
    plain = json.dumps(columns, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return base64.b64encode(gzip.compress(plain.encode(), compresslevel=9, mtime=0)).decode()


class _Texts:
    """Each text once, by number; -1 stands for none."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, one: str | None) -> int:
        return -1 if one is None else self._numbers.setdefault(text.line(one), len(self._numbers))

    @property
    def all(self) -> list[str]:
        return list(self._numbers)


def _columns(record: Record, level: int) -> dict[str, Any]:
    entries = [entry for entry in record.entries if level < 3 or entry.outcome.verdict.is_finding]
    chosen = list(record.cases) if level < 3 else sorted({entry.case for entry in entries})
    places = {case: place for place, case in enumerate(chosen)}
    checks = [check["id"] for check in record.run.checks]
    checks += sorted({entry.outcome.check for entry in entries} - set(checks))
    numbers = {check: number for number, check in enumerate(checks)}
    verdicts = [[NOTHING] * len(chosen) for _ in checks]
    errors = [[" "] * len(chosen) for _ in checks]
    texts, notes = _Texts(), []
    for entry in entries:
        check, case = numbers[entry.outcome.check], places[entry.case]
        verdicts[check][case] = LETTERS[entry.outcome.verdict]
        if level < 1 or entry.outcome.verdict is not Verdict.PASS:
            errors[check][case] = _error(entry)
        if _is_noted(entry, level):
            notes.append([check, case, *_note(entry, texts)])
    specs = [record.cases[case] for case in chosen]
    fields = list(dict.fromkeys([*record.run.flags, *(name for spec in specs for name in spec.config)]))
    return {
        "ids": chosen,
        "labels": [texts.number(spec.label) for spec in specs],
        "reasons": [texts.number(spec.reason) for spec in specs],
        "folders": [texts.number(shlex.quote(str(record.folder_of(case)))) for case in chosen if record.origins],
        "valid": "".join("v" if spec.valid else "-" for spec in specs),
        "seconds": [round(record.done[case], 3) if case in record.done else None for case in chosen],
        "fields": fields,
        "configs": [
            [texts.number(text.value(spec.config[name])) if name in spec.config else -1 for spec in specs]
            for name in fields
        ],
        "checks": checks,
        "verdicts": ["".join(column) for column in verdicts],
        "errors": ["".join(column).rstrip() for column in errors],
        "notes": notes,
        "texts": texts.all,
    }


def _is_noted(entry: RecordedOutcome, level: int) -> bool:
    """Whether it has more to say than its verdict and its error."""
    verdict = entry.outcome.verdict
    return verdict is not Verdict.PASS and (level < 2 or verdict is not Verdict.SKIP)


def _note(entry: RecordedOutcome, texts: _Texts) -> Sequence[Any]:
    outcome = entry.outcome
    return (
        texts.number(outcome.where),
        texts.number(wording.outcome_message(outcome)),
        texts.number(entry.fingerprint),
        texts.number(None if outcome.measured is None else text.number(outcome.measured)),
        texts.number(None if outcome.bound is None else text.number(outcome.bound)),
    )


def _error(entry: RecordedOutcome) -> str:
    found = ratio(entry.outcome)
    if found is None:
        return " "
    if not math.isfinite(found):
        return _FIRST
    tenths = _LOWEST if found <= 0 else min(max(round(10 * math.log10(found)), _LOWEST), _HIGHEST)
    return chr(ord(_FIRST) + 1 + tenths - _LOWEST)
