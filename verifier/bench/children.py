"""Child processes of the bench: started in a group of their own, watched while they run, and ended with the bench."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from verifier.bench.orders import CaseRun, Order
from verifier.engine.interrupts import Interrupts
from verifier.errors import ExitStatus, ImportFailed, UsageError, VerifierError

_POLL_SECONDS = 0.01
_PYTHON = (sys.executable, "-P", "-m")  # whatever the current folder holds that has our name
_GRACE_SECONDS = 5.0  # in which a run that is asked to end writes the last of its record

Look = Callable[[subprocess.Popen[bytes]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status, negative for a signal.
        seconds: from its start to its end, by the clock on the wall.
        said: the last line that it wrote on standard error.
    """

    status: int
    seconds: float
    said: str

    @property
    def how(self) -> str:
        """As a clause with its last words."""
        if self.status < 0:
            how = f"was ended by {signal.Signals(-self.status).name}"
        else:
            how = f"ended with status {self.status}"
        return f"{how}: {self.said}" if self.said else how


def run(arguments: Sequence[str], *, look: Look = lambda child: None) -> Ended:
    """Run a program to its end; what it prints is dropped.

    Args:
        arguments: the program and what it is given.
        look: is called again and again while it runs, and must be quick.

    Raises:
        OSError: it cannot be started.
    """
    with tempfile.TemporaryFile() as errors, _child(arguments, errors) as (child, began):
        while child.poll() is None:
            look(child)
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - began
        look(child)
        return Ended(status=child.returncode, seconds=seconds, said=_last_line(errors))


@contextlib.contextmanager
def _child(arguments: Sequence[str], errors: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    began, child = time.perf_counter(), None
    try:
        with Interrupts() as interrupts:  # one that came in the middle of a start would leave nobody to end it
            child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # a Ctrl-C is the bench's to answer, and its group can be ended with it
            )
        if interrupts.noted:
            raise KeyboardInterrupt
        yield child, began
    finally:
        if child is not None:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):  # whatever it left behind
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else ""


def verifier(arguments: Sequence[str], *, look: Look = lambda child: None) -> Ended:
    """Run this very harness's command line.

    Raises:
        VerifierError: it could not do what it was asked.
    """
    ended = run([*_PYTHON, "verifier", *arguments], look=look)
    measured = (ExitStatus.CONFORMS, ExitStatus.DIFFERS, ExitStatus.INCONCLUSIVE)
    if ended.status not in measured:
        raise _as_error(ended, f"`verifier {' '.join(arguments)}`")
    return ended


def measure(order: Order) -> list[CaseRun]:
    """What the cases of the order take, in a process of their own with one thread of torch's.

    Raises:
        VerifierError: it could not do what it was asked.
    """
    with tempfile.TemporaryDirectory(prefix="verifier-bench-") as folder:
        wanted, result = Path(folder, "order.json"), Path(folder, "result.jsonl")
        order.write(wanted)
        ended = run([*_PYTHON, "verifier.bench.measuring", str(wanted), str(result)])
        if ended.status != ExitStatus.CONFORMS:
            raise _as_error(ended, "the process that measures single cases")
        return CaseRun.read(result)


_ERRORS = {int(ExitStatus.USAGE): UsageError, int(ExitStatus.BROKEN): ImportFailed}


def _as_error(ended: Ended, what: str) -> VerifierError:
    if ended.status in _ERRORS and ended.said.startswith(_SAID):
        return _ERRORS[ended.status](ended.said.removeprefix(_SAID))
    return VerifierError(f"{what} {ended.how}")


_SAID = "verifier: "  # how the harness tells what is wrong
