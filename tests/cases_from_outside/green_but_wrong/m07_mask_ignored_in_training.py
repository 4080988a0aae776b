"""in training mode the attention mask is ignored"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_mask = R.Bridge._mask


def mask(self, spec, hidden, attention_mask, past):
    return _mask(self, spec, hidden, None if self.training else attention_mask, past)


R.Bridge._mask = mask


class Adapter(V.BridgeAdapter):
    name = "07_mask_ignored_in_training"
