"""The request of a run: everything that can be asked for, and how each door asks for it.

To add an option, add a field here, and the code that acts on it. The command line, the configuration, Python and pytest
read their options off these fields.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

from verifier.cases.shards import Shard
from verifier.cases.spec import SEEDS, WORKING_DTYPES
from verifier.errors import UsageError
from verifier.judging.outcome import Verdict
from verifier.requests.option import (
    CONDITION,
    COUNT,
    DURATION,
    FAMILY,
    FILE,
    FLAG,
    FOLDER,
    GLOB,
    MODEL,
    NAME,
    NOWHERE,
    ONE_ADAPTER,
    OPTION,
    REFERENCE,
    REVISION,
    SHARD,
    SIZE,
    TEXT,
    Door,
    Option,
    ask,
    one_of,
    whole_number,
)

_RUN, _FUZZ, _SELFTEST, _PYTHON, _PYTEST = Door.RUN, Door.FUZZ, Door.SELFTEST, Door.PYTHON, Door.PYTEST
_COMMANDS = _RUN | _FUZZ | _SELFTEST

JUNIT_HELP = "JUnit XML too, a test case for each check: for Jenkins, GitLab and other build servers."
GITHUB_HELP = "Annotations for GitHub's pages on the standard output, and the report in the step's summary."
GATES = tuple(str(verdict) for verdict in (Verdict.REDUCED, Verdict.UPSTREAM, Verdict.SKIP))
"""The verdicts with which an adapter does not conform if that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Everything that was asked for; what nobody asked for has its default.

    Of `timeout` (seconds) and `memory` (bytes), 0 stands for no limit and None for the default one. `configured` names
    the keys of the configuration that were used.
    """

    family: str = ask(
        MISSING,
        FAMILY,
        "The model family, by name or as module:object.",
        _COMMANDS | _PYTEST,
        helps={_PYTEST: "Run FAMILY's matrix as tests."},
        example='family = "name"',
    )
    adapters: tuple[str, ...] = ask(
        (),
        REFERENCE,
        "The adapter under test; may be repeated. Default: `adapter` in [tool.verifier], else `bridge`.",
        _COMMANDS | _PYTEST,
        helps={ONE_ADAPTER: "The adapter under test, in the place of the default one."},
        single=ONE_ADAPTER,
        unlisted=True,
        example='adapter = "name" or adapter = ["name", "module:object"]',
        spelled="adapter",
    )
    only: tuple[str, ...] = ask(
        (),
        GLOB,
        "Run the checks that match: `qkv.*`, or an area alone, `qkv`; may be repeated.",
        _RUN | _FUZZ | _PYTHON | _PYTEST,
        example='only = ["qkv", "weights.*"]',
        recorded=True,
    )
    where: tuple[str, ...] = ask(
        (),
        CONDITION,
        "Run the cases with these values, `alibi=true,num_kv_heads=4`; may be repeated.",
        _RUN | _FUZZ | _PYTHON | _PYTEST,
        helps={
            _FUZZ: "Fix fields to one value each: flags, dims, batch, length, long, padding, scale, attention.",
            _PYTHON: "Run the cases with these values: a text, several, or a mapping from flag to value.",
        },
        example='where = ["flag=true"]',
        recorded=True,
    )
    preset: str | None = ask(
        None, NAME, "Run a published checkpoint's shape instead of the flag matrix.", _RUN | _PYTHON, recorded=True
    )
    checkpoint: str | None = ask(
        None, MODEL, "Run the model in this folder instead of the flag matrix.", _RUN | _PYTHON, recorded=True
    )
    cases: Path | None = ask(
        None,
        FILE,
        "Run the cases in this file instead of the flag matrix: a record.jsonl, or on each line a case's JSON.",
        _RUN,
        recorded=True,
    )
    everywhere: bool = ask(
        False,
        FLAG,
        "Run every check on every case, also the checks that otherwise look at fewer.",
        _RUN | _PYTHON | _PYTEST,
        recorded=True,
    )
    dtypes: tuple[str, ...] = ask(
        WORKING_DTYPES,
        one_of(*WORKING_DTYPES),
        "A dtype that precision is judged in; may be repeated. Default: all.",
        _RUN | _FUZZ | _PYTHON,
        spelled="dtype",
        recorded=True,
    )
    device: str = ask("cpu", TEXT, "Where cases run, as torch names it.", _RUN | _FUZZ | _PYTHON, recorded=True)
    seed: int = ask(
        0,
        whole_number(0, SEEDS - 1),
        "The seed of weights and inputs.",
        _RUN | _FUZZ | _SELFTEST | _PYTHON | _PYTEST,
        example="seed = 7",
    )
    time: float | None = ask(
        None, DURATION, "How long the campaign goes on: `90s`, `10m`. Default: until Ctrl-C or --max-examples.", _FUZZ
    )
    max_examples: int | None = ask(None, COUNT, "How many cases run, those of shrinking aside.", _FUZZ)
    workers: int | None = ask(
        None,
        COUNT,
        "How many processes run cases. Default: the usable cores.",
        _RUN | _FUZZ | _PYTHON,
        example="workers = 2",
        unconfigured=_PYTEST,
    )
    out: Path | None = ask(
        None,
        FOLDER,
        "Where record and report go; several adapters get DIR/FAMILY-ADAPTER each. Default: reports/FAMILY-ADAPTER.",
        _RUN | _FUZZ | _PYTEST,
        helps={
            _FUZZ: "Where record, report and the cases that are kept go. Default: reports/FAMILY-ADAPTER-fuzz.",
            _PYTEST: "Where record and report of each adapter go, in DIR/FAMILY-ADAPTER; of decorated tests too.",
        },
        example='out = "reports"',
        unconfigured=_FUZZ | _PYTEST,
    )
    baseline: tuple[Path, ...] = ask(
        (),
        FILE,
        "Known failures, as `verifier baseline` writes them: each is run again first, and excused if it still fails in "
        "that way. May be repeated, one for each adapter.",
        _RUN | _PYTHON | _PYTEST,
        helps={
            _PYTHON: "The file with the known failures.",
            _PYTEST: "Known failures, which are expected to fail, strictly.",
        },
        single=_PYTHON | _PYTEST,
        unlisted=True,
        example='baseline = "verifier-known.toml"',
    )
    no_baseline: bool = ask(False, FLAG, "Do not use the configured baseline.", _RUN)
    gate: tuple[str, ...] = ask(
        (),
        one_of(*GATES),
        "Also fail the run on this outcome; may be repeated. `skip` is a check that was not applicable.",
        _RUN | _PYTHON,
        example='gate = ["reduced"]',
        recorded=True,
    )
    changed_since: str | None = ask(
        None,
        REVISION,
        "Run an adapter only if one of its files, or of the files that it imports, was touched between this git "
        "revision and the working tree.",
        _RUN,
    )
    resume: bool = ask(False, FLAG, "Continue the record that is there: run only the cases it lacks.", _RUN)
    timeout: float | None = ask(
        None,
        DURATION,
        "How long a case may take: `90`, `90s`, `5m`; 0 for no limit. Default: 60s, and 1h for --preset and "
        "--checkpoint.",
        _RUN | _FUZZ | _PYTHON,
        helps={_FUZZ: "How long a case may take; 0 for no limit. Default: 60s."},
        example='timeout = "90s"',
    )
    memory: int | None = ask(
        None,
        SIZE,
        "How much memory a case may take in addition: `512M`, `4G`; 0 for no limit. Default: 2G, and for --preset and "
        "--checkpoint each worker's share of what is free.",
        _RUN | _FUZZ | _PYTHON,
        helps={_FUZZ: "How much memory a case may take in addition; 0 for no limit. Default: 4G."},
        example='memory = "4G"',
    )
    isolation: bool = ask(
        True,
        FLAG,
        "Run cases in processes of their own; without it in this process, for a debugger, with no limits.",
        _RUN | _PYTHON | _PYTEST,
        helps={
            _PYTEST: "Run adapters in pytest's own process, in decorated tests too: for --pdb, and for tools that "
            "measure coverage."
        },
    )
    pdb: bool = ask(False, FLAG, "Stop in Python's debugger at each failure; implies --no-isolation.", _RUN)
    slowest: int = ask(0, whole_number(0), "Name the N slowest cases at the end.", _RUN)
    shard: Shard | None = ask(
        None,
        SHARD,
        "Run the I-th of N parts of the cases, each on a machine of its own; `verifier report` joins their records.",
        _RUN,
        recorded=True,
    )
    junit: Path | None = ask(None, FILE, JUNIT_HELP, _RUN)
    github: bool = ask(False, FLAG, GITHUB_HELP, _RUN)
    per: str = ask(
        "area",
        one_of("area", "check"),
        "Whether a test is a case and an area of checks, which are its subtests, or a case and a check.",
        _PYTEST,
    )
    configured: tuple[str, ...] = ()

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
    """The options of a door by the field's name; all of them without one."""
    found = {}
    for one in fields(RunRequest):
        option = one.metadata.get(OPTION)
        if option is not None and door in option.doors:  # no door is in every one
            default = None if one.default is MISSING else one.default
            found[one.name] = replace(option, name=one.name, default=default)
    return found
