"""What two runs differ in before any check has looked: adapters, versions, seeds, what was asked for, which cases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from verifier.cases.spec import CaseSpec
from verifier.output import text
from verifier.record import Record, RunLine

# No part of a case's id, so that cases which differ in these alone are the same case.
_NOT_IN_THE_ID = frozenset({"family", "config", "label", "valid", "reason", "depth", "circumstances"})
# More would not be read in one line.
_MOST_VALUES, _MOST_FIELDS = 3, 4
_ABSENT = "absent"


def describe_run(record: Record) -> str:
    """`toy × mine:Adapter (mine 1), 12 cases in reports/toy`."""
    cases = text.plural(len(record.cases), "case")
    return f"{record.run.title}, {cases} in {text.line(str(record.location))}"


def explain_unfinished(record: Record) -> str | None:
    """Say in a clause why a record lacks results of planned cases; None where its run came to its end."""
    if record.end is None:
        return "was cut off"
    return None if record.end.stop == "complete" else f"ended before its time ({text.line(record.end.stop, 60)})"


def list_run_differences(old: RunLine, new: RunLine) -> Mapping[str, tuple[str | None, str | None]]:
    """List what differs between two runs and could change results although the adapter's code is the same.

    Args:
        old: the run that is compared with.
        new: the run that is compared.

    Returns:
        By the name of what differs, the adapter and its version first, how it is spelled for the old and for the new
        run; None where a run has no such thing.
    """
    before, after = _describe(old), _describe(new)
    return {
        what: (before.get(what), after.get(what))
        for what in dict.fromkeys([*before, *after])
        if before.get(what) != after.get(what)
    }


def _describe(run: RunLine) -> dict[str, str]:
    """Spell everything of a run that another run may have otherwise, by name."""
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
    """Say in a clause why no case of the one run is one of the other.

    Args:
        old: the cases of the old run, by id.
        new: the cases of the new run, by id.
    """
    for name, cases in (("OLD", old), ("NEW", new)):
        if not cases:
            return f"{name} has no case at all"
    before, after = _collect_values(old.values()), _collect_values(new.values())
    clauses = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name, {_ABSENT}), after.get(name, {_ABSENT})
        if not was & now:
            clauses.append(f"{text.line(name, 80)} is {_spell(sorted(was))} in OLD and {_spell(sorted(now))} in NEW")
    return "; ".join(clauses[:_MOST_FIELDS]) or "they ran other configs"


def _collect_values(specs: Collection[CaseSpec]) -> dict[str, set[str]]:
    """Collect the values that each field of a case has in some of them; a field of the config goes by its own name."""
    fields = [
        {**{name: value for name, value in spec.to_json().items() if name not in _NOT_IN_THE_ID}, **spec.config}
        for spec in specs
    ]
    return {
        name: {text.value(of_case[name]) if name in of_case else _ABSENT for of_case in fields}
        for name in dict.fromkeys(name for of_case in fields for name in of_case)
    }


def _spell(values: Sequence[str]) -> str:
    """`1 or 2 or 3 or 4 more`."""
    return text.first_of(values, _MOST_VALUES, " or ", " or ")
