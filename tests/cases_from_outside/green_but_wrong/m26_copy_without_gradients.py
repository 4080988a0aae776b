"""the parameters of a copy take no gradients"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_copy = V.BridgeModes.copy


def copy(self):
    made = _copy(self)
    made.bridge.requires_grad_(False)
    return made


V.BridgeModes.copy = copy


class Adapter(V.BridgeAdapter):
    name = "26_copy_without_gradients"
