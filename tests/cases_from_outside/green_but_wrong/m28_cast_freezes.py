"""after a cast no parameter takes a gradient"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_to = V.BridgeModes.to


def to(self, *, dtype=None, device=None):
    _to(self, dtype=dtype, device=device)
    self.bridge.requires_grad_(False)


V.BridgeModes.to = to


class Adapter(V.BridgeAdapter):
    name = "28_cast_freezes"
