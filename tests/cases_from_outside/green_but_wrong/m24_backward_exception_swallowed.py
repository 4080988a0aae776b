"""an exception inside a hook of gradients is swallowed"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_back = H._Tap.backward


def backward(ctx, gradient):
    try:
        return _back(ctx, gradient)
    except Exception:
        return gradient, None, None, None


H._Tap.backward = staticmethod(backward)


class Adapter(V.BridgeAdapter):
    name = "24_backward_exception_swallowed"
