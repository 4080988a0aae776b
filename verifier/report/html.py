"""The report as one self-contained file that needs no script and no network, made from records alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

from verifier.errors import UsageError
from verifier.outcome import Verdict
from verifier.report import terminal, text
from verifier.report.summary import Summary

# A shape for each verdict, so that none is told by colour alone.
SHAPES = {
    Verdict.PASS: "✓",
    Verdict.REDUCED: "≈",
    Verdict.FAIL: "✗",
    Verdict.ERROR: "!",
    Verdict.CRASH: "☠",
    Verdict.TIMEOUT: "◷",
    Verdict.SKIP: "–",
    Verdict.UPSTREAM: "↑",
}


def render(summaries: Sequence[Summary]) -> str:
    """The page for one record or several; the same bytes for the same records."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("verifier.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "line": text.line,
        "detail": text.detail,
        "config": text.config,
        "value": text.value,
        "number": text.number,
        "marked": text.marked,
        "said": text.said,
        "duration": text.duration,
        "limits": text.limits,
    }
    environment.globals |= {
        "plural": text.plural,
        "died": (Verdict.CRASH, Verdict.TIMEOUT),
        "checks": terminal.checks,
        "reasons": terminal.reasons,
        "words": text.VERDICT_WORDS,
        "statuses": text.STATUS_WORDS,
        "shapes": SHAPES,
        "verdicts": tuple(Verdict),
    }
    return environment.get_template("report.html.j2").render(summaries=summaries)


def write(summaries: Sequence[Summary], path: Path) -> None:
    """Write the page; a page that is there is replaced whole or not at all.

    Raises:
        UsageError: it cannot be written there.
    """
    page = render(summaries)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(page, encoding="utf-8")
        os.replace(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise UsageError(f"cannot write the report {str(path)!r}: {error.strerror}") from error
