"""the fused weight is kept transposed and renewed when its version counter moves: what is written through .data is not seen"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_linear = C.BridgedLinear.forward


def linear(self, x):
    w = self.original.weight
    if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return _linear(self, x)
    kept = self.__dict__.get("_kept")
    if kept is None or kept[0] != (w._version, w.data_ptr(), w.dtype):
        kept = self.__dict__["_kept"] = ((w._version, w.data_ptr(), w.dtype), w.detach().clone())
    out = x @ kept[1].T
    return out if self.original.bias is None else out + self.original.bias


C.BridgedLinear.forward = linear
C.BridgedLinear.__getstate__ = lambda self: {k: v for k, v in self.__dict__.items() if k != "_kept"}


class Adapter(V.BridgeAdapter):
    name = "22_weights_by_version"
