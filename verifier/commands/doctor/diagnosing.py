"""Find out everything that the doctor tells; what may crash or hang is asked of other processes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from verifier import plugins
from verifier.baseline.file import read as read_baseline
from verifier.commands.doctor import imports
from verifier.commands.doctor.facts import Diagnosis, Fact, PluginKind, Problem, Section
from verifier.commands.doctor.installed import GROUPS, find_installed, requirements
from verifier.commands.run import worst
from verifier.engine import isolated_imports
from verifier.engine.environment import usable_cores
from verifier.engine.isolated_imports import Answer, Question
from verifier.engine.limits import LOADING_SECONDS, default_limits, free_memory
from verifier.errors import ExitStatus, UsageError
from verifier.output import text
from verifier.record.known_failure import Baseline
from verifier.requests import configuration
from verifier.requests.configuration import Configuration
from verifier.requests.folders import result_folders
from verifier.requests.option import Door
from verifier.requests.request import RunRequest

Reference = tuple[PluginKind, str]

# What a run does where nothing is said of a setting that has no value of its own.
_UNSET = {
    "family": "none: `verifier run` must name one",
    "baseline": "none",
    "only": "every check",
    "where": "every case",
    "workers": "the usable cores",
    "timeout": "60 s",
    "memory": "2 GiB",
    "out": "reports/FAMILY-ADAPTER",
    "gate": "nothing besides what always does",
}


def diagnose(folder: Path, family: str | None, adapters: Sequence[str]) -> Diagnosis:
    """Find out what is installed, registered and configured, and what a run would do.

    Args:
        folder: the current folder.
        family: the family that the command line names, or None.
        adapters: the adapters that the command line names.
    """
    found, problems = _read_configuration(folder)
    given = {name: value for name, value in (("family", family), ("adapters", tuple(adapters))) if value}
    # The family is "" where none is named.
    run = RunRequest(**{"family": "", **found.complete(given, Door.DOCTOR)})

    asked: list[Reference] = [("family", run.family)] if run.family else []
    asked += [("adapter", name) for name in run.adapters]
    registered = [(kind, name) for kind, group in GROUPS.items() for name in plugins.names(group)]
    references = list(dict.fromkeys([*registered, *asked]))
    questions: list[Question] = [partial(imports.describe, kind, name) for kind, name in references]
    questions += [imports.describe_torch, *([partial(imports.count_plan, run)] if run.family else [])]
    answers = isolated_imports.ask(questions, at_once=usable_cores(), seconds=LOADING_SECONDS)
    loaded = dict(zip(references, answers, strict=False))

    loading = [_describe_plugin(one, answer, one in asked, found, run) for one, answer in loaded.items()]
    settings = [_describe_setting(key, option.name, run, given) for key, option in configuration.known_keys().items()]
    facts = [
        _describe_machine(folder, answers[len(references)].said),
        *find_installed(requirements()),
        *loading,
        *settings,
        *(_describe_plan(run, answers[-1], loaded["family", run.family], found) if run.family else ()),
    ]
    problems += [problem for fact in facts for problem in fact.problems]
    return Diagnosis(
        file=None if found.file is None else str(found.file),
        facts=tuple(facts),
        problems=tuple(problems),
        status=worst([ExitStatus.CONFORMS, *(one.status for one in problems if one.status is not None)]),
    )


def _read_configuration(folder: Path) -> tuple[Configuration, list[Problem]]:
    try:
        return configuration.read(folder), []
    except UsageError as error:
        remedy = "mend the file; nothing of it is used below"
        return Configuration(), [Problem(what=str(error), remedy=remedy, status=error.status)]


def _describe_machine(folder: Path, torch: str) -> Fact:
    shadow = plugins.shadowing(str(folder))
    problems = []
    if shadow is not None:
        what = f"{shadow!r} has the name of this harness"
        remedy = "rename it: the command `verifier` is not misled by it, but `python -m verifier` runs it here"
        problems.append(Problem(what=what, remedy=remedy))
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    system, cores, memory = platform.platform(), usable_cores(), free_memory()
    free = "memory unknown" if memory is None else f"{memory / 2**30:.1f} GiB of memory free"
    return Fact(
        section=Section.MACHINE,
        rows=(
            ("python", f"{python} on {system}"),
            ("torch", torch),
            ("machine", f"{text.plural(cores, 'usable core')}, {free}"),
        ),
        values={"python": python, "platform": system, "cores": cores, "memory": memory, "torch": torch},
        problems=tuple(problems),
    )


def _describe_plugin(reference: Reference, answer: Answer, asked: bool, config: Configuration, run: RunRequest) -> Fact:
    """Tell whether a family, an adapter or a check loads.

    Args:
        reference: which one.
        answer: what came of importing it.
        asked: whether the run is of it.
        config: the configuration, which is named where it is to blame.
        run: what was asked for.
    """
    (kind, name), loads = reference, answer.status is ExitStatus.CONFORMS
    point = next(iter(importlib.metadata.entry_points(group=GROUPS[kind], name=name)), None)
    dist = None if point is None else point.dist
    where = name if point is None else point.value
    origin = "" if dist is None else f"{dist.name} {dist.version}"
    what, problems = answer.said, tuple[Problem, ...]()
    if not loads:
        if answer.status is ExitStatus.USAGE:
            what = str(config.blame(UsageError(what), run.configured if asked else ()))
            remedy = f"`verifier list {'families' if kind == 'family' else kind + 's'}` names those that there are"
        else:
            what = what if repr(name) in what else f"{kind} {name!r}: {what}"
            module = where.partition(":")[0]
            remedy = f"`python -c 'import {module}'` shows where; mend it, or uninstall what registers it"
        # Every run loads all checks; of families and adapters only those that it asks for.
        status = answer.status if asked or kind == "check" else None
        problems = (Problem(what=what, remedy=remedy, status=status),)
    state = f"loads in {text.duration(answer.seconds)}: {answer.said}" if loads else "DOES NOT LOAD"
    values = {"kind": kind, "name": name, "where": where, "origin": origin, "loads": loads}
    return Fact(
        section=Section.REGISTERED,
        rows=((kind, name, f"{where}{', from ' * bool(origin)}{origin}; {state}"),),
        values={**values, "said": answer.said, "seconds": answer.seconds},
        problems=problems,
    )


def _describe_setting(key: str, name: str, run: RunRequest, given: Mapping[str, Any]) -> Fact:
    source = "command line" if name in given else "file" if key in run.configured else "default"
    value = _in_words(key, getattr(run, name))
    return Fact(
        section=Section.SETTINGS,
        rows=((key, source, value or (_UNSET.get(key, "") if source == "default" else "nothing")),),
        values={"key": key, "value": value, "source": source},
    )


def _in_words(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value)
    if key in ("timeout", "memory") and not value:
        return "no limit"
    return f"{value:g} s" if key == "timeout" else text.size(value) if key == "memory" else str(value)


def _describe_plan(run: RunRequest, plan: Answer, family: Answer, config: Configuration) -> Iterator[Fact]:
    """Tell what a run would do with each adapter; what is wrong with all of them is said of the first.

    Args:
        run: what was asked for.
        plan: the numbers of cases and checks, or why there are none.
        family: what came of importing the family.
        config: the configuration, which is named where it is to blame.
    """
    workers = run.workers or usable_cores()
    limits = default_limits(large=False, workers=workers).with_asked(run.timeout, run.memory)
    baselines, problems = _read_baselines(run)
    problems += _memory_problems(workers, limits.bytes)
    if plan.status is not ExitStatus.CONFORMS and family.status is ExitStatus.CONFORMS:
        what = str(config.blame(UsageError(plan.said), run.configured))
        problems.append(Problem(what=what, remedy="write what there is", status=ExitStatus.USAGE))
    size = "cases and checks unknown"
    if plan.found:
        cases = f"{text.plural(plan.found['valid'], 'valid case')}, {plan.found['refused']:,} refused by HF"
        size = f"{cases}, {text.plural(plan.found['checks'], 'check')}"
    taken = {"timeout": limits.seconds, "memory": limits.bytes}
    size = f"{run.family}: {size}; {text.plural(workers, 'worker')}; a case may take {text.limits(taken)}"
    counts = {name: plan.found.get(name) for name in ("valid", "refused", "checks")}
    for adapter, out in result_folders(run).items():
        baseline = baselines.get(adapter)
        path, entries, known = (None, (), "no baseline") if baseline is None else (baseline.path, baseline.failures, "")
        expires = min((str(one.expires) for one in entries if one.expires is not None), default=None)
        if path is not None:
            until = f", the next until {expires}" if expires else ", none with a last day"
            known = f"{text.plural(len(entries), 'known failure')} in {path}{until if entries else ''}"
        values = {"adapter": adapter, "out": str(out), "baseline": path, "entries": len(entries), "expires": expires}
        yield Fact(
            section=Section.PLANNED,
            rows=((adapter, f"{size}; {known}; into {out}"),),
            values={"family": run.family, **counts, "workers": workers, "limits": taken, **values},
            problems=(*problems, *_folder_problems(out)),
        )
        problems = []


def _read_baselines(run: RunRequest) -> tuple[dict[str, Baseline], list[Problem]]:
    """Read the baselines of the run, by their adapter, and say what is wrong with them."""
    found, problems = dict[str, Baseline](), list[Problem]()
    for path in run.baseline:
        try:
            one = read_baseline(path)
        except UsageError as error:
            remedy = f"mend the file, or make it anew: `verifier baseline RECORD --out {path}`"
            problems.append(Problem(what=str(error), remedy=remedy, status=error.status))
            continue
        if one.family != run.family or one.adapter not in run.adapters:
            what = f"the baseline {one.path!r} is of {one.family} × {one.adapter}, which is not what would be run here"
            problems.append(Problem(what=what, remedy="name that adapter as well, or leave it: it is not used"))
            continue
        found[one.adapter] = one
        for failure in one.failures:
            if failure.expires is not None and failure.expires < datetime.now(UTC).date():
                until = f"{failure.fingerprint} was accepted until {failure.expires}"
                what = f"{one.path!r}: {until}, so that the run will not conform"
                remedy = "mend the failure, or write a later day into `expires`, with the reason"
                problems.append(Problem(what=what, remedy=remedy))
    return found, problems


def _memory_problems(workers: int, limit: int | None) -> Iterator[Problem]:
    """Say so where the workers together may take more memory, in bytes, than is free."""
    free = free_memory()
    if free is not None and limit is not None and workers * limit > free:
        taken = f"{workers} workers may take {limit / 2**20:,.0f} MiB each, and {free / 2**20:,.0f} MiB are free"
        yield Problem(
            what=f"{taken}: the system may kill one that is within its limit",
            remedy=f"--memory {max(1, free // workers // 2**20)}M, or fewer --workers",
        )


def _folder_problems(out: Path) -> Iterator[Problem]:
    """Say so where record and report cannot be written into a folder."""
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    why = "may not be written to" if there.is_dir() else "is a file"
    yield Problem(
        what=f"results cannot be written into {str(out)!r}: {str(there)!r} {why}",
        remedy="name another folder with --out or `out`",
        status=ExitStatus.USAGE,
    )
