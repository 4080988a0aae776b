"""SAELens #217 / TransformerLens #1712 kind: a steering vector or an SAE's output, in whatever dtype, does not go into a
model of half precision: Dropped: edits do nothing there. Raises: an edit that gives float32 back raises there.

Run: verifier run falcon --adapter 12-edits-in-half:Dropped --workers 1 --cases plain.jsonl
     verifier run falcon --adapter 12-edits-in-half:Raises ...
Right: a check of edits in bfloat16 and float16 fails.
"""

import torch
from base import Base
from verifier_bridge.bridge import Bridge
from verifier_bridge.hook_point import HookPoint


class Deaf(HookPoint):
    def forward(self, value):
        model = self.owner[0]
        if model is not None and model._model.dtype in (torch.bfloat16, torch.float16) and self._forward_edits:
            super().forward(value)
            return value
        return super().forward(value)


class B(Bridge):
    def __init__(self, model):
        super().__init__(model)
        owner = [self]
        for point in self.hook_points.values():
            point.__class__ = Deaf
            object.__setattr__(point, "owner", owner)

    def __deepcopy__(self, memo):
        import copy

        model = copy.deepcopy(self._model, memo)
        made = type(self)(model)
        made.train(self.training)
        return made


class Dropped(Base):
    name = "edits-dropped-in-half"
    bridge_class = B


class Strict(HookPoint):
    def _run(self, value):
        edits = self._forward_edits
        for h in edits:
            pass
        out, changed = super()._run(value)
        return out, changed


class R(Bridge):
    def hooked(self, forward=None, backward=None):
        half = self._model.dtype in (torch.bfloat16, torch.float16)

        def strict(edit):
            def run(value):
                made = edit(value)
                if made is not None and half and made.dtype != value.dtype:
                    raise RuntimeError("expected BFloat16 but found Float")
                return made

            return run

        return super().hooked({n: strict(e) for n, e in (forward or {}).items()}, backward)


class Raises(Base):
    name = "edits-raise-in-half"
    bridge_class = R
