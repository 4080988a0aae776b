"""Another program on the same cases in the same run, timed in turns with ours."""

from __future__ import annotations

import json
import shlex
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier.bench import children
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus, UsageError

CASES = "{cases}"  # stands in the command where the file's path goes
_TURNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """Seconds by the clock on the wall, of each program from its start to its end.

    Attributes:
        command: the other one, as it was asked for.
        cases: on which both were run.
        ours: in each turn.
        theirs: in each turn.
    """

    command: str
    cases: int
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of theirs over that of ours."""
        return statistics.median(self.theirs) / statistics.median(self.ours)


def parse(command: str) -> tuple[str, ...]:
    """The command's words, as a shell would split it.

    Raises:
        UsageError: it has none, a quotation is left open, or there is no such program.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--against {command!r}: {error}") from error
    if not words:
        raise UsageError("--against names no program")
    if shutil.which(words[0]) is None:
        raise UsageError(f"--against {command!r}: there is no program {words[0]!r} that can be started")
    return tuple(words)


def run(command: str, cases: Sequence[CaseSpec], family: str, arguments: Sequence[str]) -> Against:
    """Time both in turns: ours, theirs, ours, theirs.

    Args:
        command: `{cases}` in it stands for the path of a file with a case's JSON on each line, which else comes last.
        cases: in the file.
        family: of the cases.
        arguments: of our own command line.

    Raises:
        UsageError: the command cannot be started, or ends with another status than 0 and 1.
        VerifierError: ours could not be done.
    """
    words = parse(command)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="verifier-bench-") as folder:
        path = Path(folder, "cases.jsonl")
        path.write_text("".join(json.dumps(spec.to_json()) + "\n" for spec in cases))
        for _ in range(_TURNS):
            with tempfile.TemporaryDirectory(dir=folder) as out:
                ended = children.verifier(["run", family, *arguments, "--cases", str(path), "--out", out])
            ours.append(ended.seconds)
            theirs.append(_seconds(command, filled(words, str(path))))
    return Against(command=command, cases=len(cases), ours=tuple(ours), theirs=tuple(theirs))


def filled(words: Sequence[str], path: str) -> list[str]:
    """The words with the path of the cases in its place."""
    if any(CASES in word for word in words):
        return [word.replace(CASES, path) for word in words]
    return [*words, path]


def _seconds(command: str, words: Sequence[str]) -> float:
    try:
        ended = children.run(words)
    except OSError as error:
        raise UsageError(f"--against {command!r} cannot be started: {error.strerror}") from error
    if ended.status not in (ExitStatus.CONFORMS, ExitStatus.DIFFERS):
        raise UsageError(f"--against {command!r} {ended.how}")
    return ended.seconds
