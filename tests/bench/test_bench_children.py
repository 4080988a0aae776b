"""Children are watched, their last words kept, and none outlives the bench; their memory is summed over the tree."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verifier.bench import children, processes
from verifier.bench.orders import Order
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError, VerifierError

PYTHON = sys.executable
MEBIBYTE = 2**20


def test_how_it_ended_and_what_it_said_last() -> None:
    script = (
        "import sys; print('out'); print('first', file=sys.stderr); print('the  last', file=sys.stderr); sys.exit(3)"
    )
    ended = children.run([PYTHON, "-c", script])
    assert (ended.status, ended.said, ended.how) == (3, "the last", "ended with status 3: the last")
    assert ended.seconds > 0


def test_a_signal_is_named() -> None:
    ended = children.run([PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert ended.how == "was ended by SIGKILL"


def alive(process: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("stubborn", [False, True])
def test_no_child_outlives_an_interrupt(stubborn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_GRACE_SECONDS", 0.2)
    note = tmp_path / "processes"
    script = (
        "import os, pathlib, signal, subprocess, sys, time\n"
        f"{'signal.signal(signal.SIGTERM, signal.SIG_IGN)' if stubborn else ''}\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(f'{{os.getpid()}} {{grandchild.pid}} .')\n"
        "time.sleep(60)\n"
    )

    def look(child: subprocess.Popen[bytes]) -> None:
        if note.exists() and note.read_text().endswith("."):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        children.run([PYTHON, "-c", script], look=look)
    processes = [int(word) for word in note.read_text().split()[:2]]
    for _ in range(100):  # the grandchild is reaped by whoever inherits it
        if not any(map(alive, processes)):
            break
        time.sleep(0.05)
    assert not any(map(alive, processes))


# --- our own command line --------------------------------------------------------------------------------------------


def test_what_the_harness_says_is_wrong_is_said_again() -> None:
    with pytest.raises(UsageError, match=r"^unknown family 'falcn'"):
        children.verifier(["run", "falcn"])


def test_a_measuring_process_says_what_is_wrong(spec: CaseSpec) -> None:
    order = Order(family="toy", adapter="bridge", only=(), cases=(spec,))
    with pytest.raises(UsageError, match=r"^unknown family 'toy'"):
        children.measure(order)


def test_a_measuring_process_that_dies_is_no_measurement(spec: CaseSpec, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "dies.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.chdir(tmp_path)
    order = Order(family="falcon", adapter="dies:Adapter", only=(), cases=(spec,))
    with pytest.raises(VerifierError, match="the process that measures single cases was ended by SIGSEGV"):
        children.measure(order)


# --- memory ----------------------------------------------------------------------------------------------------------

TREE = """
import subprocess, sys
taken = b"x" * (60 * 2**20)
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, *sys.argv[1:]])
    child.wait()
else:
    import time
    time.sleep(1.5)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell")
def test_memory_is_that_of_the_whole_tree(tmp_path: Path) -> None:
    script = tmp_path / "tree.py"
    script.write_text(TREE)
    watch = processes.Watch()
    children.run([PYTHON, str(script), str(script)], look=lambda child: watch.look(child.pid))
    seen = watch.seen
    assert seen.looks >= 2
    assert seen.memory is not None
    assert seen.largest is not None
    assert seen.cpu is not None
    assert 120 * MEBIBYTE < seen.memory < 200 * MEBIBYTE
    assert 60 * MEBIBYTE < seen.largest < 110 * MEBIBYTE


def test_a_process_is_of_its_own_tree_and_its_parents() -> None:
    with subprocess.Popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert numbers(child.pid) == [child.pid]
        assert child.pid in numbers(os.getpid())
        child.communicate(b"\n")
    assert processes.shared_out(child.pid) is None


def numbers(root: int) -> list[int]:
    return [process.number for process in processes.tree(root)]


def test_nothing_is_measured_where_nobody_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PROC", tmp_path / "none")
    watch = processes.Watch()
    watch.look(os.getpid())
    assert watch.seen == processes.Taken()
