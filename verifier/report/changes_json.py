"""What a change broke and mended, as JSON: everything that the terminal says, and the id of every case."""

from __future__ import annotations

import json
import math
from typing import Any

from verifier.analysis.case_changes import Side
from verifier.analysis.changes import Change, Changes, Kind
from verifier.judging import wording
from verifier.output import text
from verifier.record import Entry
from verifier.report import changes_words as words

SCHEMA = 1


def as_json(changes: Changes) -> str:
    """One object, with its keys sorted; the same text for the same records. Numbers that are not finite are texts, as
    in a record."""
    made = {
        "schema": SCHEMA,
        "exit": int(changes.status),
        "status": words.STATUS_WORDS[changes.status].lower(),
        "doubts": list(changes.doubts),
        "family": changes.new.run.family,
        "old": _side(changes.old),
        "new": _side(changes.new),
        "differences": [{"what": one.what, "old": one.old, "new": one.new} for one in changes.differences],
        "checks": {"only_old": list(changes.only_old_checks), "only_new": list(changes.only_new_checks)},
        "cases": {
            "common": changes.common,
            "only_old": list(changes.only_old),
            "only_new": list(changes.only_new),
            "failures_in_only_old": changes.unseen_failures,
        },
        "counts": {_key(kind): count for kind, count in changes.counts.items()},
        **{_key(kind): [_change(one) for one in changes.of(kind)] for kind in words.TITLES},
        _key(Kind.STILL_UPSTREAM): [_change(one) for one in changes.of(Kind.STILL_UPSTREAM)],
        "lost": [
            {"check": one.check, "reason": text.line(one.reason), "cases": list(one.cases), "failed": one.failed}
            for one in changes.lost
        ],
        "newly_reduced": {check: list(cases) for check, cases in changes.newly_reduced.items()},
        "notes": [text.line(note) for note in words.notes(changes)],
    }
    return json.dumps(_spelt(made), indent=1, sort_keys=True, allow_nan=False) + "\n"


def _key(kind: Kind) -> str:
    return kind.replace(" ", "_")


def _side(side: Side) -> dict[str, Any]:
    run = side.run
    return {
        "record": str(side.place),
        "adapter": run.adapter,
        "adapter_name": run.adapter_name,
        "adapter_version": run.adapter_version,
        "versions": dict(run.versions),
        "seed": run.seed,
        "started": run.started,
        "cases": side.cases,
        "unfinished": side.unfinished,
        "contradicts_itself": side.contradicts_itself,
    }


def _change(one: Change) -> dict[str, Any]:
    rule = one.rule
    return {
        "check": one.entry.outcome.check,
        "fingerprint": one.fingerprint,
        "failure": _entry(one.entry),
        "before": _entry(one.before),
        "fingerprints_before": list(one.were),
        "smallest": {"case": one.smallest.id, "differs": dict(one.differs), "config": dict(one.smallest.config)},
        "cases": list(one.cases),
        "not_looked_at_before": list(one.unseen),
        "stays_in": one.stays,
        "rule": None if rule is None else {"text": rule.text, "exact": rule.exact, "support": one.support},
        "explanation": one.explanation,
        "reproduce": one.reproduce,
    }


def _entry(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    outcome = entry.outcome
    return {
        "verdict": str(outcome.verdict),
        "fingerprint": entry.fingerprint,
        "where": outcome.where,
        "measured": outcome.measured,
        "bound": outcome.bound,
        "said": text.line(wording.said(outcome)) or None,
        "in": outcome.site,
    }


def _spelt(value: Any) -> Any:
    """The value with what JSON cannot spell replaced by strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _spelt(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(item) for item in value]
    return value
