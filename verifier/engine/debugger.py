"""Python's debugger at a failure: in the frame that raised, or beside the case whose check found a difference."""

from __future__ import annotations

import pdb
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from verifier.errors import UserInterrupt

if TYPE_CHECKING:
    from verifier.checks import Check
    from verifier.judging.outcome import Outcome
    from verifier.observing.case import Case


class Debugger:
    """Stop at each outcome that makes a run fail; `q` ends the run, `c` goes on to the next such outcome."""

    def __call__(self, case: Case, check: Check, outcome: Outcome, error: BaseException | None) -> None:
        """Stop in Python's debugger if the outcome makes a run fail.

        Raises:
            UserInterrupt: the debugger was left with `q`.
        """
        if not outcome.verdict.gates:
            return
        where = f" at {outcome.where}" if outcome.where else ""
        print(
            f"\n{check.id} on case {case.spec.id}: {outcome.verdict}{where}: {outcome.message}\n"
            + ("the frame that raised; " if error else "`check.run(case)` repeats it; ")
            + "`q` ends the run, `c` goes on to the next failure",
            file=sys.stderr,
        )
        if error is not None and error.__traceback__ is not None:
            _stop_in(None, error.__traceback__)
        else:
            _stop_in(sys._getframe(), None)  # with `case`, `check` and `outcome` as its variables


class _Pdb(pdb.Pdb):
    """A debugger that notes whether it was left with `q`, which ends the run."""

    left = False

    def do_quit(self, arg: str) -> bool | None:
        self.left = True
        return super().do_quit(arg)

    do_q = do_exit = do_quit
    do_EOF = do_quit  # noqa: N815 - what pdb calls the end of its input


def _stop_in(frame: FrameType | None, trace: TracebackType | None) -> None:
    """Debug in a frame, or in the innermost frame of a traceback.

    Raises:
        UserInterrupt: the debugger was left with `q`.
    """
    debugger = _Pdb()
    debugger.reset()
    debugger.interaction(frame, trace)
    if debugger.left:
        raise UserInterrupt
