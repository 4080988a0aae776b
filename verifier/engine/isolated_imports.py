"""Import code from outside in processes of their own: one that crashes or hangs costs one answer."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection

from verifier.engine import server
from verifier.engine.messages import Answer as Answer
from verifier.engine.process import redirect_output
from verifier.engine.starting import prepare
from verifier.engine.worker import lead_process_group, speaker
from verifier.engine.worker_pool import Launcher
from verifier.engine.worker_process import Worker
from verifier.errors import ExitStatus, VerifierError, one_line
from verifier.system.temporary import temporary_folder

Question = Callable[[], str | Mapping[str, int]]
"""A function that can be pickled; it may raise, print, crash or hang, and gives words or figures."""


def ask(questions: Sequence[Question], *, at_once: int, seconds: float) -> list[Answer]:
    """Answer each question in a process that is forked from the server, which has imported what every run needs.

    If the server cannot import that, each process tries for itself.

    Args:
        questions: the questions.
        at_once: how many processes run at the same time, at least 1.
        seconds: how long each may take.

    Returns:
        The answers, in the order of the questions.
    """
    prepare(at_once)
    launcher = Launcher(server.shared_context(), lambda: multiprocessing.get_context("spawn"))
    answers, running = list[Answer](), deque[Worker]()
    with temporary_folder() as folder:
        try:
            for number, question in enumerate(questions):
                if len(running) == at_once:
                    answers.append(_take_answer(running.popleft(), seconds))
                log = folder / f"log-{number}"
                running.append(launcher.start(_work, log, question, seconds=seconds))
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
    say = speaker(pipe)
    began, status = time.perf_counter(), ExitStatus.CONFORMS
    answer: str | Mapping[str, int]
    try:
        answer = question()
    except VerifierError as error:
        status, answer = error.status, str(error)
    except BaseException as error:  # code from outside may raise anything, SystemExit too
        traceback.print_exc()
        status, answer = ExitStatus.BROKEN, f"it raised at import: {one_line(error)}"
    said, found = (answer, {}) if isinstance(answer, str) else ("", answer)
    say(Answer(status=status, said=said, seconds=time.perf_counter() - began, found=found))


def _take_answer(worker: Worker, seconds: float) -> Answer:
    """Wait for what a process answers, or for the reason why it never will, and end it."""
    left = worker.began + seconds - time.perf_counter()
    reason = f"it was not imported after {seconds:g} s"
    try:
        connection.wait([worker.pipe, worker.process.sentinel], max(0.0, left))
        for answer in worker.messages():
            if isinstance(answer, Answer):
                return answer
    except EOFError:
        ended = worker.wait_for_exit()
        last = (ended.detail or "").rpartition("\n")[2].strip()
        reason = f"the process that imported it {ended.how.partition(' (')[0]}{': ' * bool(last)}{last}"
    finally:
        worker.close()
    return Answer(status=ExitStatus.BROKEN, said=reason, seconds=time.perf_counter() - worker.began)
