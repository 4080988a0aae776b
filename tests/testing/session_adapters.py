"""The adapters in the folder of the sessions, a few cases to run them on, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verifier import record

ADAPTERS = '''
import ctypes, os, time
from verifier import adapter
from verifier.reference import models as reference

class Subject(adapter.Subject):
    def __init__(self, model):
        self.model = model
    def forward(self, inputs):
        return reference.forward(self.model, inputs)
    def close(self):
        pass

class Right:
    """Shows HF's own model, and says in which process it wraps which case."""
    name = "right"
    version = "1.0"
    def wrap(self, model):
        with open("wrapped.txt", "a") as file:
            file.write(f"{model.config.bias}-{model.config.parallel_attn} {os.getpid()}\\n")
        return self.subject(model)
    def subject(self, model):
        return Subject(model)

class Wrong(Right):
    """Its models give zeros where the config has a bias; what the folder's file `mood` says changes that."""
    name = "wrong"
    def subject(self, model):
        mood = open("mood").read() if os.path.exists("mood") else "zeros"
        if mood == "everywhere" or (model.config.bias and mood == "zeros"):
            model.lm_head.weight.data.zero_()
        if model.config.bias and mood == "raises":
            raise RuntimeError("cannot \\x1b[31mwrap\\x1b[0m <b>this</b>")
        return Subject(model)

class Deadly(Right):
    """Kills its process with one kind of case, and hangs in another."""
    name = "deadly"
    def subject(self, model):
        if model.config.bias and model.config.parallel_attn:
            ctypes.string_at(0)
        if model.config.bias:
            time.sleep(60)
        return Subject(model)

class Mumbles(Right):
    """Raises with half a character in its message."""
    def subject(self, model):
        raise RuntimeError("cannot wrap \\ud800 this")

class Wanders(Right):
    """Goes to another folder, and stays there."""
    def subject(self, model):
        os.chdir("/")
        return Subject(model)

class Slow(Right):
    """Sleeps in every case but the first one, until it is told to go on."""
    def subject(self, model):
        while os.path.exists("sleep") and model.config.bias:
            time.sleep(0.05)
        return Subject(model)

class Unnamed:
    def wrap(self, model):
        return Subject(model)

def one_thread():
    import torch
    return torch.get_num_threads() == 1

class Threads(Right):
    """Fails where torch has more than one thread."""
    def subject(self, model):
        assert one_thread()
        return Subject(model)
'''

# Four valid cases: parallel and sequential, with a bias and without. What looks at them is quick.
FEW = "alibi=true,new_decoder_architecture=false,multi_query=true,num_ln_in_parallel_attn=1,num_kv_heads=none"
ONE = f"{FEW},parallel_attn=true,bias=true"
ONLY = ("build.adapter", "build.tied", "forward.logits", "forward.causality")
LOGITS = "ee8ri2xi"  # the fingerprint of `forward.logits`, of an adapter whose logits are wrong

Essence = dict[tuple[str, str], Any]


def essence(folder: Path) -> Essence:
    """What a record says of each case and check, but for the times."""
    return {
        (entry.case, entry.outcome.check): (entry.outcome.verdict, entry.fingerprint, entry.outcome.measured)
        for entry in record.read(folder).entries
    }


def decorated(adapter: str, *, where: str = FEW, only: tuple[str, ...] = ONLY, more: str = "") -> str:
    """A test file with one decorated function; `adapter` is an expression."""
    return f"""\
from verifier import parametrize_with_checks

@parametrize_with_checks("falcon", adapter={adapter}, only={only!r}, where={where!r}{more})
def test_conforms(case, check):
    check(case)
"""


def wishes(adapter: str, *, where: str = FEW, only: tuple[str, ...] = ONLY) -> list[str]:
    """The same on the command line."""
    words = ["--verifier-family", "falcon", "--verifier-adapter", adapter, "--verifier-where", where]
    return words + [word for glob in only for word in ("--verifier-only", glob)]
