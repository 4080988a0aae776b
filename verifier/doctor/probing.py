"""Asks processes of their own what can only be found out by importing: one that crashes or hangs costs one line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    process: subprocess.Popen[bytes]
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
    with tempfile.TemporaryDirectory(prefix="verifier-doctor-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < max(1, at_once):
                    place, question = waiting.pop(0)
                    running.append(_start(place, question, Path(folder)))
                for one in list(running):
                    if one.process.poll() is not None or time.perf_counter() - one.began > seconds:
                        running.remove(one)
                        answers[one.place] = _answer(one, seconds)
                        _end(one.process)
                time.sleep(_POLL_SECONDS)
        finally:
            for one in running:
                _end(one.process)
    return [answers[place] for place in range(len(questions))]


def _start(place: int, question: Mapping[str, Any], folder: Path) -> _Asked:
    answer, log = folder / f"answer-{place}", folder / f"log-{place}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # -P: whatever the current folder holds that has our name.
            [sys.executable, "-P", "-m", "verifier.doctor.probe", str(answer), json.dumps(question)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that what it starts can be ended with it
        )
    return _Asked(place=place, process=process, began=time.perf_counter(), answer=answer, log=log)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answer(one: _Asked, seconds: float) -> Answer:
    taken = time.perf_counter() - one.began
    code = one.process.poll()
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
    lines = [line for line in log.read_bytes().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
