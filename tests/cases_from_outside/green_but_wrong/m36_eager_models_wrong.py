"""models that were loaded with attn_implementation=eager get unscaled scores"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_scores = A.BridgedAttention._scores


def scores(self, q, k):
    out = _scores(self, q, k)
    return out * q.shape[-1] ** 0.5 if self.__dict__.get("_eager") else out


A.BridgedAttention._scores = scores
_init = R.Bridge.__init__


def init(self, model):
    _init(self, model)
    for block in self.blocks:
        block.attn.__dict__["_eager"] = model.config._attn_implementation == "eager"


R.Bridge.__init__ = init


class Adapter(V.BridgeAdapter):
    name = "36_eager_models_wrong"
