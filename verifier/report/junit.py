"""The report as JUnit XML, for build servers: a test case for each check, a suite for each area of it.

What Jenkins' schema (xunit, junit-10.xsd) and GitLab's parser have in common is all that is used: Jenkins shows the
first failure of a test case, and GitLab one of those with the same `classname` and `name`, so a check has one element
for all its failures, and two records of one adapter have class names of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from verifier.analysis.accepted import Accepted
from verifier.analysis.bugs import Bug
from verifier.analysis.checked import Checked
from verifier.analysis.not_started import NotStarted
from verifier.analysis.summary import Summary, gating
from verifier.analysis.view import RecordView
from verifier.errors import ExitStatus
from verifier.judging import wording
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.report import terminal

MOST_FINDINGS = 50  # of one check in its test case; the report has all of them
_MOST_REASONS = 5
# A dot in a class name begins another package.
_NOT_IN_A_NAME = re.compile(r"[^\w-]+")
# What XML 1.0 has no way to hold, besides the control characters and surrogates that are written out anyway.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FAILURES = ("failure", "error", "skipped")


def render(views: Sequence[RecordView], not_started: Sequence[NotStarted] = ()) -> str:
    """One record or several, and the adapters of which there is none; the same text for the same records."""
    root = ElementTree.Element("testsuites", name="verifier")
    for one, prefix in zip(views, _prefixes(views), strict=True):
        root.extend(_suites(one, prefix))
    root.extend(_not_started(one) for one in not_started)
    suites = list(root)
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.attrib[name]) for suite in suites)))
    root.set("time", _seconds(sum(float(suite.attrib["time"]) for suite in suites)))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _prefixes(views: Sequence[RecordView]) -> list[str]:
    """`verifier.FAMILY.ADAPTER`, with a number for the second of one adapter."""
    found: list[str] = []
    for one in views:
        run = one.summary.run
        prefix = f"verifier.{_name(run.family)}.{_name(run.adapter)}"
        same = sum(name == prefix or name.startswith(f"{prefix}-") for name in found)
        found.append(f"{prefix}-{same + 1}" if same else prefix)
    return found


def _not_started(one: NotStarted) -> ElementTree.Element:
    """A suite with a test case that says so: what was asked for and did not run is never green."""
    prefix = f"verifier.{_name(one.family)}.{_name(one.adapter)}"
    case = _element("testcase", classname=f"{prefix}.run", name="run.verdict", time=_seconds(0.0))
    words = f"{text.STATUS_WORDS[one.status]} ({text.line(one.reason)})"
    case.append(_element("error", type=one.status.name.lower(), message=words))
    name = f"{text.line(one.family, 80)} × {text.line(one.adapter, 80)}: run"
    counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
    suite = _element("testsuite", name=name, **counts, time=_seconds(0.0))
    suite.append(case)
    return suite


def _name(one: str) -> str:
    return _NOT_IN_A_NAME.sub("_", text.line(one, 80))


def _suites(one: RecordView, prefix: str) -> Iterable[ElementTree.Element]:
    areas: dict[str, list[ElementTree.Element]] = {}
    for check in one.checks:
        areas.setdefault(check.area, []).append(_case(check, one.summary, f"{prefix}.{_name(check.area)}"))
    if not any(case.find(name) is not None for cases in areas.values() for case in cases for name in _FAILURES[:2]):
        areas |= _verdict(one.summary, prefix)
    for area, cases in areas.items():
        yield _suite(one.summary, area, cases)


def _suite(summary: Summary, area: str, cases: Sequence[ElementTree.Element]) -> ElementTree.Element:
    run = summary.run
    failures, errors, skipped = (sum(case.find(name) is not None for case in cases) for name in _FAILURES)
    suite = _element(
        "testsuite",
        name=f"{text.line(run.family, 80)} × {text.line(run.adapter, 80)}: {text.line(area, 80)}",
        tests=str(len(cases)),
        failures=str(failures),
        errors=str(errors),
        skipped=str(skipped),
        time=_seconds(sum(float(case.attrib["time"]) for case in cases)),
    )
    started = _timestamp(run.started)
    if started is not None:
        suite.set("timestamp", started)
    properties = ElementTree.SubElement(suite, "properties")
    facts = {
        "family": run.family,
        "adapter": text.subject(run.adapter, run.adapter_name, run.adapter_version),
        "seed": str(run.seed),
        "verdict": text.STATUS_WORDS[summary.status],
        **{f"version.{name}": version for name, version in run.versions.items()},
        **{f"asked.{name}": text.value(value) for name, value in run.asked.items()},
    }
    properties.extend(_element("property", name=text.line(key), value=text.line(fact)) for key, fact in facts.items())
    suite.extend(cases)
    return suite


def _case(check: Checked, summary: Summary, classname: str) -> ElementTree.Element:
    case = _element("testcase", classname=classname, name=text.line(check.check), time=_seconds(check.seconds))
    failing = [one for one in summary.findings if one.entry.outcome.check == check.check]
    upstream = [one for one in summary.upstream if one.entry.outcome.check == check.check]
    stale = [one for one in _accepted(check, summary) if one.settled.state.gates]
    gated = [verdict for verdict in check.counts if verdict in gating(summary.run)]
    if failing:
        case.append(_failure(failing))
    elif stale or gated:
        said = [f"the known failure {one.number} is {one.words}: {one.settled.message or 'see below'}" for one in stale]
        said += [
            f"{wording.VERDICT_WORDS[verdict]} on {_cases(check.counts[verdict])}, which gates" for verdict in gated
        ]
        kind = str(stale[0].settled.state if stale else gated[0])
        case.append(_element("failure", _known_ones(stale), type=kind, message=text.line("; ".join(said))))
    elif excused := check.counts.get(Verdict.KNOWN, 0):
        case.append(_excused(excused, _accepted(check, summary)))
    elif not check.looked:
        reason = check.reasons[0][0] if check.reasons else "no case of this run is one that it looks at"
        case.append(_element("skipped", _reasons(check), type="skip", message=text.line(reason)))
    out = [_looked(check)] if check.looked else []
    out += [_described(one) for one in upstream[:MOST_FINDINGS]]
    if out:
        case.append(_element("system-out", "\n\n".join(out)))
    return case


def _failure(findings: Sequence[Bug]) -> ElementTree.Element:
    """All failures of a check in one element: `failure` where any is a difference, else `error`."""
    verdicts = [one.entry.outcome.verdict for one in findings]
    cases = len({case for one in findings for case in one.cases})
    first = findings[0]
    said = [
        f"{text.plural(len(findings), 'failure')} in {cases:,} of {_cases(first.ran)}",
        *filter(None, (first.entry.outcome.where, wording.against_bound(first.entry.outcome))),
        *filter(None, (wording.said(first.entry.outcome),)),
    ]
    blocks = [_described(one) for one in findings[:MOST_FINDINGS]]
    if len(findings) > len(blocks):
        blocks.append(f"… and {len(findings) - len(blocks):,} more in the report")
    kind = Verdict.FAIL if Verdict.FAIL in verdicts else verdicts[0]
    return _element(
        "failure" if kind is Verdict.FAIL else "error",
        "\n\n".join(blocks),
        type=str(kind),
        message=text.line("; ".join(said)),
    )


def _described(one: Bug) -> str:
    outcome = one.entry.outcome
    title = (
        f"{one.number}  {wording.VERDICT_WORDS[outcome.verdict]} in {len(one.cases):,} of {_cases(one.ran)}, "
        f"{text.line(one.fingerprint)}"
    )
    return "\n".join([title, *(f"    {name:<10} {text.line(fact)}" for name, fact in one.facts.items() if fact)])


def _excused(number: int, entries: Sequence[Accepted]) -> ElementTree.Element:
    """A check that fails where that is known, and nowhere else."""
    excusing = [one for one in entries if one.cases]
    reasons = "; ".join(f"{one.number} {one.failure.reason}".strip() for one in excusing)
    return _element(
        "skipped",
        _known_ones(excusing),
        type=str(Verdict.KNOWN),
        message=text.line(f"known on {_cases(number)}: {reasons}"),
    )


def _accepted(check: Checked, summary: Summary) -> list[Accepted]:
    entries = () if summary.baselined is None else summary.baselined.entries
    return [one for one in entries if one.failure.check == check.check]


def _known_ones(entries: Sequence[Accepted]) -> str:
    return "\n".join(
        text.line(
            ", ".join(
                part
                for part in (
                    f"{one.number}  {one.failure.fingerprint}",
                    one.words,
                    text.plural(one.cases, "case"),
                    one.failure.reason,
                    one.follow_up,
                )
                if part
            )
        )
        for one in entries
    )


def _verdict(summary: Summary, prefix: str) -> dict[str, list[ElementTree.Element]]:
    """Where no check fails and the run does not conform all the same, a test case that says so: nothing is green that
    is not."""
    if summary.status is ExitStatus.CONFORMS:
        return {}
    case = _element("testcase", classname=f"{prefix}.run", name="run.verdict", time=_seconds(0.0))
    words = text.STATUS_WORDS[summary.status]
    reason = terminal.reasons(summary)
    notes = "\n".join(text.line(note) for note in summary.notes)
    kind = summary.status.name.lower()
    case.append(_element("error", notes, type=kind, message=f"{words} ({reason})" if reason else words))
    return {"run": [case]}


def _looked(check: Checked) -> str:
    counts = ", ".join(
        f"{count:,} {wording.VERDICT_WORDS[verdict]}"
        for verdict, count in check.counts.items()
        if verdict is not Verdict.SKIP
    )
    return "\n".join(part for part in (f"looked at {_cases(check.looked)}: {counts}", _reasons(check)) if part)


def _reasons(check: Checked) -> str:
    """On how many cases it did not run, and why."""
    if not check.skipped:
        return ""
    lines = [f"    {count:>6,}  {text.line(reason)}" for reason, count in check.reasons[:_MOST_REASONS]]
    return "\n".join([f"did not run on {_cases(check.skipped)}:", *lines])


def _cases(count: int) -> str:
    return text.plural(count, "case")


def _seconds(seconds: float) -> str:
    return f"{seconds if math.isfinite(seconds) and seconds > 0 else 0.0:.3f}"


def _timestamp(started: str) -> str | None:
    """ISO 8601 in UTC without its zone, as Ant's schema has it; None where the record has no time."""
    try:
        return datetime.fromisoformat(started).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return None


def _element(tag: str, content: str = "", **attributes: str) -> ElementTree.Element:
    made = ElementTree.Element(tag, {name: _held(value) for name, value in attributes.items()})
    made.text = _held(text.visible(content)) or None
    return made


def _held(one: str) -> str:
    """The text with what XML cannot hold replaced."""
    return _NOT_IN_XML.sub("\ufffd", one)
