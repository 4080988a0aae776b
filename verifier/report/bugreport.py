"""A failure as Markdown, ready for a tracker: the adapter's, or Hugging Face's for what is upstream."""

from __future__ import annotations

import json
import re

from verifier.analysis.bugs import Bug
from verifier.judging import wording
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.record import RunLine

_DETAIL_LIMIT = 3_000


def bug_report(finding: Bug, run: RunLine) -> str:
    """What a maintainer needs: what is wrong, for which configs, where it starts, and how to see it."""
    outcome, spec = finding.entry.outcome, finding.smallest
    upstream = outcome.verdict is Verdict.UPSTREAM
    subject = "Hugging Face disagrees with itself" if upstream else f"{run.adapter_name} differs from Hugging Face"
    place = f" at {outcome.where}" if outcome.where else ""
    lines = [f"### {escaped(f'{run.family}: {subject}{place} ({outcome.check})')}", ""]
    if finding.proves:
        lines += [escaped(finding.proves, 1_000), ""]
    facts = {
        "Happens": f"in {len(finding.cases):,} of {text.plural(finding.ran, 'case')}",
        "Rule": code(finding.explanation) if finding.explanation else None,
        "Where": code(outcome.where) if outcome.where else None,
        "Starts at": escaped(finding.starts) if finding.starts else None,
        "Measured": wording.against_bound(outcome),
        "Said": escaped(wording.said(outcome)) if wording.said(outcome) else None,
        "In": code(outcome.site) if outcome.site else None,
        "Smallest config": code(text.config(finding.differs) or "the plainest one"),
        "Versions": escaped(
            f"{run.adapter_name} {run.adapter_version}, "
            + ", ".join(f"{name} {version}" for name, version in run.versions.items())
        ),
    }
    lines += [f"- **{name}**: {value}" for name, value in facts.items() if value]
    lines += [
        "",
        f"Seen with verifier: {code(f'verifier run {run.family} --adapter {run.adapter}')}, then",
        "",
        fenced(finding.reproduce, "console"),
        "",
        "<details><summary>The whole config</summary>",
        "",
        fenced(json.dumps(dict(spec.config), indent=1, sort_keys=True, ensure_ascii=True), "json"),
        "",
        "</details>",
    ]
    if outcome.detail:
        shown = text.detail(outcome.detail, _DETAIL_LIMIT)
        lines += ["", "<details><summary>Traceback</summary>", "", fenced(shown, ""), "", "</details>"]
    return "\n".join(lines) + "\n"


# What begins code, emphasis, a link, markup or a cell's end; an underscore between two letters begins nothing.
_SPECIAL = re.compile(r"([\\`*{}\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_]))")
# What a tracker makes mentions and references of is taken apart by a space that has no width.
_REFERENCES = re.compile(r"([@#])|(?<=GH)(?=-\d)")


def escaped(one: str | None, limit: int = text.LINE_LIMIT) -> str:
    """The text on one line, with nothing in it that Markdown, or a tracker's mentions and references, would read."""
    return _REFERENCES.sub(lambda match: f"{match[0]}\u200b", _SPECIAL.sub(r"\\\1", text.line(one, limit)))


def code(one: str | None) -> str:
    """The text as code on one line, whatever backticks it has."""
    shown = text.line(one)
    fence = "`" * (_longest_run(shown) + 1)
    padded = f" {shown} " if shown.startswith("`") or shown.endswith("`") else shown
    return f"{fence}{padded}{fence}"


def fenced(one: str, language: str) -> str:
    """The text as a block of code."""
    fence = "`" * max(3, _longest_run(one) + 1)
    return f"{fence}{language}\n{text.visible(one)}\n{fence}"


def _longest_run(one: str) -> int:
    return max((len(run) for run in re.findall("`+", one)), default=0)
