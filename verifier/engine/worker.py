"""What runs in a worker process: load family, adapter and checks by name, then run one case after another."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import fcntl
import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from verifier.engine import crash_report
from verifier.engine.descendants import adopt_orphans, kill_descendants
from verifier.engine.events import CaseFinished, EvidenceReady, OutcomeReady, RowReady, RunStarted
from verifier.engine.loading import Loaded, load
from verifier.engine.plan import Plan, Task
from verifier.engine.process import redirect_output
from verifier.errors import HarnessError, OutdatedAdapter, Unrunnable, VerifierError, as_import_error, one_line
from verifier.judging.outcome import Outcome
from verifier.judging.row_summary import RowSummary

if TYPE_CHECKING:
    from verifier.checks.runner import Watcher

# What one outcome may take in pipes, files and reports; a repr of 10 MB helps nobody.
LINE_LIMIT = 1_000
DETAIL_LIMIT = 16_000

# Nothing holds up a process that is killed, but for a disk.
_KILL_SECONDS = 2.0

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """The worker is about to import code from outside; if it dies, the import is to blame."""

    what: str


# What a worker sends: the events of a case, which the coordinator passes on, and an error if the run cannot go on.
CaseEvent = OutcomeReady | RowReady | EvidenceReady | CaseFinished
Message = Loading | VerifierError | RunStarted | CaseEvent


def work(pipe: connection.Connection, log: str, path: Sequence[str], plan: Plan) -> None:
    """Load what a plan names, then run each case that comes through the pipe until it is closed.

    Args:
        pipe: cases come in, and messages go out.
        log: the file that the worker's output goes to.
        path: the worker's `sys.path`.
        plan: names family, adapter, checks and device; it has no cases.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to answer
    lead_process_group(pipe)
    sys.path[:] = path
    redirect_output(log)
    stacks = os.open(crash_report.stack_file(Path(log)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    faulthandler.enable(file=stacks)
    faulthandler.register(crash_report.ASK, file=stacks, all_threads=False)
    _end_with_parent()
    try:
        try:
            loaded = load(plan, about_to=lambda what: pipe.send(Loading(what=what)))
        except VerifierError as error:
            pipe.send(as_import_error(error))
            return
        # What was imported is never garbage; left in, each collection would go through all of it.
        gc.collect()
        gc.freeze()
        pipe.send(loaded.started())
        while True:
            task: Task = pipe.recv()
            for file in (2, stacks):  # what is kept is this case's
                os.ftruncate(file, 0)
            _run(pipe, task, loaded)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the coordinator is gone, or has no more cases


def _run(pipe: connection.Connection, task: Task, loaded: Loaded) -> None:
    try:
        for event in execute(task, loaded):
            pipe.send(event)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Unrunnable as error:
        pipe.send(as_import_error(error))
    except OutdatedAdapter as error:
        pipe.send(HarnessError(str(error)))
    except Exception as error:
        what = f"the harness failed on case {task.spec.id}: {one_line(error)}"
        pipe.send(HarnessError(what, traceback.format_exc()))


def execute(task: Task, loaded: Loaded, *, seen: Watcher | None = None) -> Iterator[CaseEvent]:
    """Run the checks of a task on its case, or diagnose the case, and yield what happens.

    Args:
        task: the case, and what to do with it.
        loaded: family, adapter and checks.
        seen: is called with each outcome and the live case.
    """
    began, spec = time.perf_counter(), task.spec
    wanted = loaded.checks
    if task.checks is not None:
        wanted = tuple(check for check in wanted if check.id in task.checks)
    if task.diagnose:
        from verifier.checks.diagnosis import diagnose_case

        for found in diagnose_case(spec, loaded.family, loaded.adapter, wanted):
            yield EvidenceReady(evidence=found)
    else:
        from verifier.checks import runner

        rows: list[RowSummary] = []
        for outcome in runner.run_case(spec, loaded.family, loaded.adapter, wanted, seen=seen, looked=rows.append):
            yield from (RowReady(row=trim_row(row)) for row in rows)
            rows.clear()
            yield OutcomeReady(case=spec.id, outcome=trim_outcome(outcome))
    yield CaseFinished(case=spec.id, seconds=time.perf_counter() - began)


def trim_outcome(outcome: Outcome) -> Outcome:
    """Turn an outcome into plain types, cut its texts, and mask memory addresses, which differ in each run."""
    return dataclasses.replace(
        outcome,
        measured=None if outcome.measured is None else float(outcome.measured),
        bound=None if outcome.bound is None else float(outcome.bound),
        where=_cut(outcome.where, LINE_LIMIT),
        message=_cut(outcome.message, LINE_LIMIT),
        exception=_cut(outcome.exception, LINE_LIMIT),
        site=_cut(outcome.site, LINE_LIMIT),
        detail=_cut(outcome.detail, DETAIL_LIMIT),
    )


def trim_row(row: RowSummary) -> RowSummary:
    """Cut the texts of what came of a circumstance, and mask memory addresses, which differ in each run."""
    refused, not_offered = _cut(row.refused, LINE_LIMIT), _cut(row.not_offered, LINE_LIMIT)
    return structs.replace(row, refused=refused, not_offered=not_offered)


def _cut(text: str | None, limit: int) -> str | None:
    if text is None:
        return None
    text = str(text).encode(errors="backslashreplace").decode()  # no file and no pipe takes half a character
    if len(text) > limit:
        # Both ends: a message begins with what is wrong, and a traceback ends with it.
        half = limit // 2
        text = f"{text[:half]} … {len(text) - 2 * half:,} characters left out … {text[-half:]}"
    return _ADDRESS.sub("0x…", text)


def lead_process_group(pipe: connection.Connection) -> None:
    """Make this process lead a group of its own, so that what it starts ends with it, and cannot use its pipe."""
    with contextlib.suppress(PermissionError):  # it is the first of its group already
        os.setsid()
    adopt_orphans()  # as long as it lives, nothing that it starts gets out of its sight
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the forkserver answers it otherwise
    # As a daemon it could not use `multiprocessing`; whoever has started it ends it.
    multiprocessing.current_process().daemon = False
    # A fork that goes on where this process is would tell of the same case a second time.
    os.register_at_fork(after_in_child=pipe.close)


def _end_with_parent() -> None:
    """End this process when its parent ends: inside a long case it would not see that its pipe is closed."""
    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        kill_descendants(_KILL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="verifier-parent").start()
    if hasattr(fcntl, "F_SETSIG"):
        # That thread never runs while a call into C holds the interpreter's lock; the system itself can be told to end
        # this process when the pipe's other end is closed.
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
