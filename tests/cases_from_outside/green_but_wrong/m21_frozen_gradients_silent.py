"""where all parameters are frozen hooks of gradients are never called, and nothing can be differentiated"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_tapped = H._tapped


def tapped(value, handles, place):
    return _tapped(value, handles, place) if value.requires_grad else value


H._tapped = tapped


class Adapter(V.BridgeAdapter):
    name = "21_frozen_gradients_silent"
