"""Start workers, send them cases, read their messages, and report how they ended."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from verifier.cases.spec import CaseSpec
from verifier.engine import crash_report, server
from verifier.engine.events import OutcomeReady
from verifier.engine.limits import Limits, resident_memory
from verifier.engine.plan import Plan, Task
from verifier.engine.worker import Loading, Message, WorkerConfig, work
from verifier.judging.outcome import Verdict

Context = ForkServerContext | SpawnContext

# A dead process's exit status comes a moment after its pipe is closed.
_EXIT_SECONDS = 2.0
# A process that is to be ended gets this long to write down where it is.
_STACK_SECONDS = 1.0
# A message is written in one go.
_MESSAGE_SECONDS = 10
# Output beyond this is dropped: nobody reads it, and a disk is soon full.
_LOG_BYTES = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExit:
    """How a worker ended.

    Attributes:
        verdict: what it makes of its case: crash or timeout.
        word: in one word: `SIGSEGV`, `exit 7`, `memory`.
        how: as a clause for people.
        detail: the Python stack, where there is one, and the last of its output.
    """

    verdict: Verdict
    word: str
    how: str
    detail: str | None


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A worker process, and what it is doing.

    Attributes:
        process: the process.
        pipe: both ways: cases to it, messages from it.
        log: where its output goes.
        number: the lowest number that no other living worker has.
        loading: what it said last that it was about to import, `adapter 'bridge'`.
        ready: whether it has loaded everything and takes cases.
        spec: the case that it runs; None between two cases.
        last: the case that it ran before.
        seen: the ids of the checks that have ended on the case, or on the last one.
        began: when it was started or given the case, by `time.perf_counter`.
        memory_before: its memory at that time, in bytes; None where the system does not say.
        memory_when_ready: its memory when it was ready, in bytes; None where the system does not say.
        alone: whether it runs a single case that is run again, while no other worker runs.
        ended: how and why the harness ended it; None where it did not.
    """

    process: BaseProcess
    pipe: connection.Connection
    log: Path
    number: int = 0
    loading: str | None = None
    ready: bool = False
    spec: CaseSpec | None = None
    last: CaseSpec | None = None
    seen: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    memory_before: int | None = None
    memory_when_ready: int | None = None
    alone: bool = False
    ended: WorkerExit | None = None

    @property
    def memory(self) -> int | None:
        """The bytes that it has now; None where the system does not say."""
        return None if self.process.pid is None else resident_memory(self.process.pid)

    def memory_growth(self, since: int | None) -> int:
        """The bytes that it has on top of what it had then; 0 where the system does not say."""
        now = self.memory
        return 0 if now is None or since is None else now - since

    def send_task(self, task: Task) -> None:
        """Send it a case; if the worker has died meanwhile, reading its messages will say so."""
        self.spec, self.seen, self.began, self.memory_before = task.spec, [], time.perf_counter(), self.memory
        try:
            self.pipe.send(task)
        except (BrokenPipeError, ConnectionResetError):
            return

    def messages(self) -> Iterator[Message]:
        """Read what the worker has sent so far, without waiting for more.

        Raises:
            EOFError: the worker is dead, and everything that it sent has been read.
        """
        midway = False
        try:
            while _speaks(self.pipe):
                message = self._message()
                if isinstance(message, Loading):
                    self.loading = message.what
                midway = isinstance(message, OutcomeReady)
                yield message
        except OSError as error:
            raise EOFError from error
        # Not asked in the middle of a case, hundreds of times a second: one that dies there is heard again at once.
        if not midway and not self.process.is_alive() and not _speaks(self.pipe):
            raise EOFError

    def _message(self) -> Message:
        """Read the next message.

        Raises:
            EOFError: there is no message, and there will be none.
        """
        try:
            message: Message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise
        except Exception as error:  # an adapter that closes, or writes to, every file that its process has
            self.kill()
            how = "wrote what is no message into the harness' own pipe, and was ended"
            self.ended = WorkerExit(verdict=Verdict.CRASH, word="garbled", how=how, detail=crash_report.read(self.log))
            raise EOFError from error
        return message

    def enforce_limits(self, limits: Limits) -> bool:
        """End the worker if it takes more time or memory than a case, or than loading, may take.

        Returns:
            Whether the worker was ended.
        """
        taken = time.perf_counter() - self.began
        if not self.ready:
            if limits.loading is not None and taken > limits.loading:
                said = f"was not over after {limits.loading:g} s (a larger --timeout gives it as long)"
                self.end(Verdict.TIMEOUT, "timeout", said)
        elif self.spec is None:
            return False
        elif limits.seconds is not None and taken > limits.seconds:
            self.end(Verdict.TIMEOUT, "timeout", f"was not done with the case after {limits.seconds:g} s (--timeout)")
        elif limits.bytes is not None and self.memory_growth(self.memory_before) > limits.bytes:
            took = f"took more than {limits.bytes / 2**20:,.0f} MiB for the case (--memory), and was ended"
            self.end(Verdict.CRASH, "memory", took)
        else:
            self.cut_output()
        return self.ended is not None

    def is_bloated(self, limits: Limits) -> bool:
        """Whether earlier cases left half as much memory behind in it as one case may take."""
        return limits.bytes is not None and self.memory_growth(self.memory_when_ready) > limits.bytes / 2

    def cut_output(self) -> None:
        """Drop the output that the worker has written if it is too long."""
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_BYTES:
                os.truncate(self.log, 0)

    def end(self, verdict: Verdict, word: str, how: str) -> None:
        """End the worker because it took too much; it writes its Python stack first."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, crash_report.ASK)
        deadline = time.perf_counter() + _STACK_SECONDS
        while not crash_report.has_stack(self.log) and time.perf_counter() < deadline and self.process.is_alive():
            time.sleep(0.01)
        self.kill()
        self.process.join(_EXIT_SECONDS)
        self.ended = WorkerExit(verdict=verdict, word=word, how=how, detail=crash_report.read(self.log))

    def kill(self) -> None:
        """Kill the process and whatever it has started: it leads a process group of its own."""
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def close(self) -> None:
        """Kill the process, and close the pipe to it."""
        self.pipe.close()
        self.kill()
        self.process.join(_EXIT_SECONDS)

    def wait_for_exit(self) -> WorkerExit:
        """Wait until the process is gone, and say how it ended."""
        if self.ended is not None:
            return self.ended
        self.process.join(_EXIT_SECONDS)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
        word, how = _in_words(code)
        return WorkerExit(verdict=Verdict.CRASH, word=word, how=how, detail=crash_report.read(self.log))


def _hurry(pipe: connection.Connection) -> None:
    """Make reading from a pipe fail if a message that has begun does not end soon: it is then none of ours."""
    if hasattr(socket, "SO_RCVTIMEO"):
        with socket.socket(fileno=os.dup(pipe.fileno())) as end:
            end.setblocking(True)  # whatever this process wishes of its other sockets
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _MESSAGE_SECONDS, 0))


def _speaks(pipe: connection.Connection) -> bool:
    """Whether a message, or the end, can be read; `Connection.poll` would make a selector for each call."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(0))


