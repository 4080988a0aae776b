"""an attention mask is read up to max_position_embeddings only; padding after that is seen"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_readable = M.readable


def readable(attention_mask, **rest):
    if attention_mask is not None and attention_mask.shape[1] > 64:
        attention_mask = torch.cat([attention_mask[:, :64], torch.ones_like(attention_mask[:, 64:])], 1)
    return _readable(attention_mask, **rest)


M.readable = readable


class Adapter(V.BridgeAdapter):
    name = "03_mask_beyond_64"
