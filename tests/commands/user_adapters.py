"""The adapters in the user's folder, a few cases to run them on, and what came out."""

from __future__ import annotations

from pathlib import Path

from verifier import record

ADAPTERS = '''
import ctypes, dataclasses, os, signal, subprocess, time
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
    """Shows HF's own model: what has no weights, hooks or components to be wrong about."""
    name = "right"
    version = "1.0"
    def wrap(self, model):
        return Subject(model)

class Silent(Right):
    """Its models give zeros."""
    def wrap(self, model):
        model.lm_head.weight.data.zero_()
        return Subject(model)

class Raises(Right):
    def wrap(self, model):
        raise RuntimeError("cannot \\x1b[31mwrap\\x1b[0m <b>this</b>")

class Segfaults(Right):
    def wrap(self, model):
        if model.config.bias:
            ctypes.string_at(0)
        return Subject(model)

class Quits(Right):
    def wrap(self, model):
        if model.config.bias:
            print("goodbye, cruel config", flush=True)
            os._exit(7)
        return Subject(model)

class Sleeps(Right):
    def wrap(self, model):
        if model.config.bias:
            time.sleep(60)
        return Subject(model)

class Detaches(Right):
    """Starts a process of a session of its own, and sleeps."""
    def wrap(self, model):
        if model.config.bias:
            subprocess.Popen(["sleep", "600"], start_new_session=True)
            time.sleep(60)
        return Subject(model)

class SleepsInC(Right):
    """Holds the interpreter's lock while it sleeps, so that no other thread runs."""
    def wrap(self, model):
        if model.config.bias:
            ctypes.PyDLL(None).sleep(60)
        return Subject(model)

class SleepsFirst(Right):
    """Sleeps until somebody says that it has slept."""
    def wrap(self, model):
        while model.config.bias and not os.path.exists("slept"):
            time.sleep(0.05)
        return Subject(model)

class Second(Right):
    """Silent in every process where it has wrapped a model of another config before."""
    seen = set()
    def wrap(self, model):
        self.seen.add(model.config.to_json_string())
        return Silent().wrap(model) if len(self.seen) > 1 else Subject(model)

class Doubled(Subject):
    def forward(self, inputs):
        output = super().forward(inputs)
        return dataclasses.replace(output, logits=2 * output.logits) if self.is_wrong(inputs) else output

class AfterMaskSubject(Doubled):
    masked = False
    def is_wrong(self, inputs):
        has_mask = inputs.attention_mask is not None
        wrong = self.masked and not has_mask
        self.masked = self.masked or has_mask
        return wrong

class AfterMask(Right):
    """Wrong without a mask, once a mask was given."""
    def wrap(self, model):
        return AfterMaskSubject(model)

class HalfMaskedSubject(Doubled):
    def is_wrong(self, inputs):
        mask = inputs.attention_mask
        return self.model.dtype.itemsize == 2 and mask is not None and mask.ndim == 2 and bool((mask == 0).any())

class HalfMasked(Right):
    """Wrong in half precision where a mask hides something."""
    def wrap(self, model):
        return HalfMaskedSubject(model)

class Unnamed:
    def wrap(self, model):
        return Subject(model)
'''

# Four valid cases, parallel and sequential, with a bias and without; the corners are elsewhere.
FEW = "alibi=true,new_decoder_architecture=false,multi_query=true,num_ln_in_parallel_attn=1,num_kv_heads=none"


def verdicts(place: Path, check: str) -> dict[str, int]:
    """How often the check had which verdict in the record there."""
    found: dict[str, int] = {}
    for entry in record.read(place).entries:
        if entry.outcome.check == check:
            found[entry.outcome.verdict] = found.get(entry.outcome.verdict, 0) + 1
    return found
