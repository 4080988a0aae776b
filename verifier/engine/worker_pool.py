"""Start worker processes, and listen to all of them at once."""

from __future__ import annotations

import itertools
import os
import selectors
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

from verifier.engine import crash_report, server
from verifier.engine.plan import Plan
from verifier.engine.worker import work
from verifier.engine.worker_process import Worker
from verifier.errors import HarnessError

Context = ForkServerContext | SpawnContext

_MESSAGE_SECONDS = 10  # a message is written in one go


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
            target: the function that runs in it; it is given its end of the pipe, the log and the arguments.
            log: the file that its output goes to.
            arguments: whatever can be pickled.
            seconds: what the forkserver's imports may take; None for any time.

        Raises:
            HarnessError: none can be started.
        """
        try:
            with server.preload_timeout(seconds):
                return self._start(target, log, *arguments)
        except (EOFError, OSError):
            server.discard()
        self._context = self._fallback()
        try:
            return self._start(target, log, *arguments)
        except (EOFError, OSError) as error:
            why = f": {error.strerror}" if isinstance(error, OSError) else ""
            raise HarnessError(f"no process can be started{why}: memory, files or processes may be short") from error

    def _start(self, target: Callable[..., None], log: Path, *arguments: object) -> Worker:
        ours, theirs = self._context.Pipe()
        _hurry(ours)
        process = self._context.Process(target=target, args=(theirs, str(log), *arguments), daemon=True)
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
        worker = self._launcher.start(work, log, server.search_path(), plan, seconds=plan.limits.loading)
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
        for file in (worker.log, crash_report.stack_file(worker.log), crash_report.words_file(worker.log)):
            file.unlink(missing_ok=True)

    def stop_all(self) -> None:
        """Stop every worker at once, whatever it is doing."""
        for worker in self.workers:  # all first, so that none of them is waited for
            worker.kill()
        for worker in list(self.workers):
            self.stop(worker)
        self._selector.close()


def _hurry(pipe: connection.Connection) -> None:
    """Make reading from a pipe fail if a message that has begun does not end soon: it is then none of ours."""
    if hasattr(socket, "SO_RCVTIMEO"):
        with socket.socket(fileno=os.dup(pipe.fileno())) as end:
            end.setblocking(True)  # whatever this process wishes of its other sockets
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _MESSAGE_SECONDS, 0))
