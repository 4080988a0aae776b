"""A worker process as seen from outside: send it a case, read its messages, limit it, and report how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec
import psutil

from verifier.cases.spec import CaseSpec
from verifier.checks import OF_SURROUNDINGS
from verifier.engine import crash_report
from verifier.engine.descendants import kill, list_descendants
from verifier.engine.events import CaseFinished, CaseRefused, OutcomeReady, RowReady, RunStarted
from verifier.engine.limits import Limits, resident_memory
from verifier.engine.messages import (
    MOST_BYTES,
    CaseEvent,
    CaseFailed,
    Loading,
    Message,
    Refused,
    case_of,
    decode,
)
from verifier.engine.plan import Task
from verifier.errors import HarnessError, ImportFailed, VerifierError
from verifier.judging.outcome import Verdict

# A dead process's exit status comes a moment after its pipe is closed.
_EXIT_SECONDS = 2.0
# A process that is to be ended gets this long to write down where it is.
_STACK_SECONDS = 1.0
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
        site: `file:function` of the adapter's innermost frame; None where that is chance, or there is none.
    """

    verdict: Verdict
    word: str
    how: str
    detail: str | None
    site: str | None = None

    @classmethod
    def from_last_words(cls, words: CaseFailed) -> WorkerExit:
        """Make the end of a process that a case broke of what the process could still say."""
        how = f"could not go on: {words.said}"
        return cls(verdict=Verdict.CRASH, word=words.exception, how=how, detail=words.detail, site=words.site)


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A worker process as the coordinator sees it, and what it is doing.

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
        helpers: the processes that loading everything has started, for all cases.
        is_dirty: whether a case left something behind that the next one would find, or a process that runs on.
        again: whether it was started in the place of one that died before its first case.
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
    helpers: frozenset[psutil.Process] = frozenset()
    is_dirty: bool = False
    again: bool = False
    ended: WorkerExit | None = None

    @property
    def memory(self) -> int | None:
        """The bytes that it has now; None where the system does not say."""
        return None if self.process.pid is None else resident_memory(self.process.pid)

    @property
    def descendants(self) -> list[psutil.Process]:
        """The living processes below it."""
        return [] if self.process.pid is None else list_descendants(self.process.pid)

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

    def messages(self) -> Iterator[RunStarted | CaseEvent]:
        """Read what the worker has sent so far, without waiting for more, and note what it is doing.

        Raises:
            EOFError: the worker is dead, and everything that it sent has been read.
            UsageError: a check, the family, the adapter or the device is not what it should be.
            ImportFailed: code from outside raised at import.
        """
        midway = False
        try:
            while _speaks(self.pipe):
                message = self._message()
                midway = isinstance(message, OutcomeReady | RowReady)
                match message:
                    case Loading(what=what):
                        self.loading = what
                        continue
                    case Refused(error=error):
                        raise error
                    case CaseFailed():
                        self.kill()
                        self.ended = WorkerExit.from_last_words(message)
                        raise EOFError
                    case RunStarted():
                        self.ready, self.memory_when_ready = True, self.memory
                        self.helpers = frozenset(self.descendants)
                    case CaseRefused(reason=reason):
                        assert self.spec is not None  # or it may not say so
                        self.spec = replace(self.spec, valid=False, reason=reason)
                    case OutcomeReady(outcome=outcome):
                        self.seen.append(outcome.check)
                        self.is_dirty = self.is_dirty or (outcome.check in OF_SURROUNDINGS and outcome.verdict.gates)
                    case CaseFinished():
                        self.last, self.spec = self.spec, None
                        self.is_dirty = self.is_dirty or not self.helpers.issuperset(self.descendants)
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
            message = decode(self.pipe.recv_bytes(MOST_BYTES))
            if not self._may_say(message):
                raise ValueError(f"a {type(message).__name__} is not what is to be said now")
        except (EOFError, ConnectionResetError):
            raise
        except Exception as error:  # an adapter that closes, or writes to, every file that its process has
            self.kill()
            how = "wrote what is no message into the harness' own pipe, and was ended"
            self.ended = WorkerExit(verdict=Verdict.CRASH, word="garbled", how=how, detail=crash_report.read(self.log))
            raise EOFError from error
        return message

    def _may_say(self, message: Message) -> bool:
        """Whether a message is one that the worker has a reason for: of its case, or of what it loads."""
        if isinstance(message, Refused) or not self.ready:
            return case_of(message) is None
        return self.spec is not None and case_of(message) == self.spec.id

    def enforce_limits(self, limits: Limits) -> bool:
        """End the worker if it takes more time or memory than a case, or than loading, may take; cut its output.

        Returns:
            Whether the worker was ended.
        """
        taken = time.perf_counter() - self.began
        if not self.ready:
            if limits.loading is not None and taken > limits.loading:
                how = f"was not over after {limits.loading:g} s (a larger --timeout gives it as long)"
                self.end(Verdict.TIMEOUT, "timeout", how)
        elif self.spec is None:
            return False
        elif limits.seconds is not None and taken > limits.seconds:
            self.end(Verdict.TIMEOUT, "timeout", f"was not done with the case after {limits.seconds:g} s (--timeout)")
        elif limits.bytes is not None and self.memory_growth(self.memory_before) > limits.bytes:
            took = f"took more than {limits.bytes / 2**20:,.0f} MiB for the case (--memory), and was ended"
            self.end(Verdict.CRASH, "memory", took)
        else:
            with contextlib.suppress(FileNotFoundError):
                if self.log.stat().st_size > _LOG_BYTES:
                    os.truncate(self.log, 0)
        return self.ended is not None

    def is_spent(self, limits: Limits) -> bool:
        """Whether an earlier case changed what the next one would find, or half of its memory is not given back."""
        return self.is_dirty or self._is_bloated(limits)

    def _is_bloated(self, limits: Limits) -> bool:
        return limits.bytes is not None and self.memory_growth(self.memory_when_ready) > limits.bytes / 2

    def end(self, verdict: Verdict, word: str, how: str) -> None:
        """End the worker because it took too much; it writes its Python stack first.

        Args:
            verdict: what its end makes of its case.
            word: the end in one word: `timeout`, `memory`.
            how: the end as a clause for people.
        """
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
        """Kill the process and whatever it has started: its process group, and other groups and sessions below it."""
        assert self.process.pid is not None
        below = self.descendants if self.process.is_alive() else []
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        kill(below)

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
        words = self._last_words()
        if words is not None:
            return words
        word, how = _in_words(code)
        detail = crash_report.read(self.log)
        site = crash_report.adapter_site(detail)
        return WorkerExit(verdict=Verdict.CRASH, word=word, how=how, detail=detail, site=site)

    def _last_words(self) -> WorkerExit | None:
        """Read what the process wrote because its pipe was closed to it; None where it wrote nothing that can be read.

        It is as if the case had gone on without the pipe, which may also be seen first.
        """
        try:
            words = decode(crash_report.words_file(self.log).read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        if not isinstance(words, CaseFailed):
            return None
        word, how = _in_words(None)
        return WorkerExit(verdict=Verdict.CRASH, word=word, how=f"{how}: {words.said}", detail=words.detail)

    def early_error(self, exited: WorkerExit) -> VerifierError:
        """Make the error of a worker that died before its first case; the message names the import that ended it."""
        if self.ready:
            return HarnessError(f"a worker {exited.how} before its first case", exited.detail)
        if self.loading is None:
            return HarnessError(f"a worker died before it could load anything: it {exited.how}", exited.detail)
        if exited.verdict is Verdict.TIMEOUT:
            at = crash_report.innermost_frame(exited.detail)
            return ImportFailed(f"the import of {self.loading} {exited.how}" + (f"; it was at {at}" if at else ""))
        output = f"; it last wrote: {exited.detail.splitlines()[-1].strip()[:200]}" if exited.detail else ""
        return ImportFailed(f"{self.loading} ended the process at import: it {exited.how}{output}")


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
