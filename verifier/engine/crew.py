"""The worker processes as the coordinator sees them: started, fed, heard, and mourned."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path

from verifier.engine import server
from verifier.engine.plan import Plan
from verifier.engine.worker import Loading, Message, Orders, work
from verifier.spec import CaseSpec

# A dead process's exit status comes a moment after its pipe is closed.
_EXIT_SECONDS = 2.0
_TAIL_BYTES = 8_000


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A worker process and what it is at.

    Attributes:
        process: the process.
        pipe: both ways: cases to it, messages from it.
        log: where its output goes.
        loading: what it said last that it was about to import.
        ready: whether it takes cases.
        spec: the case that it is at.
        seen: the checks that have ended on that case.
        began: when it was given the case.
    """

    process: BaseProcess
    pipe: connection.Connection
    log: Path
    loading: str | None = None
    ready: bool = False
    spec: CaseSpec | None = None
    seen: list[str] = field(default_factory=list)
    began: float = 0.0

    def give(self, spec: CaseSpec) -> None:
        """Hand it a case; a worker that has died meanwhile is found out when it is next heard."""
        self.spec, self.seen, self.began = spec, [], time.perf_counter()
        try:
            self.pipe.send(spec)
        except (BrokenPipeError, ConnectionResetError):
            return

    def messages(self) -> Iterator[Message]:
        """What it has sent so far.

        Raises:
            EOFError: it is dead, and everything that it sent has been given.
        """
        try:
            while self.pipe.poll():
                message: Message = self.pipe.recv()
                if isinstance(message, Loading):
                    self.loading = message.what
                yield message
        except OSError as error:
            raise EOFError from error
        if not self.process.is_alive() and not self.pipe.poll():
            raise EOFError

    def death(self) -> tuple[str, str]:
        """How it died, as a word (`SIGSEGV`, `exit 7`) and as a clause for people."""
        self.process.join(_EXIT_SECONDS)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
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

    def tail(self) -> str | None:
        """The last of its output; after a fatal signal the Python stack of the thread that it met."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - _TAIL_BYTES))
                text = file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return None
        fatal, found, stack = text.rpartition("Current thread ")
        if found:
            # faulthandler tells of every other thread first, and of every extension module last.
            said = [line for line in fatal.splitlines() if line.startswith("Fatal Python error")]
            text = "\n".join([*said[-1:], found + stack.partition("\n\n")[0]])
        return text or None


class Crew:
    """Every worker of a run; ends them when it is left."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.workers: list[Worker] = []
        self._plan = plan
        self._folder = folder
        self._started = 0
        self._context: ForkServerContext | SpawnContext = server.context(plan)

    def hire(self) -> Worker:
        """Start a process; the first one waits for the forkserver to have imported what all share."""
        try:
            worker = self._start()
        except (EOFError, OSError):
            # Importing the family or the adapter killed the forkserver. In a worker it is seen and named.
            server.discard()
            self._context = server.context(self._plan, outside=False)
            worker = self._start()
        self.workers.append(worker)
        return worker

    def dismiss(self, worker: Worker) -> None:
        """Let go of one that is dead or has nothing more to do: there is no state in it worth an orderly exit."""
        self.workers.remove(worker)
        worker.pipe.close()
        worker.process.kill()
        worker.process.join(_EXIT_SECONDS)
        worker.log.unlink(missing_ok=True)

    def end(self) -> None:
        """End them all at once, whatever they are at."""
        for worker in self.workers:  # all first, so that none of them is waited for
            worker.process.kill()
        for worker in list(self.workers):
            self.dismiss(worker)

    def _start(self) -> Worker:
        ours, theirs = self._context.Pipe()
        log = self._folder / f"worker-{self._started}"
        self._started += 1
        plan = self._plan
        orders = Orders(family=plan.family, adapter=plan.adapter, only=plan.only, device=plan.device, log=str(log))
        process = self._context.Process(target=work, args=(theirs, orders), daemon=True)
        try:
            with server.main_hidden():
                if isinstance(process, SpawnProcess):
                    with server.interrupts_held():
                        process.start()
                else:
                    process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Worker(process=process, pipe=ours, log=log)
