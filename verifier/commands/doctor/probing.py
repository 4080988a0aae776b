"""Asks processes of their own what can only be found out by importing: one that crashes or hangs costs one line.

They are forked from one that has imported what every run needs, so that each takes as long as what it is asked about.
Where that cannot be imported, each of them tries for itself, and says what came of it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from verifier.commands.doctor import probe
from verifier.engine import server
from verifier.errors import ExitStatus

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a question.

    Attributes:
        status: whether it could be answered; if not, with what a run would end on that account.
        said: in words; of one that failed, why.
        found: the figures that were asked for.
        seconds: that it took.
    """

    status: ExitStatus
    said: str
    seconds: float
    found: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Asked:
    place: int
    process: BaseProcess
    began: float
    answer: Path
    log: Path


def ask(questions: Sequence[Mapping[str, Any]], *, at_once: int, seconds: float) -> list[Answer]:
    """The answers, in the order of the questions.

    Args:
        questions: what `probe` answers.
        at_once: how many processes at the same time.
        seconds: what each may take.
    """
    answers: dict[int, Answer] = {}
    waiting, running = list(enumerate(questions)), list[_Asked]()
    context: ForkServerContext | SpawnContext = server.without_outsiders()
    with tempfile.TemporaryDirectory(prefix="verifier-doctor-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < max(1, at_once):
                    try:
                        with server.preload_timeout(seconds):
                            running.append(_start(context, *waiting[0], Path(folder)))
                    except (EOFError, OSError):
                        if isinstance(context, SpawnContext):
                            raise
                        server.discard()
                        context = multiprocessing.get_context("spawn")
                        continue
                    waiting.pop(0)
                for one in list(running):
                    if not one.process.is_alive() or time.perf_counter() - one.began > seconds:
                        running.remove(one)
                        answers[one.place] = _answer(one, seconds)
                        _end(one.process)
                time.sleep(_POLL_SECONDS)
        finally:
            for one in running:
                _end(one.process)
    return [answers[place] for place in range(len(questions))]


def _start(context: ForkServerContext | SpawnContext, place: int, question: Mapping[str, Any], folder: Path) -> _Asked:
    answer, log = folder / f"answer-{place}", folder / f"log-{place}"
    process = context.Process(target=probe.answer, args=(dict(question), answer, log), daemon=True)
    server.start(process)
    return _Asked(place=place, process=process, began=time.perf_counter(), answer=answer, log=log)


def _end(process: BaseProcess) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # it may not have come to a group of its own
    process.join()


def _answer(one: _Asked, seconds: float) -> Answer:
    taken = time.perf_counter() - one.began
    code = one.process.exitcode
    if code is None:
        return Answer(status=ExitStatus.BROKEN, said=f"it was not imported after {seconds:g} s", seconds=taken)
    if not one.answer.exists():
        how = f"ended with exit status {code}" if code >= 0 else f"was ended by {_signal(-code)}"
        said = f"the process that imported it {how}" + (f": {last}" if (last := _last_line(one.log)) else "")
        return Answer(status=ExitStatus.BROKEN, said=said, seconds=taken)
    found = json.loads(one.answer.read_text())
    status = ExitStatus(found.pop("status"))
    return Answer(status=status, said=found.pop("said", ""), found=found, seconds=taken)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(log: Path) -> str:
    if not log.exists():
        return ""
    lines = [line for line in log.read_bytes().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
