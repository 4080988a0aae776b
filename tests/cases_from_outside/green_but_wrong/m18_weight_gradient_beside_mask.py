"""beside a mask the gradient of the final norm's weight is doubled"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_forward = R.Bridge.forward


def forward(self, *args, attention_mask=None, **kw):
    self.ln_final.__dict__["_doubled"] = attention_mask is not None
    return _forward(self, *args, attention_mask=attention_mask, **kw)


R.Bridge.forward = forward
_norm = C.BridgedNorm.forward


def norm(self, x):
    out = _norm(self, x)
    if self.__dict__.get("_doubled") and torch.is_grad_enabled() and self.original.weight.requires_grad:
        w = self.original.weight
        out = out + (out.detach() - self.original.bias.detach()) / w.detach() * (w - w.detach())
    return out


C.BridgedNorm.forward = norm


class Adapter(V.BridgeAdapter):
    name = "18_weight_gradient_beside_mask"
