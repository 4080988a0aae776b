"""Import code from outside in processes of their own: one that crashes or hangs costs one answer."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from verifier.engine import server
from verifier.engine.worker import lead_process_group, redirect_output
from verifier.engine.worker_pool import Launcher
from verifier.engine.worker_process import Worker
from verifier.errors import ExitStatus, VerifierError, one_line

SAID = "said"  # the key of an answer's words; the others are its figures

Question = Callable[[], Mapping[str, Any]]
"""A function that can be pickled; it may raise, print, crash or hang, and gives words and figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a question.

    Attributes:
        status: `CONFORMS` if the question could be answered, else the exit status that a run would have because of it.
        said: the answer in words, or why there is none.
        seconds: how long the process was at it.
        found: the figures that were asked for; none where there is no answer.
    """

    status: ExitStatus
    said: str
    seconds: float
    found: Mapping[str, Any] = field(default_factory=dict)


def ask(questions: Sequence[Question], *, at_once: int, seconds: float) -> list[Answer]:
    """Answer each question in a process that is forked from the server, where what every run needs is imported.

    Where the server cannot import that, each process tries for itself.

    Args:
        questions: the questions.
        at_once: how many processes run at the same time, at least 1.
        seconds: what each may take.

    Returns:
        The answers, in the order of the questions.
    """
    launcher = Launcher(server.shared_context(), lambda: multiprocessing.get_context("spawn"))
    answers, running = list[Answer](), deque[Worker]()
    with tempfile.TemporaryDirectory(prefix="verifier-imports-") as folder:
        try:
            for number, question in enumerate(questions):
                if len(running) == at_once:
                    answers.append(_take_answer(running.popleft(), seconds))
                log = Path(folder, f"log-{number}")
                running.append(launcher.start(_work, log, str(log), question, seconds=seconds))
            while running:
                answers.append(_take_answer(running.popleft(), seconds))
        finally:
            for worker in running:
                worker.close()
    return answers


def _work(pipe: connection.Connection, log: str, question: Question) -> None:
    """Answer the question, in its own process; nothing that it raises gets out."""
    lead_process_group(pipe)
    redirect_output(log)
    began, status, found = time.perf_counter(), ExitStatus.CONFORMS, dict[str, Any]()
    try:
        found = dict(question())
    except VerifierError as error:
        status, found = error.status, {SAID: str(error)}
    except BaseException as error:  # code from outside may raise anything, SystemExit too
        traceback.print_exc()
        status, found = ExitStatus.BROKEN, {SAID: f"it raised at import: {one_line(error)}"}
    said, taken = found.pop(SAID, ""), time.perf_counter() - began
    pipe.send(Answer(status=status, said=said, seconds=taken, found=found))


def _take_answer(worker: Worker, seconds: float) -> Answer:
    """Wait for what a process answers, or for the reason why it never will, and end it."""
    left = worker.began + seconds - time.perf_counter()
    said = f"it was not imported after {seconds:g} s"
    try:
        connection.wait([worker.pipe, worker.process.sentinel], max(0.0, left))
        for answer in worker.messages():
            if isinstance(answer, Answer):
                return answer
    except EOFError:
        ended = worker.wait_for_exit()
        last = (ended.detail or "").rpartition("\n")[2].strip()
        said = f"the process that imported it {ended.how.partition(' (')[0]}{': ' * bool(last)}{last}"
    finally:
        worker.close()
    return Answer(status=ExitStatus.BROKEN, said=said, seconds=time.perf_counter() - worker.began)
