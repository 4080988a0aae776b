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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from verifier.analysis.error_ratios import ratio
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
    """The encoded data of a record, and in words what of it was left out; empty where nothing was."""

    data: str
    left_out: str


def embed_data(record: Record, limit: int = LIMIT) -> EmbeddedData:
    """Encode a record's outcomes, with as little left out as the limit allows, in bytes.

    Args:
        record: what was run.
        limit: the largest length of the encoded data, in bytes.
    """
    for level, left_out in enumerate(LEVELS):
        data = _encode(_make_columns(record, level))
        if len(data) <= limit:
            return EmbeddedData(data=data, left_out=left_out)
    return EmbeddedData(data="", left_out="every case and outcome")


def _encode(columns: dict[str, Any]) -> str:
    """Compress columns, and write them as base64; the same text for the same columns."""
    plain = json.dumps(columns, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return base64.b64encode(gzip.compress(plain.encode(), compresslevel=9, mtime=0)).decode()


class _Texts(dict[str, int]):
    """Texts, each with the number by which the page knows it; -1 stands for none."""

    def number(self, one: str | None) -> int:
        """Give the number of a text, a new one to a new text."""
        return -1 if one is None else self.setdefault(text.line(one), len(self))


def _make_columns(record: Record, level: int) -> dict[str, Any]:
    """Write a record as columns, without what that level and all before it leave out."""
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
            errors[check][case] = _spell_error(entry)
        if _is_noted(entry, level):
            notes.append([check, case, *_make_note(entry, texts)])
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
        "texts": list(texts),
    }


def _is_noted(entry: RecordedOutcome, level: int) -> bool:
    """Whether it has more to say than its verdict and its error."""
    verdict = entry.outcome.verdict
    return verdict is not Verdict.PASS and (level < 2 or verdict is not Verdict.SKIP)


def _make_note(entry: RecordedOutcome, texts: _Texts) -> Iterator[int]:
    """Number what an outcome says: its place, message, fingerprint, error and bound."""
    outcome = entry.outcome
    numbers = (None if one is None else text.number(one) for one in (outcome.measured, outcome.bound))
    return map(texts.number, (outcome.where, wording.outcome_message(outcome), entry.fingerprint, *numbers))


def _spell_error(entry: RecordedOutcome) -> str:
    """Spell an outcome's error over its bound as one letter; a blank where it has none."""
    error = ratio(entry.outcome)
    if error is None:
        return " "
    if not math.isfinite(error):
        return _FIRST
    tenths = _LOWEST if error <= 0 else min(max(round(10 * math.log10(error)), _LOWEST), _HIGHEST)
    return chr(ord(_FIRST) + 1 + tenths - _LOWEST)
