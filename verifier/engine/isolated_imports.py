"""Import code from outside in processes of their own: one that crashes or hangs costs one answer."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

from verifier.engine import server
from verifier.engine.worker import be_its_own, redirect_output
from verifier.engine.worker_pool import Worker
from verifier.errors import ExitStatus, VerifierError, one_line

_POLL_SECONDS = 0.1
SAID = "said"  # the key of an answer's words; the others are its figures

Question = Callable[[], Mapping[str, Any]]
"""A function that can be pickled; it may raise, print, crash or hang, and gives words and figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a question.

    Attributes:
        status: that the question could be answered, or else the status with which a run would end on its account.
        said: the answer in words; why there is none, where there is none.
        seconds: that it took.
        found: the figures that were asked for.
    """

    status: ExitStatus
    said: str
    seconds: float
    found: Mapping[str, Any] = field(default_factory=dict)


def ask(questions: Sequence[Question], *, at_once: int, seconds: float) -> list[Answer]:
    """Answer each question in a process that is forked from the server, where what every run needs is imported.

    Where the server cannot import that, each process tries for itself.

    Args:
        questions: the questions; the answers have their order.
        at_once: how many processes run at the same time.
        seconds: what each may take.
    """
    context: ForkServerContext | SpawnContext = server.without_outsiders()
    waiting, running, answers = list(enumerate(questions))[::-1], dict[int, Worker](), dict[int, Answer]()
    with tempfile.TemporaryDirectory(prefix="verifier-imports-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < max(1, at_once):
                    place, question = waiting.pop()
                    context, running[place] = _start(context, question, Path(folder, f"log-{place}"), seconds)
                connection.wait([worker.pipe for worker in running.values()], _POLL_SECONDS)
                for place, worker in list(running.items()):
                    answer = _answer(worker, seconds)
                    if answer is not None:
                        answers[place] = answer
                        _stop(running.pop(place))
        finally:
            for worker in running.values():
                _stop(worker)
    return [answers[place] for place in range(len(questions))]


def _start(
    context: ForkServerContext | SpawnContext, question: Question, log: Path, seconds: float
) -> tuple[ForkServerContext | SpawnContext, Worker]:
    """A process that answers the question, and the context that it could be started in."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, str(log), question), daemon=True)
    try:
        with server.preload_timeout(seconds):
            server.start(process)
    except (EOFError, OSError):
        ours.close()
        if isinstance(context, SpawnContext):
            raise
        server.discard()
        return _start(multiprocessing.get_context("spawn"), question, log, seconds)
    finally:
        theirs.close()
    return context, Worker(process=process, pipe=ours, log=log)


def _work(pipe: connection.Connection, log: str, question: Question) -> None:
    """Answer the question, in its own process; nothing that it raises gets out."""
    be_its_own(pipe)
    redirect_output(log)
    try:
        answer = (ExitStatus.CONFORMS, dict(question()))
    except VerifierError as error:
        answer = (error.status, {SAID: str(error)})
    except BaseException as error:  # code from outside may raise anything, SystemExit too
        traceback.print_exc()
        answer = (ExitStatus.BROKEN, {SAID: f"it raised at import: {one_line(error)}"})
    pipe.send(answer)


def _answer(worker: Worker, seconds: float) -> Answer | None:
    """What a process has answered, or why it never will; None while it may."""
    taken = time.perf_counter() - worker.began
    if not worker.pipe.poll() and worker.process.is_alive():
        late = f"it was not imported after {seconds:g} s"
        return None if taken <= seconds else Answer(status=ExitStatus.BROKEN, said=late, seconds=taken)
    try:
        status, found = worker.pipe.recv()
    except (EOFError, OSError):
        ended = worker.wait_for_exit()
        said = f"the process that imported it {ended.how.partition(' (')[0]}"
        last = (ended.detail or "").rpartition("\n")[2].strip()
        return Answer(status=ExitStatus.BROKEN, said=f"{said}: {last}" if last else said, seconds=taken)
    return Answer(status=status, said=found.pop(SAID, ""), seconds=taken, found=found)


def _stop(worker: Worker) -> None:
    worker.kill()
    worker.process.join()
    worker.pipe.close()
