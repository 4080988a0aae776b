"""Adapters that die, hang, grow and lie in wait; and what the events of a run came to."""

from __future__ import annotations

from collections.abc import Iterable

from verifier.engine import events
from verifier.judging.outcome import Outcome

SOURCE = '''
import ctypes, dataclasses, json, multiprocessing, os, pathlib, random, signal, subprocess, time
import torch
from transformers.models.falcon import modeling_falcon
from multiprocessing import connection
from verifier import adapter
from verifier.reference import models as reference

KEPT = []

class Subject(adapter.Subject):
    def __init__(self, model):
        self.model = model
    def forward(self, inputs):
        return reference.forward(self.model, inputs)
    def close(self):
        pass

class Right:
    name, version = "right", "1"
    def wrap(self, model):
        return Subject(model)

class Zeros(Right):
    """Shows a model that does not exist."""
    def wrap(self, model):
        model.get_output_embeddings().weight.data.zero_()
        return Subject(model)

class HalvesPadded(Right):
    """Is wrong in a call with a mask alone."""
    def wrap(self, model):
        class Halving(Subject):
            def forward(self, inputs):
                output = super().forward(inputs)
                masked = inputs.attention_mask is not None and not inputs.attention_mask.all()
                return dataclasses.replace(output, logits=output.logits / 2) if masked else output
        return Halving(model)

class Forks(Right):
    """The child goes on as if it were the worker."""
    def wrap(self, model):
        if os.fork() == 0:
            raise RuntimeError("the child's")
        return Subject(model)

class Pools(Right):
    """Has a pool of processes do something."""
    def wrap(self, model):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
        return Subject(model)

class LeavesBehind(Right):
    """Starts a process that outlives it, and hangs."""
    def wrap(self, model):
        started = subprocess.Popen(["sleep", "600"])
        pathlib.Path("started").write_text(str(started.pid))
        time.sleep(60)

class Detaches(Right):
    """Leaves a process of a session of its own behind, in a case in which none of an earlier case runs."""
    def wrap(self, model):
        left = pathlib.Path("left")
        if left.exists() and pathlib.Path("/proc", left.read_text(), "cmdline").exists():
            raise RuntimeError("an earlier case's process runs")
        left.write_text(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))
        return Subject(model)

class Serves(Right):
    """Needs a process that it starts once, before all cases."""
    def __init__(self):
        self.server = subprocess.Popen(["sleep", "600"], start_new_session=True)
    def wrap(self, model):
        assert self.server.poll() is None
        pathlib.Path("servers").open("a").write(f"{self.server.pid}\\\\n")
        return Subject(model)

class Quits(Right):
    def wrap(self, model):
        os._exit(3)

class Counts(Right):
    """Quits, and writes down each time that it did."""
    def wrap(self, model):
        with pathlib.Path("deaths").open("a") as file:
            file.write("x")
        os._exit(3)

class QuitsLate(Right):
    """Dies when the case is over."""
    def wrap(self, model):
        subject = Subject(model)
        subject.close = lambda: os._exit(3)
        return subject

class QuitsBetween(Right):
    """Dies when the next case is waited for: something that the first one left behind."""
    def wrap(self, model):
        connection.Connection.recv = lambda self: os._exit(4)
        return Subject(model)

class Exits(Right):
    def wrap(self, model):
        raise SystemExit("as if it were a script")

class QuitsOnce:
    name, version = "quits", "1"
    def __init__(self):
        os._exit(9)

class QuitsAtFirst(Right):
    """Ends the first process that makes it, as somebody else may who ends processes."""
    def __init__(self):
        made = pathlib.Path("made")
        if not made.exists():
            made.touch()
            os.kill(os.getpid(), signal.SIGKILL)

class Biased(Right):
    """Does what is in `act` where the model has biases."""
    def wrap(self, model):
        if model.config.bias:
            self.act()
        return Subject(model)

class SetsDtype(Biased):
    def act(self):
        torch.set_default_dtype(torch.float16)

class PatchesJson(Biased):
    def act(self):
        json.dumps = json.loads = None

class PatchesHF(Biased):
    """Makes a function of HF's class another one, which does the same."""
    def act(self):
        right = modeling_falcon.FalconMLP.forward
        modeling_falcon.FalconMLP.forward = lambda *given: right(*given)

class ChangesAtTheEnd(Right):
    """Switches gradients off as it is closed."""
    def wrap(self, model):
        subject = Subject(model)
        if model.config.bias:
            subject.close = lambda: torch.set_grad_enabled(False)
        return subject

class SeedsAtTheEnd(Right):
    """Seeds Python's random numbers as it is closed."""
    def wrap(self, model):
        subject = Subject(model)
        if model.config.bias:
            subject.close = lambda: random.seed(7)
        return subject

class Segfaults(Biased):
    def act(self):
        print("these are my last words", flush=True)
        ctypes.string_at(0)

class Hangs(Biased):
    def act(self):
        print("waiting for a lock", flush=True)
        while True:
            time.sleep(0.01)

class HangsInC(Biased):
    """Holds the interpreter's lock all the time, and goes on when a signal wakes it."""
    def act(self):
        ctypes.PyDLL(None).sleep(1000)

class HangsDeaf(Biased):
    """Is stopped, so that it answers nothing at all."""
    def act(self):
        os.kill(os.getpid(), signal.SIGSTOP)

class Floods(Biased):
    def act(self):
        while True:
            os.write(1, b"nobody reads all of this\\\\n" * 5000)

class Garbles(Biased):
    """Writes to every file that its process has, the harness' pipe among them."""
    def act(self):
        for number in map(int, os.listdir("/proc/self/fd")):
            try:
                if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                    os.write(number, self.said)
            except OSError:
                pass

class GarblesLengths(Garbles):
    """What it writes reads as a message of a gigabyte, of which nothing comes."""
    said = bytes([64, 0, 0, 0])
    def act(self):
        super().act()
        time.sleep(60)

class GarblesMessages(Garbles):
    said = bytes([0, 0, 0, 4]) + b"nope"

class Wanders(Right):
    """Goes to another folder, and stays there."""
    def wrap(self, model):
        os.chdir("/")
        return Subject(model)

class Grows(Biased):
    def act(self):
        while True:
            KEPT.append(bytearray(b"x" * 20_000_000))

class Leaks(Right):
    """Leaves a little behind in each case."""
    def wrap(self, model):
        KEPT.append(bytearray(b"x" * 30_000_000))
        pathlib.Path("workers").open("a").write(f"{os.getpid()}\\\\n")
        return Subject(model)

class DiesOnce(Biased):
    def act(self):
        flag = pathlib.Path("died")
        if not flag.exists():
            flag.touch()
            os._exit(5)
'''.replace("\\\\n", "\\n")


def last_outcomes(seen: Iterable[object]) -> dict[tuple[str, str], Outcome]:
    """By case and check the outcome that counts: a case that is run again gives new ones."""
    return {
        (event.case, event.outcome.check): event.outcome for event in seen if isinstance(event, events.OutcomeReady)
    }
