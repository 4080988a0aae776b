"""Ask Hugging Face about configs from a process without torch: in a process of its own, which a config may crash."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from time import perf_counter

from verifier import family as families
from verifier.engine import server
from verifier.engine.messages import Accepted
from verifier.engine.process import redirect_output
from verifier.engine.starting import prepare
from verifier.engine.worker import lead_process_group, speaker
from verifier.engine.worker_pool import Launcher
from verifier.engine.worker_process import Worker
from verifier.family import Config, Family
from verifier.judging.outcome import canonical_json
from verifier.reference.acceptance import answered_by
from verifier.reference.kept_answers import UNKNOWN, Acceptance, asked_by, keep_answer
from verifier.system.temporary import temporary_folder

# A question takes some milliseconds, but before the first one torch and transformers are imported.
SECONDS = 120.0
# Configs in a row of which the process dies, or which it is at for too long: then nothing can be asked here.
MOST_DEATHS = 3


@contextlib.contextmanager
def asking_hugging_face(reference: str) -> Iterator[None]:
    """Have Hugging Face asked, inside the block, about a family's configs of which nobody knows if it accepts them.

    The process that asks is started for the first such config, in any thread. A config that it dies of, or takes too
    long over, stays unknown: its own case runs, and tells it.

    Args:
        reference: the family, by name or as `module:object`.
    """
    with contextlib.closing(_Asker(reference)) as asker, answered_by(asker.ask):
        yield


class _Asker:
    """The process that asks; a lock lets one thread ask at a time."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._lock = threading.Lock()
        self._resources = contextlib.ExitStack()
        self._folder: Path | None = None
        self._worker: Worker | None = None
        self._started = self._deaths = 0
        self._unknown: set[str] = set()

    def ask(self, family: Family, config: Config) -> Acceptance:
        with self._lock:
            spelled = canonical_json(dict(config))
            if self._deaths == MOST_DEATHS or spelled in self._unknown:
                return UNKNOWN
            found = self._answer(config)
            self._deaths = self._deaths + 1 if found is None else 0
            if found is None or not found.known:
                self._unknown.add(spelled)
                return UNKNOWN
            answer = Acceptance(reason=found.reason)
            keep_answer(asked_by(family), config, answer, on_disk=False)  # the process has kept it there
            return answer

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._resources.close()

    def _answer(self, config: Config) -> Accepted | None:
        """Give what the process says of a config; None where it died of it, or was too long at it."""
        worker = self._worker = self._worker or self._start()
        until = perf_counter() + SECONDS
        try:
            worker.pipe.send(dict(config))
            while (left := until - perf_counter()) > 0:
                connection.wait([worker.pipe, worker.process.sentinel], left)
                for message in worker.messages():
                    if isinstance(message, Accepted):
                        return message
        except (EOFError, OSError):
            pass  # it is dead, and so it is without an answer
        worker.close()
        self._worker = None
        return None

    def _start(self) -> Worker:
        if self._folder is None:
            prepare()
            self._folder = self._resources.enter_context(temporary_folder())
        self._started += 1
        # No forkserver: a campaign has one, from which its workers come.
        spawn = multiprocessing.get_context("spawn")
        log = self._folder / f"asking-{self._started}"
        return Launcher(spawn, lambda: spawn).start(_work, log, server.search_path(), self._reference, seconds=None)


def _work(pipe: connection.Connection, log: str, path: Sequence[str], reference: str) -> None:
    """Answer for each config that comes through the pipe, in its own process, until the pipe is closed."""
    lead_process_group(pipe)
    redirect_output(log)
    sys.path[:] = path
    say = speaker(pipe)
    import torch

    from verifier.reference.asking import ask

    torch.set_num_threads(1)
    family = families.load(reference)
    while True:
        try:
            config = pipe.recv()
        except EOFError:
            return
        found = ask(family, config)
        say(Accepted(known=found.known, reason=found.reason))
