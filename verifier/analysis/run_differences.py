"""What two runs differ in before any check has looked: adapters, versions, seeds, what was asked for, which cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier.analysis.labels import run_title
from verifier.cases.spec import CaseSpec
from verifier.output import text
from verifier.record import FILE, Record, RunLine

# No part of a case's id, so that cases which differ in these alone are the same case.
_NOT_IN_THE_ID = frozenset({"family", "config", "label", "valid", "reason", "depth"})
# More would not be read in one line.
_MOST_VALUES, _MOST_FIELDS = 3, 4
_COMPLETE = "complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference:
    """Something that is another in the two runs, in words; None where one has none."""

    what: str
    old: str | None
    new: str | None

    @property
    def words(self) -> str:
        """`1.0 → 1.1`."""
        return " → ".join("none" if one is None else text.line(one or '""', 160) for one in (self.old, self.new))


def record_location(record: Record) -> Path:
    """The record as `repro` and `diff` take it: its folder, or the file where it has a name of its own."""
    return record.path.parent if record.path.name == FILE else record.path


def describe_run(record: Record) -> str:
    """`toy × mine:Adapter (mine 1), 12 cases in reports/toy`."""
    cases = text.plural(len(record.cases), "case")
    return f"{run_title(record.run)}, {cases} in {text.line(str(record_location(record)))}"


def explain_unfinished(record: Record) -> str | None:
    """Why it has no result for all that was planned, as a clause; None where it came to its end."""
    if record.end is None:
        return "was cut off"
    return None if record.end.stop == _COMPLETE else f"ended before its time ({text.line(record.end.stop, 60)})"


def list_run_differences(old: RunLine, new: RunLine) -> tuple[RunDifference, ...]:
    """What could make two results differ without a change of the adapter's code, and its own version first."""
    before, after = _described(old), _described(new)
    return tuple(
        RunDifference(what=what, old=before.get(what), new=after.get(what))
        for what in dict.fromkeys([*before, *after])
        if before.get(what) != after.get(what)
    )


def _described(run: RunLine) -> dict[str, str]:
    """Everything of a run that may differ, in words."""
    seeds = run.asked.get("seeds", run.seed)  # of merged records
    return {
        "adapter": run.adapter,
        "adapter's version": f"{run.adapter_name} {run.adapter_version}",
        **{name: str(version) for name, version in sorted(run.versions.items())},
        "seed": text.value(seeds),
        **{f"asked: {name}": text.value(value) for name, value in sorted(run.asked.items()) if name != "seeds"},
        "a case may take": text.limits(run.limits),
        **{f"flag {name}": text.value(values) for name, values in sorted(run.flags.items())},
        **{f"dim {name}": text.value(value) for name, value in sorted(run.dims.items())},
    }


def explain_nothing_in_common(old: Mapping[str, CaseSpec], new: Mapping[str, CaseSpec]) -> str:
    """Why no case of the one run is one of the other, as a clause."""
    for name, cases in (("OLD", old), ("NEW", new)):
        if not cases:
            return f"{name} has no case at all"
    before, after = _values(old.values()), _values(new.values())
    apart = [
        f"{text.line(name, 80)} is {_few(sorted(before[name]))} in OLD and {_few(sorted(after[name]))} in NEW"
        for name in dict.fromkeys([*before, *after])
        if not before[name] & after[name]
    ]
    return "; ".join(apart[:_MOST_FIELDS]) or "they ran other configs"


def _values(specs: Collection[CaseSpec]) -> defaultdict[str, set[str]]:
    """Every value that each field of a case has in some of them; fields of the config are called by their own names."""
    found: defaultdict[str, set[str]] = defaultdict(lambda: {"absent"})
    plain = [
        {**{name: one for name, one in spec.to_json().items() if name not in _NOT_IN_THE_ID}, **spec.config}
        for spec in specs
    ]
    for name in dict.fromkeys(name for one in plain for name in one):
        found[name] = {text.value(one[name]) if name in one else "absent" for one in plain}
    return found


def _few(values: Sequence[str]) -> str:
    shown = " or ".join(values[:_MOST_VALUES])
    return shown if len(values) <= _MOST_VALUES else f"{shown} or {len(values) - _MOST_VALUES} more"
