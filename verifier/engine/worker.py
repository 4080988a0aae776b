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
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, parent_process
from pathlib import Path
from time import perf_counter  # held here: an adapter may patch `time`
from typing import TYPE_CHECKING, NoReturn, TypeGuard

from msgspec import structs

from verifier.cases.spec import CaseSpec
from verifier.checks.blame import is_outdated
from verifier.engine import crash_report, safeguard
from verifier.engine.descendants import adopt_orphans, kill_descendants
from verifier.engine.events import CaseFinished, CaseRefused, EvidenceReady, LadderReady, OutcomeReady, RowReady
from verifier.engine.loading import Loaded, load
from verifier.engine.messages import (
    DETAIL_LIMIT,
    Accepted,
    Answer,
    CaseEvent,
    CaseFailed,
    Loading,
    Message,
    Refused,
    encode,
)
from verifier.engine.plan import Plan, Task
from verifier.engine.process import redirect_output
from verifier.errors import ExitStatus, Unrunnable, VerifierError, one_line
from verifier.judging.evidence import Evidence
from verifier.judging.outcome import Outcome, as_text
from verifier.judging.row_summary import RowSummary

if TYPE_CHECKING:
    from verifier.checks.runner import Watcher

# What one line of an outcome may take; the limit of its details is the messages'.
LINE_LIMIT = 1_000

# Nothing holds up a process that is killed, but for a disk.
_KILL_SECONDS = 2.0

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")

Say = Callable[[Message | Answer | Accepted], None]


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
    say = speaker(pipe)
    try:
        loaded = _load(plan, say)
        if loaded is None:
            return
        # What was imported is never garbage; left in, each collection would go through all of it.
        gc.collect()
        gc.freeze()
        say(loaded.started())
        _tell_where_it_exits(stacks)
        while True:
            task: Task = pipe.recv()
            # What is kept is this case's, wherever the one before has put its output.
            redirect_output(log)
            for file in (log, crash_report.stack_file(Path(log))):
                os.truncate(file, 0)
            _run(say, task, loaded, Path(log))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the coordinator is gone, or has no more cases


def speaker(pipe: connection.Connection) -> Say:
    """Make the function that sends a message; it holds what it needs, whatever an adapter patches later."""
    send, spell = pipe.send_bytes, encode
    return lambda message: send(spell(message))


def _load(plan: Plan, say: Say) -> Loaded | None:
    """Load what a plan names; None where that cannot be done, which is then said."""
    loading: list[str] = []

    def about_to(what: str) -> None:
        loading.append(what)
        say(Loading(what=what))

    try:
        return load(plan, about_to=about_to)
    except VerifierError as error:
        say(Refused(status=error.status, said=str(error)))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except BaseException as error:  # code from outside may raise anything at import, KeyboardInterrupt too
        what = f"{loading[-1]} cannot be loaded: " if loading else ""
        say(Refused(status=ExitStatus.BROKEN, said=f"{what}{one_line(error)}"))
    return None


def _run(say: Say, task: Task, loaded: Loaded, log: Path) -> None:
    """Run a case, and say what comes of it; a case that breaks what runs it ends the process with last words."""
    try:
        for event in execute(task, loaded):
            say(event)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except BaseException as error:
        safeguard.restore()
        if is_about_all_cases(error):
            say(Refused(status=error.status, said=str(error)))
        else:
            _give_up(say, CaseFailed.from_error(task.spec.id, error), log)


def is_about_all_cases(error: BaseException) -> TypeGuard[VerifierError]:
    """Whether an exception says that no case can be run; that of an adapter which only looks so is about its case."""
    return issubclass(type(error), Unrunnable) or is_outdated(error)


def _give_up(say: Say, words: CaseFailed, log: Path) -> NoReturn:
    """Say why the case cannot go on, through the pipe or, where that is closed, in a file, and end the process."""
    try:
        say(words)
    except OSError:
        crash_report.words_file(log).write_bytes(encode(words))
    finally:
        _exit_now(1)


_exit_now = os._exit


def _tell_where_it_exits(stacks: int) -> None:
    """Have `os._exit`, which leaves no trace, write down where it was called in this process."""
    owner, process = os.getpid(), os.getpid

    def _exit(status: int) -> NoReturn:
        if process() == owner:  # and not in a fork, whose end is nobody's
            faulthandler.dump_traceback(file=stacks, all_threads=False)
        _exit_now(status)

    os._exit = _exit


def execute(task: Task, loaded: Loaded, *, seen: Watcher | None = None) -> Iterator[CaseEvent]:
    """Run the checks of a task on its case, or diagnose the case, and yield what happens.

    Args:
        task: the case, and what to do with it.
        loaded: family, adapter and checks.
        seen: is called with each outcome and the live case.
    """
    from verifier.observing.circumstances.covering import told_before

    with told_before(task.told) if task.told else contextlib.nullcontext():
        yield from _execute(task, loaded, seen)


def _execute(task: Task, loaded: Loaded, seen: Watcher | None) -> Iterator[CaseEvent]:
    began, spec = perf_counter(), task.spec
    wanted = loaded.checks
    if task.checks is not None:
        # Nobody could ask for checks of refused cases where the case was taken for valid.
        was_valid = spec.valid and not task.diagnose
        wanted = tuple(one for one in wanted if one.id in task.checks or (was_valid and one.applies == "invalid"))
    if task.diagnose:
        from verifier.checks.diagnosis import diagnose_case

        for found in diagnose_case(spec, loaded.family, loaded.adapter, wanted):
            yield EvidenceReady(evidence=found) if isinstance(found, Evidence) else LadderReady(evidence=found)
    else:
        from verifier.checks import runner

        rows, late = list[RowSummary](), list[str]()
        for outcome in runner.run_case(
            spec, loaded.family, loaded.adapter, wanted, seen=seen, looked=rows.append, refused=late.append
        ):
            yield from _late_refusal(spec, late)
            yield from (RowReady(row=trim_row(row)) for row in rows)
            rows.clear()
            yield OutcomeReady(case=spec.id, outcome=trim_outcome(outcome))
        yield from _late_refusal(spec, late)  # where no check looks at refused cases
    yield CaseFinished(case=spec.id, seconds=perf_counter() - began)


def _late_refusal(spec: CaseSpec, reasons: list[str]) -> Iterator[CaseRefused]:
    """Tell once that Hugging Face refuses a case."""
    while reasons:
        yield CaseRefused(case=spec.id, reason=_cut(str(as_text(reasons.pop())), LINE_LIMIT) or "")


def trim_outcome(outcome: Outcome) -> Outcome:
    """Cut an outcome's texts, and mask memory addresses, which differ in each run."""
    return dataclasses.replace(
        outcome,
        where=_cut(outcome.where, LINE_LIMIT),
        message=_cut(outcome.message, LINE_LIMIT),
        exception=_cut(outcome.exception, LINE_LIMIT),
        site=_cut(outcome.site, LINE_LIMIT),
        detail=_cut(outcome.detail, DETAIL_LIMIT),
    )


def trim_row(row: RowSummary) -> RowSummary:
    """Cut the texts of what came of a circumstance, and mask memory addresses, which differ in each run."""
    refused, not_offered = _cut(as_text(row.refused), LINE_LIMIT), _cut(as_text(row.not_offered), LINE_LIMIT)
    return structs.replace(row, refused=refused, not_offered=not_offered)


def _cut(text: str | None, limit: int) -> str | None:
    if text is None:
        return None
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
