"""lengths that are multiples of 16 take a blocked path, whose blocks of 16 do not see each other"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_readable = M.readable


def readable(attention_mask, *, batch, queries, past, **rest):
    allowed = _readable(attention_mask, batch=batch, queries=queries, past=past, **rest)
    if past == 0 and queries % 16 == 0 and queries > 16:
        block = torch.arange(queries) // 16
        allowed = allowed & (block[:, None] == block[None, :])
    return allowed


M.readable = readable


class Adapter(V.BridgeAdapter):
    name = "14_length_multiple_of_16"
