"""The report as JUnit XML, for build servers: a test case for each check, a suite for each area of it.

What Jenkins' schema (xunit, junit-10.xsd) and GitLab's parser have in common is all that is used: Jenkins shows the
first failure of a test case, and GitLab one of those with the same `classname` and `name`, so a check has one element
for all its failures, and two records of one adapter have class names of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from verifier.analysis.check_summaries import CheckSummary
from verifier.analysis.not_started import NotStarted
from verifier.analysis.view import RecordView
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict, area_of
from verifier.output import text
from verifier.report import templating

MOST_BUGS = 50  # of one check in its test case; the report has all of them
_MOST_REASONS = 5
# A dot in a class name begins another package.
_NOT_IN_A_NAME = re.compile(r"[^\w-]+")
_ERRORS = (Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT)
_SKIPPED = (Verdict.KNOWN, Verdict.SKIP)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TestCase:
    """A test case of the XML: a check, or the run as a whole.

    Attributes:
        classname: the package in which build servers show it.
        name: the check's id.
        seconds: what it took.
        kind: how it ended, as a verdict or the state of a known failure; None where it passed.
        message: why it ended so.
        check: what the check found; None for the run as a whole.
        notes: what more there is to say of the run as a whole.
    """

    classname: str
    name: str
    seconds: float = 0.0
    kind: str | None = None
    message: str = ""
    check: CheckSummary | None = None
    notes: str = ""

    @property
    def tag(self) -> str | None:
        """The element that says how it ended; None where it passed."""
        if self.kind is None or self.kind in _SKIPPED:
            return self.kind and "skipped"
        return "error" if self.check is None or self.kind in _ERRORS else "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suite:
    """The test cases of an area, with the facts of the run."""

    name: str
    cases: Sequence[_TestCase]
    started: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


def render(views: Sequence[RecordView], not_started: Sequence[NotStarted] = ()) -> str:
    """Render records, and adapters that could not be run; the same text for the same records.

    Args:
        views: the records, in the order of their suites.
        not_started: the adapters that were asked for and could not be run.

    Returns:
        The JUnit XML.
    """
    suites: list[_Suite] = []
    prefixes: list[str] = []
    for view in views:
        prefix = _prefix(view.summary.run.family, view.summary.run.adapter)
        same = sum(name == prefix or name.startswith(f"{prefix}-") for name in prefixes)
        prefixes.append(f"{prefix}-{same + 1}" if same else prefix)
        suites += _suites(view, prefixes[-1])
    for missing in not_started:
        # What was asked for and did not run is never green.
        prefix, name = _prefix(missing.family, missing.adapter), _suite_name(missing.family, missing.adapter, "run")
        message = f"{text.STATUS_WORDS[missing.status]} ({text.line(missing.reason)})"
        suites.append(_Suite(name=name, cases=[_whole_run(prefix, missing.status, message)]))
    return templating.render("junit.xml.j2", suites=suites, most_bugs=MOST_BUGS, most_reasons=_MOST_REASONS) + "\n"


def _suites(view: RecordView, prefix: str) -> Iterator[_Suite]:
    """Make a suite for each area of a record."""
    summary, run = view.summary, view.summary.run
    areas: dict[str, list[_TestCase]] = {}
    for check in view.checks:
        area = area_of(check.check)
        case = _TestCase(
            classname=f"{prefix}.{_as_name(area)}",
            name=check.check,
            seconds=max(check.seconds, 0.0),
            kind=check.result,
            message=check.message,
            check=check,
        )
        areas.setdefault(area, []).append(case)
    failing = any(case.tag in ("failure", "error") for cases in areas.values() for case in cases)
    if not failing and summary.status is not ExitStatus.CONFORMS:
        # Nothing is green that does not conform.
        notes = "\n".join(text.line(note) for note in summary.notes)
        areas["run"] = [_whole_run(prefix, summary.status, summary.verdict, notes)]
    facts = {
        "family": run.family,
        "adapter": text.subject(run.adapter, run.adapter_name, run.adapter_version),
        "seed": str(run.seed),
        "verdict": summary.headline,
        **{f"version.{name}": version for name, version in run.versions.items()},
        **{f"asked.{name}": text.value(value) for name, value in run.asked.items()},
    }
    for area, cases in areas.items():
        name = _suite_name(run.family, run.adapter, area)
        yield _Suite(name=name, cases=cases, started=_timestamp(run.started), facts=facts)


def _whole_run(prefix: str, status: ExitStatus, message: str, notes: str = "") -> _TestCase:
    """Make a test case for a run that does not conform although no check says so."""
    return _TestCase(
        classname=f"{prefix}.run", name="run.verdict", kind=status.name.lower(), message=message, notes=notes
    )


def _prefix(family: str, adapter: str) -> str:
    """`verifier.FAMILY.ADAPTER`."""
    return f"verifier.{_as_name(family)}.{_as_name(adapter)}"


def _suite_name(family: str, adapter: str, area: str) -> str:
    """`FAMILY × ADAPTER: AREA`."""
    return f"{text.line(family, 80)} × {text.line(adapter, 80)}: {text.line(area, 80)}"


def _as_name(part: str) -> str:
    """Make a text a part of a class name."""
    return _NOT_IN_A_NAME.sub("_", text.line(part, 80))


def _timestamp(started: str) -> str | None:
    """Spell a time in ISO 8601 in UTC without its zone, as Ant's schema has it; None where it cannot be read."""
    try:
        return datetime.fromisoformat(started).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return None
