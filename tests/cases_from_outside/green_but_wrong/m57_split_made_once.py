"""the split projections are made when they are first asked for and never again: stale after training, loading, editing"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

from verifier.adapter import SplitQKV


class Made(nn.Module):
    def __init__(self, one):
        super().__init__()
        self.weight = nn.Parameter(one.weight.detach().clone())
        self.bias = None if one.bias is None else nn.Parameter(one.bias.detach().clone())
        self.linear = one._linear

    def forward(self, x):
        return self.linear(x, self.weight, self.bias)


_split = V.BridgeWeights.split


def split(self, layer):
    kept = self.bridge.__dict__.setdefault("_splits", {})
    if layer not in kept:
        fresh = _split(self, layer)
        kept[layer] = SplitQKV(q=Made(fresh.q), k=Made(fresh.k), v=Made(fresh.v))
    return kept[layer]


V.BridgeWeights.split = split


class Adapter(V.BridgeAdapter):
    name = "57_split_made_once"
