"""of two backwards through one forward (retain_graph) hooks of gradients run in the first only"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V


def backward(ctx, gradient):
    if getattr(ctx, "done", False):
        return gradient, None, None, None
    ctx.done = True
    edited, changed = H._edited(gradient, ctx.handles, ctx.place)
    return edited if changed else gradient, None, None, None


H._Tap.backward = staticmethod(backward)


class Adapter(V.BridgeAdapter):
    name = "20_second_backward_unhooked"
