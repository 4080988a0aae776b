"""in half precision a hook's replacement is dropped"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_run = H.HookPoint._run


def run(self, value):
    out, changed = _run(self, value)
    if value.dtype in (torch.float16, torch.bfloat16) and self._forward_edits and not self._backward_edits:
        return value, False
    return out, changed


H.HookPoint._run = run


class Adapter(V.BridgeAdapter):
    name = "05_edits_dropped_in_half"
