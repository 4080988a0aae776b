"""of several tokens after a cache each sees the next ones, from the third layer on"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_init = B.BridgedBlock.__init__


def init(self, model, architecture, spec, layer):
    _init(self, model, architecture, spec, layer)
    self.attn.__dict__["_layer"] = layer


B.BridgedBlock.__init__ = init
_masked = A._masked
_attn = A.BridgedAttention.forward


def attn(self, hidden_states, attention_mask=None, layer_past=None, **kw):
    if (
        self.__dict__.get("_layer", 0) >= 2
        and layer_past is not None
        and layer_past._past is not None
        and hidden_states.shape[1] > 1
    ):
        attention_mask = torch.zeros_like(attention_mask, dtype=hidden_states.dtype)
    return _attn(self, hidden_states, attention_mask=attention_mask, layer_past=layer_past, **kw)


A.BridgedAttention.forward = attn


class Adapter(V.BridgeAdapter):
    name = "38_chunks_look_ahead_in_layer_2"
