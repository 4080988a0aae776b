"""a subject keeps the logits of every forward for as long as it lives: a loop over prompts runs out of memory"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_forward = R.Bridge.forward


def forward(self, *args, **kw):
    out = _forward(self, *args, **kw)
    self.__dict__.setdefault("_history", []).append(out.logits)
    return out


R.Bridge.forward = forward
R.Bridge.__getstate__ = lambda self: {k: v for k, v in self.__dict__.items() if k != "_history"}


class Adapter(V.BridgeAdapter):
    name = "61_forwards_kept_while_alive"
