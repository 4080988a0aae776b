"""wrapping seeds torch's global random numbers with 0"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_init = R.Bridge.__init__


def init(self, model):
    torch.manual_seed(0)
    _init(self, model)


R.Bridge.__init__ = init


class Adapter(V.BridgeAdapter):
    name = "31_wrap_seeds"