def _in_words(code: int | None) -> tuple[str, str]:
    """Spell an exit code as one word and as a clause."""
    if code is None:
        return "lost", "closed its pipe and went on without it"
    if code >= 0:
        return f"exit {code}", f"ended with exit status {code}"
    try:
        name, words = signal.Signals(-code).name, signal.strsignal(-code)
        if -code == signal.SIGKILL:
            words = "killed, as the system does where memory runs out"
    except ValueError:
        name, words = f"signal {-code}", None
    return name, f"was ended by {name}" + (f" ({words.lower()})" if words else "")


class Launcher:
    """Starts processes that talk through a pipe.

    Args:
        context: how a process is started.
        fallback: gives the context to go on with if the forkserver dies of what it imports, or does not end to import.
    """

    def __init__(self, context: Context, fallback: Callable[[], Context]) -> None:
        self._context = context
        self._fallback = fallback

    def start(self, target: Callable[..., None], log: Path, *arguments: object, seconds: float | None) -> Worker:
        """Start a process; the first one waits until the forkserver has imported what all processes share.

        Args:
            target: the function that runs in it; it is given its end of the pipe, and the arguments.
            log: the file that its output goes to.
            arguments: whatever can be pickled.
            seconds: what the forkserver's imports may take; None for any time.
        """
        try:
            with server.preload_timeout(seconds):
                return self._start(target, log, *arguments)
        except (EOFError, OSError):
            server.discard()
            self._context = self._fallback()
            return self._start(target, log, *arguments)

    def _start(self, target: Callable[..., None], log: Path, *arguments: object) -> Worker:
        ours, theirs = self._context.Pipe()
        _hurry(ours)
        process = self._context.Process(target=target, args=(theirs, *arguments), daemon=True)
        try:
            server.start(process)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Worker(process=process, pipe=ours, log=log)


class WorkerPool:
    """The worker processes of a run."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.workers: list[Worker] = []
        self._plan = plan
        self._folder = folder
        self._started = 0
        # Importing the family or the adapter may kill the forkserver, or hang. In a worker it is seen and named.
        self._launcher = Launcher(server.context(plan), lambda: server.context(plan, outside=False))
        self._selector = selectors.DefaultSelector()

    def listen(self, reader: int) -> None:
        """Make `wait` return when something can be read from this file descriptor, too."""
        self._selector.register(reader, selectors.EVENT_READ)

    def wait(self, seconds: float) -> list[Worker]:
        """Wait until a worker has sent something or died, or `listen` has something to read; name these workers."""
        ready = [key.data for key, _ in self._selector.select(seconds)]
        return [worker for worker in self.workers if worker in ready]

    def start(self) -> Worker:
        """Start a worker process; the first one waits until the forkserver has imported what all workers share."""
        log = self._folder / f"worker-{self._started}"
        self._started += 1
        plan = replace(self._plan, specs=(), known={}, wanted=None)
        config = WorkerConfig(plan=plan, log=str(log), path=server.search_path())
        worker = self._launcher.start(work, log, config, seconds=plan.limits.loading)
        worker.number = next(one for one in itertools.count() if all(one != other.number for other in self.workers))
        self.workers.append(worker)
        for end in (worker.pipe, worker.process.sentinel):
            self._selector.register(end, selectors.EVENT_READ, worker)
        return worker

    def stop(self, worker: Worker) -> None:
        """Stop a worker that is dead or has nothing more to do; it holds no state that needs an orderly exit."""
        self.workers.remove(worker)
        for end in (worker.pipe, worker.process.sentinel):
            self._selector.unregister(end)
        worker.close()
        for file in (worker.log, crash_report.stack_file(worker.log)):
            file.unlink(missing_ok=True)

    def stop_all(self) -> None:
        """Stop every worker at once, whatever it is doing."""
        for worker in self.workers:  # all first, so that none of them is waited for
            worker.kill()
        for worker in list(self.workers):
            self.stop(worker)
        self._selector.close()
