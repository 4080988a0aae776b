"""Kill the processes of runs at random with SIGKILL, and see that nothing is lost, left running, or judged otherwise.

    python benchmarks/kills.py

In each of a hundred runs of a few cases one process is killed at a random moment: the coordinator, the guard above the
forkserver, the forkserver, or a worker. In every other run the adapter starts processes in each case: a child, one of a
session of its own, and an orphan. Then the run is taken up again with `--resume`. The script prints, in one line, how
many outcomes were in the record before the kill and how many of these were lost, how many processes were alive five
seconds after their run, and how many verdicts differ from those of a run that nobody disturbed. The exit status is 1 if
any of the last three is not 0, or if a run that was taken up again ends with another status. It needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from processes import VERIFIER, marked
from verifier_bridge.verifier_adapter import BridgeAdapter

from verifier.adapter import Subject
from verifier.record import FILE

ROLES = ("coordinator", "guard", "forkserver", "worker")
ADAPTERS = ("bridge", "kills:Starts")
# Four cases, of checks that are over soon, so that most of a run is where processes start and end.
CASES = ("--where", "alibi=true,parallel_attn=true,bias=true,num_ln_in_parallel_attn=2")
CHECKS = ("--only", "build", "--only", "qkv.rows")
FORKSERVER = "multiprocessing.forkserver"
MARK = "VERIFIER_KILLS_MARK"
SECONDS = 5.0  # after which nothing of a run may be alive
LONGEST = 300.0  # for a run that takes some seconds

Verdicts = dict[tuple[str, str], str]


class Starts(BridgeAdapter):
    """A right adapter that leaves a child, a process of a session of its own, and an orphan behind in each case."""

    name, version = "starts", "1"

    def wrap(self, model: Any) -> Subject:
        sleep = ["sleep", f"3600.{os.environ[MARK]}"]
        subprocess.Popen(sleep, env={})
        subprocess.Popen(sleep, env={}, start_new_session=True)
        subprocess.run(["sh", "-c", f"setsid {' '.join(sleep)} &"], check=True)
        return super().wrap(model)


@dataclass(slots=True, kw_only=True)
class Counts:
    """What the kills have come to, and each thing that should not be, in words."""

    killed: Counter[str] = field(default_factory=Counter)
    with_children: int = 0
    acknowledged: int = 0
    lost: int = 0
    alive: int = 0
    differing: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        roles = ", ".join(f"{self.killed[role]} of a {role}" for role in ROLES)
        return (
            f"{self.killed.total()} kills ({roles}), {self.with_children} with children of the adapter's: "
            f"{self.acknowledged:,} acknowledged outcomes, {self.lost} lost; {self.alive} processes alive after "
            f"{SECONDS:g} s; {self.differing} verdicts that differ after --resume"
        )


@contextmanager
def started(adapter: str, folder: Path, mark: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run in a session of its own, all of whose processes have the mark, and end them after the block."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", MARK: mark, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [
        *VERIFIER,
        "run",
        "falcon",
        "--adapter",
        adapter,
        *CASES,
        *CHECKS,
        "--workers",
        "2",
        "--out",
        str(folder),
    ]
    with (
        (folder.parent / f"{folder.name}.out").open("ab") as output,
        subprocess.Popen(
            [*command, *more], env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            for one in marked(mark):
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)


def read_verdicts(folder: Path) -> Verdicts:
    """Read the verdicts that a record has, which may be being written: by case and check, of which the last counts."""
    found: Verdicts = {}
    with suppress(FileNotFoundError):
        for text in (folder / FILE).read_bytes().splitlines(keepends=True):
            if text.endswith(b"\n") and (line := json.loads(text))["kind"] == "outcome":
                found[line["case"], line["check"]] = line["verdict"]
    return found


def find_processes(coordinator: int, role: str) -> list[int]:
    """Find the processes of a run that have a role, by their place below the coordinator."""
    with suppress(psutil.NoSuchProcess):
        level = [psutil.Process(coordinator)]
        for _ in range(ROLES.index(role)):
            below = [child for one in level for child in one.children()]
            level = [one for one in below if FORKSERVER in " ".join(one.cmdline())]
        return [one.pid for one in level]
    return []


def kill_one(process: subprocess.Popen[bytes], role: str, draw: random.Random) -> bool:
    """Kill a process of the role as soon as there is one, and say whether the run was still there."""
    while process.poll() is None:
        found = find_processes(process.pid, role)
        with suppress(ProcessLookupError):
            if found:
                os.kill(draw.choice(found), signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def wait_for_the_end(mark: str) -> list[str]:
    """Wait until nothing of a run is alive, and give the command lines of what still is when the time is over."""
    deadline = time.monotonic() + SECONDS
    while left := marked(mark):
        if time.monotonic() > deadline:
            return list(left.values())
        time.sleep(0.05)
    return []


def run_undisturbed(adapter: str, folder: Path, mark: str) -> tuple[Verdicts, int, float]:
    """Run an adapter to its end; its verdicts, the exit status, and how many seconds it took."""
    began = time.monotonic()
    with started(adapter, folder, mark) as process:
        status = process.wait(LONGEST)
    return read_verdicts(folder), status, time.monotonic() - began


def disturb(role: str, adapter: str, folder: Path, moment: float, draw: random.Random, counts: Counts) -> bool:
    """Kill a process of a run, take the run up again, and count what became of it; false if nothing was killed.

    Args:
        role: which process is killed.
        adapter: what is run.
        folder: where the undisturbed run of the adapter is, as `undisturbed-…`, and this one will be.
        moment: how many seconds after the start it is killed.
        draw: chooses between processes of the same role.
        counts: is added to.
    """
    what = f"{folder.name}: a {role} of {adapter} was killed after {moment:.2f} s"
    mark = _new_mark(draw)
    with started(adapter, folder, mark) as process:
        time.sleep(moment)
        acknowledged = read_verdicts(folder)
        if not kill_one(process, role, draw):
            return False
        process.wait(LONGEST)
        alive = wait_for_the_end(mark)
    kept = read_verdicts(folder)
    with started(adapter, folder, mark, "--resume") as process:
        status = process.wait(LONGEST)
        alive += wait_for_the_end(mark)
    expected, found = read_verdicts(folder.parent / f"undisturbed-{adapter}"), read_verdicts(folder)
    lost = [key for key, verdict in acknowledged.items() if kept.get(key) != verdict or key not in found]
    differing = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    counts.killed[role] += 1
    counts.with_children += adapter != ADAPTERS[0]
    counts.acknowledged += len(acknowledged)
    counts.lost += len(lost)
    counts.alive += len(alive)
    counts.differing += len(differing)
    counts.wrong += [f"{what}: lost {key}" for key in lost]
    counts.wrong += [f"{what}: alive: {command}" for command in alive]
    counts.wrong += [f"{what}: {key}: {found.get(key)} instead of {expected.get(key)}" for key in differing]
    if status:
        counts.wrong.append(f"{what}: taken up again it ended with status {status}")
    return True


def _new_mark(draw: random.Random) -> str:
    return str(draw.randrange(10**14, 10**15))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    draw, counts, longest = random.Random(options.seed), Counts(), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="verifier-kills-") as place:
        for adapter in ADAPTERS:
            folder = Path(place, f"undisturbed-{adapter}")
            verdicts, status, longest[adapter] = run_undisturbed(adapter, folder, _new_mark(draw))
            if status or not verdicts:
                print(f"undisturbed, {adapter} ended with status {status} and {len(verdicts)} outcomes")
                return 1
        for number in range(options.kills):
            adapter, role = ADAPTERS[number % len(ADAPTERS)], ROLES[number // len(ADAPTERS) % len(ROLES)]
            again = 0
            while not disturb(
                role, adapter, Path(place, f"{number}-{again}"), draw.uniform(0, longest[adapter]), draw, counts
            ):
                again += 1  # it was over by then
    print("\n".join([*counts.wrong, str(counts)]))
    return 1 if counts.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
