"""Everything that the doctor looks at, put together; what may crash or hang is asked of other processes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from verifier import plugins
from verifier.baseline.file import read as read_baseline
from verifier.commands.doctor import imports
from verifier.commands.doctor.facts import (
    Diagnosis,
    Installed,
    Kind,
    Machine,
    Planned,
    Problem,
    Registered,
    Setting,
    Source,
)
from verifier.commands.doctor.installed import GROUPS, installed
from verifier.commands.run import worst
from verifier.engine import isolated_imports
from verifier.engine.environment import usable_cores
from verifier.engine.isolated_imports import Answer, Question
from verifier.engine.limits import LOADING_SECONDS, Limits, available, defaults
from verifier.errors import ExitStatus, UsageError
from verifier.output.text import size
from verifier.record.known_failure import Baseline
from verifier.requests import configuration
from verifier.requests.configuration import Configuration
from verifier.requests.folders import result_folders
from verifier.requests.option import Door
from verifier.requests.request import RunRequest

Reference = tuple[Kind, str]

_DESCRIBE: Mapping[Kind, Callable[[str], dict[str, Any]]] = {
    "family": imports.describe_family,
    "adapter": imports.describe_adapter,
    "check": imports.describe_check,
}


def diagnose(folder: Path, family: str | None, adapters: Sequence[str]) -> Diagnosis:
    """Look at everything.

    Args:
        folder: the current one.
        family: named on the command line, or None.
        adapters: named on the command line, or none.
    """
    problems: list[Problem] = []
    found = _configuration(folder, problems)
    named = {"family": family, "adapters": tuple(adapters)}
    given = {name: value for name, value in named.items() if value}
    # The family is "" where none is named.
    run = RunRequest(**{"family": "", **found.complete(given, Door.DOCTOR)})
    distributions = installed()
    problems += _of_distributions(distributions)

    asked = _asked(run)
    references = list(dict.fromkeys([*_all_registered(), *asked]))
    questions: list[Question] = [partial(_DESCRIBE[kind], name) for kind, name in references]
    questions.append(imports.describe_torch)
    if run.family:
        questions.append(partial(imports.count_plan, run))
    answers = isolated_imports.ask(questions, at_once=usable_cores(), seconds=LOADING_SECONDS)

    loaded = dict(zip(references, answers, strict=False))
    for reference, answer in loaded.items():
        problems += _of_loading(reference, answer, reference in asked, found, run.configured)
    planned: tuple[Planned, ...] = ()
    if run.family:
        plan = answers[-1]
        if plan.status is not ExitStatus.CONFORMS and loaded["family", run.family].status is ExitStatus.CONFORMS:
            problems.append(_wrong(UsageError(plan.said), found, run.configured))
        planned = tuple(_planned(run, plan, problems))
    problems += _of_folder(folder)
    return Diagnosis(
        machine=Machine(
            python=f"{platform.python_version()} ({platform.python_implementation()})",
            platform=platform.platform(),
            cores=usable_cores(),
            memory=available(),
            torch=answers[len(references)].said,
        ),
        installed=distributions,
        file=None if found.file is None else str(found.file),
        settings=tuple(_setting(key, run, given) for key in configuration.known_keys()),
        registered=tuple(_registered(reference, answer) for reference, answer in loaded.items()),
        planned=planned,
        problems=tuple(problems),
        status=worst([ExitStatus.CONFORMS, *(one.status for one in problems if one.status is not None)]),
    )


def _configuration(folder: Path, problems: list[Problem]) -> Configuration:
    try:
        return configuration.read(folder)
    except UsageError as error:
        problems.append(
            Problem(what=str(error), remedy="mend the file; nothing of it is used below", status=error.status)
        )
        return Configuration()


def _asked(run: RunRequest) -> list[Reference]:
    """The family and the adapters of the run."""
    family: list[Reference] = [("family", run.family)] if run.family else []
    return [*family, *(("adapter", name) for name in run.adapters)]


def _all_registered() -> list[Reference]:
    return [(kind, name) for kind, group in GROUPS.items() for name in plugins.names(group)]


def _registered(reference: Reference, answer: Answer) -> Registered:
    kind, name = reference
    points = tuple(importlib.metadata.entry_points(group=GROUPS[kind], name=name))
    dist = points[0].dist if points else None
    return Registered(
        kind=kind,
        name=name,
        where=points[0].value if points else name,
        origin=f"{dist.name} {dist.version}" if dist is not None else "",
        loads=answer.status is ExitStatus.CONFORMS,
        said=answer.said,
        seconds=answer.seconds,
    )


def _setting(key: str, run: RunRequest, given: Mapping[str, Any]) -> Setting:
    name = configuration.known_keys()[key].name
    source = Source.DEFAULT
    if name in given:
        source = Source.COMMAND_LINE
    elif key in run.configured:
        source = Source.FILE
    return Setting(key=key, value=_in_words(key, getattr(run, name)), source=source)


def _in_words(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value)
    if key in ("timeout", "memory") and not value:
        return "no limit"
    return f"{value:g} s" if key == "timeout" else size(value) if key == "memory" else str(value)


def _planned(run: RunRequest, plan: Answer, problems: list[Problem]) -> Iterator[Planned]:
    workers = run.workers or usable_cores()
    limits = defaults(large=False, workers=workers).or_as_asked(run.timeout, run.memory)
    problems += _of_memory(workers, limits)
    baselines = _baselines(run, problems)
    for adapter, out in result_folders(run).items():
        problems += _of_results(out)
        baseline = baselines.get(adapter)
        days = [] if baseline is None else [one.expires for one in baseline.failures if one.expires is not None]
        yield Planned(
            family=run.family,
            adapter=adapter,
            valid=plan.found.get("valid"),
            refused=plan.found.get("refused"),
            checks=plan.found.get("checks"),
            workers=workers,
            limits={"timeout": limits.seconds, "memory": limits.bytes},
            out=str(out),
            baseline=None if baseline is None else baseline.path,
            entries=0 if baseline is None else len(baseline.failures),
            expires=min(days).isoformat() if days else None,
        )


def _baselines(run: RunRequest, problems: list[Problem]) -> dict[str, Baseline]:
    """The baselines by their adapter."""
    found = {}
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
        today = datetime.now(UTC).date()
        for failure in one.failures:
            if failure.expires is not None and failure.expires < today:
                until = f"{failure.fingerprint} was accepted until {failure.expires}"
                what = f"{one.path!r}: {until}, so that the run will not conform"
                remedy = "mend the failure, or write a later day into `expires`, with the reason"
                problems.append(Problem(what=what, remedy=remedy))
    return found


def _wrong(error: UsageError, found: Configuration, used: Sequence[str]) -> Problem:
    return Problem(what=str(found.blame(error, used)), remedy="write what there is", status=ExitStatus.USAGE)


def _of_loading(
    reference: Reference, answer: Answer, asked: bool, found: Configuration, used: Sequence[str]
) -> Iterator[Problem]:
    """What does not load; of families and adapters a run would end only where it asks for them."""
    kind, name = reference
    if answer.status is ExitStatus.CONFORMS:
        return
    if answer.status is ExitStatus.USAGE:
        what = str(found.blame(UsageError(answer.said), used if asked else ()))
        remedy = f"`verifier list {'families' if kind == 'family' else kind + 's'}` names those that there are"
    else:
        what = answer.said if repr(name) in answer.said else f"{kind} {name!r}: {answer.said}"
        module = plugins.module_of(name, GROUPS[kind]) or name
        remedy = f"`python -c 'import {module}'` shows where; mend it, or uninstall what registers it"
    # Every run loads all checks.
    yield Problem(what=what, remedy=remedy, status=answer.status if asked or kind == "check" else None)


def _of_distributions(found: Sequence[Installed]) -> Iterator[Problem]:
    for one in found:
        if one.right or (one.version is None and not one.needed):
            continue
        is_there = "not installed" if one.version is None else f"installed as {one.version}, and wanted as {one.wanted}"
        yield Problem(what=f"{one.name} is {is_there} ({one.purpose})", remedy=f"pip install '{one.name}{one.wanted}'")


def _of_memory(workers: int, limits: Limits) -> Iterator[Problem]:
    there = available()
    if there is not None and limits.bytes is not None and workers * limits.bytes > there:
        each = max(1, there // workers // 2**20)
        each_may, free = (f"{count / 2**20:,.0f} MiB" for count in (limits.bytes, there))
        yield Problem(
            what=f"{workers} workers may take {each_may} each, and {free} are free: the system may kill one that is "
            f"within its limit",
            remedy=f"--memory {each}M, or fewer --workers",
        )


def _of_results(out: Path) -> Iterator[Problem]:
    """Whether record and report can be written there."""
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not there.is_dir():
        what = f"results cannot be written into {str(out)!r}: {str(there)!r} is a file"
    elif not os.access(there, os.W_OK | os.X_OK):
        what = f"results cannot be written into {str(out)!r}: {str(there)!r} may not be written to"
    else:
        return
    yield Problem(what=what, remedy="name another folder with --out or `out`", status=ExitStatus.USAGE)


def _of_folder(folder: Path) -> Iterator[Problem]:
    path = plugins.shadowing(str(folder))
    if path is not None:
        yield Problem(
            what=f"{path!r} has the name of this harness",
            remedy="rename it: the command `verifier` is not misled by it, but `python -m verifier` runs it here",
        )
