"""edits at hook_result are dropped where a mask is given"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_forward = R.Bridge.forward


def forward(self, *args, attention_mask=None, **kw):
    for block in self.blocks:
        block.attn.hook_result.__dict__["_deaf"] = attention_mask is not None
    return _forward(self, *args, attention_mask=attention_mask, **kw)


R.Bridge.forward = forward
_run = H.HookPoint._run


def run(self, value):
    out, changed = _run(self, value)
    return (value, False) if self.__dict__.get("_deaf") and not self._backward_edits else (out, changed)


H.HookPoint._run = run


class Adapter(V.BridgeAdapter):
    name = "46_result_edits_beside_mask"
