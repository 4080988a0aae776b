"""nnsight #141: after a gradient was set at a point, whoever reads the gradient there afterwards sees the old one.
Here: of two backward edits at one point, in contexts one inside the other, the second is given the original gradient.

Run: verifier run falcon --adapter 07-gradient-edit-nested:Adapter --workers 1
Right: a check of nested gradient edits fails, as hooks.nested does for values.
"""

import torch
from base import Base
from verifier_bridge import hook_point


def _edited(original, handles, place):
    last, changed = original, False
    for handle in handles:
        if not handle.attached:
            continue
        made = handle.edit(original.clone())
        if made is not None:
            last, changed = made.to(original.dtype), True
    return last, changed


class _Tap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, anchor, handles, place):
        ctx.handles, ctx.place = handles, place
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):
        made, changed = _edited(gradient, ctx.handles, ctx.place)
        return made if changed else gradient, None, None, None


hook_point._Tap = _Tap


class Adapter(Base):
    name = "gradient-edit-nested"
