"""The request of a run: everything that can be asked for, and how each door asks for it.

To add an option, add a field with its line of the docstring, and the code that acts on it. The command line, the
configuration, Python and pytest read their options off these fields.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

from verifier.cases.shards import Shard
from verifier.cases.spec import SEEDS, WORKING_DTYPES
from verifier.errors import UsageError
from verifier.judging.outcome import Verdict
from verifier.requests import values
from verifier.requests.option import NOWHERE, ONE_ADAPTER, OPTION, Door, Option, ask

_RUN, _FUZZ, _SELFTEST, _PYTHON, _PYTEST = Door.RUN, Door.FUZZ, Door.SELFTEST, Door.PYTHON, Door.PYTEST
_MATRIX = _RUN | _FUZZ | _PYTHON
_ALL = _MATRIX | _SELFTEST | _PYTEST

GATES = tuple(str(verdict) for verdict in (Verdict.REDUCED, Verdict.UPSTREAM, Verdict.SKIP))
"""The verdicts with which an adapter does not conform if that is asked for."""

HELP_AT: Mapping[Door, Mapping[str, str]] = {
    _FUZZ: {
        "where": "Fix fields to one value each: flags, dims, batch, long, padding, scale, axes of circumstances.",
        "out": "Where record, report and the cases that are kept go. Default: reports/FAMILY-ADAPTER-fuzz.",
        "timeout": "How long a case may take; 0 for no limit. Default: 60s.",
        "memory": "How much memory a case may take in addition; 0 for no limit. Default: 4G.",
    },
    _PYTHON: {
        "where": "Run the cases with these values, in the circumstances with these: a text, several, or a mapping from "
        "flag or axis to value.",
        "baseline": "The file with the known failures.",
    },
    _PYTEST: {
        "family": "Run FAMILY's matrix as tests.",
        "out": "Where record and report of each adapter go, in DIR/FAMILY-ADAPTER; of decorated tests too.",
        "baseline": "Known failures, which are expected to fail, strictly.",
        "isolation": "Run adapters in pytest's own process, in decorated tests too: for --pdb, and for tools that "
        "measure coverage.",
    },
    ONE_ADAPTER: {"adapters": "The adapter under test, in the place of the default one."},
}
"""The help of a field at one door, where that differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Everything that was asked for; what nobody asked for has its default.

    The options of every door have the help that stands here, unless `HELP_AT` has another one for the door. Of
    `timeout` (seconds) and `memory` (bytes), 0 stands for no limit and None for the default one.

    Attributes:
        family: The model family, by name or as module:object.
        adapters: The adapter under test; may be repeated. Default: `adapter` in [tool.verifier], else `bridge`.
        only: Run the checks that match: `qkv.*`, or an area alone, `qkv`; may be repeated.
        where: Run the cases with these values of flags and dims, in the circumstances with these values of axes,
            `alibi=true,mask=left`; may be repeated.
        preset: Run a published checkpoint's shape instead of the flag matrix.
        checkpoint: Run the model in this folder instead of the flag matrix.
        cases: Run the cases in this file instead of the flag matrix: a record.jsonl, or on each line a case's JSON.
        everywhere: Run every check on every case, also the checks that otherwise look at fewer.
        quick: Run a covering of the flags, and each single value of each axis once for each class of observables.
        dtypes: A dtype that precision is judged in; may be repeated. Default: all.
        device: Where cases run, as torch names it.
        seed: The seed of weights and inputs.
        time: How long the campaign goes on: `90s`, `10m`. Default: until Ctrl-C or --max-examples.
        max_examples: How many cases run, those of shrinking aside.
        workers: How many processes run cases. Default: the usable cores.
        out: Where record and report go; several adapters get DIR/FAMILY-ADAPTER each. Default: reports/FAMILY-ADAPTER.
        baseline: Known failures, as `verifier baseline` writes them: each is run again first, and excused if it still
            fails in that way. May be repeated, one for each adapter.
        no_baseline: Do not use the configured baseline.
        gate: Also fail the run on this outcome; may be repeated. `skip` is a check that was not applicable.
        changed_since: Run an adapter only if one of its files, or of the files that it imports, was touched between
            this git revision and the working tree.
        resume: Continue the record that is there: run only the cases it lacks.
        timeout: How long a case may take: `90`, `90s`, `5m`; 0 for no limit. Default: 60s, and 1h for --preset and
            --checkpoint.
        memory: How much memory a case may take in addition: `512M`, `4G`; 0 for no limit. Default: 2G, and for --preset
            and --checkpoint each worker's share of what is free.
        isolation: Run cases in processes of their own; without it in this process, for a debugger, with no limits.
        pdb: Stop in Python's debugger at each failure; implies --no-isolation.
        slowest: Name the N slowest cases at the end.
        shard: Run the I-th of N parts of the cases, each on a machine of its own; `verifier report` joins their
            records.
        junit: JUnit XML too, a test case for each check: for Jenkins, GitLab and other build servers.
        github: Annotations for GitHub's pages on the standard output, and the report in the step's summary.
        per: Whether a test is a case and an area of checks, which are its subtests, or a case and a check.
        configured: The keys of the configuration that were used.
    """

    family: str = ask(MISSING, values.FAMILY, _ALL ^ _PYTHON, 'family = "name"')
    adapters: tuple[str, ...] = ask(
        (),
        values.REFERENCE,
        _ALL ^ _PYTHON,
        'adapter = "name" or adapter = ["name", "module:object"]',
        single=ONE_ADAPTER,
        unlisted=True,
        spelled="adapter",
    )
    only: tuple[str, ...] = ask((), values.GLOB, _MATRIX | _PYTEST, 'only = ["qkv", "weights.*"]', recorded=True)
    where: tuple[str, ...] = ask((), values.CONDITION, _MATRIX | _PYTEST, 'where = ["flag=true"]', recorded=True)
    preset: str | None = ask(None, values.NAME, _RUN | _PYTHON, recorded=True)
    checkpoint: str | None = ask(None, values.MODEL, _RUN | _PYTHON, recorded=True)
    cases: Path | None = ask(None, values.FILE, _RUN, recorded=True)
    everywhere: bool = ask(False, values.FLAG, _RUN | _PYTHON | _PYTEST, recorded=True)
    quick: bool = ask(False, values.FLAG, _RUN | _SELFTEST | _PYTHON | _PYTEST, recorded=True)
    dtypes: tuple[str, ...] = ask(
        WORKING_DTYPES, values.one_of(*WORKING_DTYPES), _MATRIX, spelled="dtype", recorded=True
    )
    device: str = ask("cpu", values.TEXT, _MATRIX, recorded=True)
    seed: int = ask(0, values.whole_number(0, SEEDS - 1), _ALL, "seed = 7")
    time: float | None = ask(None, values.DURATION, _FUZZ)
    max_examples: int | None = ask(None, values.COUNT, _FUZZ)
    workers: int | None = ask(None, values.COUNT, _MATRIX, "workers = 2", unconfigured=_PYTEST)
    out: Path | None = ask(None, values.FOLDER, _RUN | _FUZZ | _PYTEST, 'out = "reports"', unconfigured=_FUZZ | _PYTEST)
    baseline: tuple[Path, ...] = ask(
        (),
        values.FILE,
        _RUN | _PYTHON | _PYTEST,
        'baseline = "verifier-known.toml"',
        single=_PYTHON | _PYTEST,
        unlisted=True,
    )
    no_baseline: bool = ask(False, values.FLAG, _RUN)
    gate: tuple[str, ...] = ask((), values.one_of(*GATES), _RUN | _PYTHON, 'gate = ["reduced"]', recorded=True)
    changed_since: str | None = ask(None, values.REVISION, _RUN)
    resume: bool = ask(False, values.FLAG, _RUN)
    timeout: float | None = ask(None, values.DURATION, _MATRIX, 'timeout = "90s"')
    memory: int | None = ask(None, values.SIZE, _MATRIX, 'memory = "4G"')
    isolation: bool = ask(True, values.FLAG, _RUN | _PYTHON | _PYTEST)
    pdb: bool = ask(False, values.FLAG, _RUN)
    slowest: int = ask(0, values.whole_number(0), _RUN)
    shard: Shard | None = ask(None, values.SHARD, _RUN, recorded=True)
    junit: Path | None = ask(None, values.FILE, _RUN)
    github: bool = ask(False, values.FLAG, _RUN)
    per: str = ask("area", values.one_of("area", "check"), _PYTEST)
    configured: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "gate", tuple(dict.fromkeys(self.gate)))

    @property
    def adapter(self) -> str:
        """The adapter, where one is under test."""
        (adapter,) = self.adapters
        return adapter

    @property
    def isolated(self) -> bool:
        """Whether cases run in processes of their own."""
        return self.isolation and not self.pdb

    def require_consistent(self) -> None:
        """Make sure that what was asked for goes together.

        Raises:
            UsageError: it does not.
        """
        if self.no_baseline and self.baseline:
            raise UsageError("--baseline and --no-baseline contradict each other: give one of them")
        if self.preset is not None and self.checkpoint is not None:
            raise UsageError("--preset and --checkpoint both say which model to run: give one of them")
        if self.quick and self.everywhere:
            raise UsageError("--quick and --everywhere contradict each other: give one of them")
        for name in ("preset", "checkpoint", "cases"):
            if self.quick and getattr(self, name):
                raise UsageError(f"--quick and --{name} both say what to run: give one of them")
        for name in ("where", "preset", "checkpoint"):
            if self.cases is not None and getattr(self, name):
                raise UsageError(f"--cases and --{name} both say what to run: give one of them")
        if not self.isolated and self.workers not in (None, 1):
            raise UsageError("--no-isolation runs in this very process: it goes with --workers 1 alone")
        if not self.isolated and (self.timeout is not None or self.memory is not None):
            raise UsageError(
                "--timeout and --memory need processes of their own to end: not with --no-isolation or --pdb"
            )


@functools.cache
def options(door: Door = NOWHERE) -> Mapping[str, Option]:
    """List the options of a door by the name of their field; without a door, all options."""
    listed = {}
    for one in fields(RunRequest):
        option = one.metadata.get(OPTION)
        if option is not None and door in option.doors:  # no door is in every one
            default = None if one.default is MISSING else one.default
            helps = {doors: texts[one.name] for doors, texts in HELP_AT.items() if one.name in texts}
            listed[one.name] = replace(option, name=one.name, default=default, help=_help()[one.name], helps=helps)
    return listed


def _help() -> Mapping[str, str]:
    """Read what each field means off the docstring of `RunRequest`."""
    _, _, attributes = (inspect.getdoc(RunRequest) or "").partition("Attributes:\n")
    _, *parts = re.split(r"^    (\w+): ", attributes, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}
