"""cached keys and values are detached: no gradient flows from a continuation back to its prompt"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_extend = K.LayerSlot.extend


def extend(self, keys, values):
    out = _extend(self, keys, values)
    self.now = (out[0].detach(), out[1].detach())
    return out


K.LayerSlot.extend = extend


class Adapter(V.BridgeAdapter):
    name = "09_cache_detached"
