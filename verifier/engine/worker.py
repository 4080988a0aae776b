"""What runs in a worker process: it loads family, adapter and checks by name, then takes one case after another."""

from __future__ import annotations

import dataclasses
import faulthandler
import gc
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING, TypeVar

from verifier.engine.events import CheckInfo
from verifier.errors import ExitStatus, ImportFailed, UsageError, VerifierError, one_line
from verifier.outcome import Outcome
from verifier.spec import CaseSpec

if TYPE_CHECKING:
    from verifier.adapter import Adapter
    from verifier.checks import Check
    from verifier.family import Family

# What one outcome may take in pipes, files and reports; a repr of 10 MB helps nobody.
LINE_LIMIT = 1_000
DETAIL_LIMIT = 16_000

Loaded = TypeVar("Loaded")

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """The worker is about to import code from outside: if it dies, this is why."""

    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Everything is loaded; the worker waits for cases."""

    adapter_name: str
    adapter_version: str
    checks: tuple[CheckInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The run cannot go on: a `VerifierError` of that status, or a fault of the harness with its traceback."""

    status: ExitStatus
    message: str
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An outcome of the case at hand."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The case at hand is over."""

    seconds: float


Message = Loading | Ready | Failed | Result | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a worker is started with."""

    family: str
    adapter: str
    only: tuple[str, ...]
    device: str
    log: str


def work(pipe: connection.Connection, orders: Orders) -> None:
    """Load what the orders name, then run each case that comes through the pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to answer
    _redirect_output(orders.log)
    faulthandler.enable(file=2)
    _end_with_parent()
    try:
        try:
            family, adapter, checks = _load(pipe, orders)
        except VerifierError as error:
            pipe.send(Failed(status=error.status, message=str(error), detail=traceback.format_exc()))
            return
        # What was imported is never garbage; left in, each collection would go through all of it.
        gc.collect()
        gc.freeze()
        info = tuple(CheckInfo(id=check.id, doc=check.doc, applies=check.applies) for check in checks)
        pipe.send(Ready(adapter_name=str(adapter.name), adapter_version=str(adapter.version), checks=info))
        while True:
            spec: CaseSpec = pipe.recv()
            os.ftruncate(2, 0)  # what is kept of the output is this case's
            _run(pipe, spec, family, adapter, checks)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the coordinator is gone, or has no more cases


def _run(
    pipe: connection.Connection, spec: CaseSpec, family: Family, adapter: Adapter, checks: tuple[Check, ...]
) -> None:
    from verifier.trial import run_case

    began = time.perf_counter()
    try:
        for outcome in run_case(spec, family, adapter, checks):
            pipe.send(Result(outcome=bounded(outcome)))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        pipe.send(
            Failed(
                status=ExitStatus.BROKEN,
                message=f"the harness failed on case {spec.id}: {one_line(error)}",
                detail=traceback.format_exc(),
            )
        )
    else:
        pipe.send(Done(seconds=time.perf_counter() - began))


def _load(pipe: connection.Connection, orders: Orders) -> tuple[Family, Adapter, tuple[Check, ...]]:
    import torch

    from verifier import adapter, checks, family
    from verifier.surroundings import remember

    torch.set_num_threads(1)  # the cores are shared out by process
    selected = checks.select(orders.only)
    pipe.send(Loading(what=f"family {orders.family!r}"))
    reference = _guarded(f"family {orders.family!r}", lambda: family.load(orders.family))
    remember(reference)
    pipe.send(Loading(what=f"adapter {orders.adapter!r}"))
    subject = _guarded(f"adapter {orders.adapter!r}", lambda: adapter.load(orders.adapter))
    _require_device(orders.device)
    return reference, subject, selected


def _require_device(name: str) -> None:
    import torch

    refused = f"device {name!r} cannot be used here"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(refused) from error  # torch would name every type that was ever thought of
    if device.type == "meta":
        raise UsageError(f"{refused}: it holds no values")
    try:
        torch.empty(1, device=device)
    except Exception as error:
        raise UsageError(f"{refused}: {one_line(error)}") from error


def _guarded(what: str, load: Callable[[], Loaded]) -> Loaded:
    """Code from outside may raise anything at import, SystemExit included."""
    try:
        return load()
    except VerifierError:
        raise
    except BaseException as error:
        raise ImportFailed(f"{what} raised at import: {one_line(error)}") from error


def bounded(outcome: Outcome) -> Outcome:
    """The outcome in plain types, its texts cut to what can be shown and rid of addresses, which differ each time."""
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


def _cut(text: str | None, limit: int) -> str | None:
    if text is None:
        return None
    text = str(text)
    if len(text) > limit:
        # Both ends: a message begins with what is wrong, and a traceback ends with it.
        half = limit // 2
        text = f"{text[:half]} … {len(text) - 2 * half:,} characters left out … {text[-half:]}"
    return _ADDRESS.sub("0x…", text)


def _redirect_output(log: str) -> None:
    """Whatever the subject prints goes to the log, of which the last is shown if the process dies."""
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(sink, stream)
    os.close(sink)


def _end_with_parent() -> None:
    """A worker that is inside a long case would not see that its pipe is closed."""
    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="verifier-parent").start()
