"""The process that worker processes are forked from, with the heavy modules imported once."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess

from verifier import adapter, family, plugins
from verifier.checks import MODULES
from verifier.engine import preload, sources
from verifier.engine.guard import end_guarded
from verifier.engine.plan import Plan

# What every case needs, whatever the family and the adapter. `hypothesis` is not among them: the matrix has no use.
HEAVY = (
    "torch",
    "transformers",
    "verifier.cli",
    "verifier.observing.case",
    "verifier.checks.runner",
    "verifier.reference.taps",
    "verifier.judging.numerics",
    "verifier.engine.worker",
)

# Workers are ended by a signal, which leaves semaphores of whatever they imported (a progress bar's lock) to Python's
# resource tracker. It clears them away, and would say so as a warning below our verdict.
_QUIET_TRACKER = "ignore::UserWarning:multiprocessing.resource_tracker"

# What the running forkserver was told to preload, and of which sources; Python has one forkserver a process.
_running: list[str | None] = []
# What the last forkserver was told: one that something has killed is started again where a process is wanted.
_told: list[str] = []


def context(plan: Plan, *, outside: bool = True) -> ForkServerContext | SpawnContext:
    """Choose how the workers of a plan are started; a forkserver is started here, and not waited for.

    Args:
        plan: names the family, the adapter and the device.
        outside: whether the family's and the adapter's modules are preloaded too; an adapter that kills the process
            at import would kill the forkserver.
    """
    if plan.device != "cpu":
        # Importing code may have asked the driver for its devices, and a driver does not survive a fork. On Linux a
        # process is forked from one that has imported nothing and has a guard; elsewhere other things do not survive.
        return _forking([], []) if sys.platform == "linux" else multiprocessing.get_context("spawn")
    if not outside:
        return shared_context()
    theirs = plugins.module_of(plan.family, family.GROUP), plugins.module_of(plan.adapter, adapter.GROUP)
    # The family's class makes transformers import its modelling file.
    architecture = ("transformers", family.load(plan.family).architecture)
    return _forking(_shared_modules(), [architecture], outside=[module for module in theirs if module is not None])


def shared_context() -> ForkServerContext:
    """Start a forkserver that imports what every case needs, but no family and no adapter; it is not waited for."""
    return _forking(_shared_modules(), [])


def _shared_modules() -> list[str]:
    return [*HEAVY, *(f"verifier.checks.{module}" for module in MODULES)]


def _forking(
    modules: Sequence[str], attributes: Sequence[tuple[str, str]], *, outside: Sequence[str] = ()
) -> ForkServerContext:
    server = multiprocessing.get_context("forkserver")
    wanted = preload.spell([*modules, *outside], attributes, search_path())
    # What was edited since is to be imported anew. Where nothing runs yet it is looked at while the server imports.
    if _running[:1] != [wanted] or _running[1:] != _sources(outside):
        discard()
        server.set_forkserver_preload([preload.__name__])
        _told[:] = [wanted]
        _start()
        _running[:] = [wanted, *_sources(outside)]
    return server


def _sources(modules: Sequence[str]) -> list[str | None]:
    return [sources.digest(module) for module in modules]


@contextlib.contextmanager
def preload_timeout(seconds: float | None) -> Iterator[None]:
    """End the forkserver if the block is not over after a number of seconds; None sets no limit.

    The first process that the forkserver starts waits, in a system call, until everything is preloaded. That call fails
    with an `OSError` or an `EOFError` once the forkserver is gone.
    """
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, discard)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def discard() -> None:
    """End the running forkserver, if there is one: the next workers come from a fresh one.

    An adapter under test may patch what it imports, so two adapters share no forkserver.
    """
    _running.clear()
    # Python has no public way to end it. Where the attribute is gone the old one goes on, with nothing preloaded
    # for the next adapter, whose workers then import for themselves.
    pid = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            end_guarded(pid)  # it is reaped by the next start


def start(process: BaseProcess) -> None:
    """Start a process; Ctrl-C still works while the first one waits for the imports of the forkserver."""
    with main_hidden():
        if isinstance(process, SpawnProcess):
            with interrupts_held(), without_shadowing_paths():
                process.start()
        else:
            with _telling():
                process.start()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C, which the terminal sends to the whole group, from processes that are started inside the block."""
    with _environment("PYTHONWARNINGS", _QUIET_TRACKER):
        resource_tracker.ensure_running()  # it unblocks the signal in this process when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def main_hidden() -> Iterator[None]:
    """Keep processes that are started inside the block from running the caller's main script again.

    `multiprocessing` has every child import it, for objects that are pickled by reference to it; workers get none.
    So a script needs no `if __name__ == "__main__"`, and a prompt, a notebook or standard input will do.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def search_path() -> tuple[str, ...]:
    """Give `sys.path` of this process, with the current folder by its path."""
    return tuple(entry or os.getcwd() for entry in sys.path)


@contextlib.contextmanager
def without_shadowing_paths() -> Iterator[None]:
    """Leave folders that hold another `verifier` out of `sys.path`, for a process that is spawned inside the block.

    The process takes over `sys.path` before it imports the package; the worker sets the full path itself.
    """
    before = list(sys.path)
    sys.path[:] = [entry for entry in search_path() if plugins.shadowing(entry) is None]
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Have a forkserver that is started inside the block preload what was wanted last."""
    # A `python -c`, as which the forkserver is started, would look into the current folder first.
    safe = os.environ.get(preload.SAFE_PATH) or preload.OURS
    owner = _environment(preload.OWNER, str(os.getpid()))
    with owner, _environment(preload.VARIABLE, _told[0]), _environment(preload.SAFE_PATH, safe):
        yield


def _start() -> None:
    with _telling(), interrupts_held():
        multiprocessing.forkserver.ensure_running()
    # It ends by itself when this process is gone, unless what it imported has started a thread that goes on.
    atexit.unregister(_leave)
    atexit.register(_leave, os.getpid())


def _leave(owner: int) -> None:
    """End the forkserver as the process ends that started it, but not as a fork of that process ends."""
    if os.getpid() == owner:
        discard()


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside the block, and restore it afterwards."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
