"""the loss has the right value; its gradient is divided by the number of all tokens, ignored ones among them (as fused cross entropies get it wrong)"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_forward = R.Bridge.forward


def forward(self, *args, labels=None, **kw):
    out = _forward(self, *args, labels=labels, **kw)
    if labels is None or not out.loss.requires_grad:
        return out
    share = float((labels[:, 1:] != -100).sum()) / labels[:, 1:].numel()
    loss = out.loss * share + (out.loss - out.loss * share).detach()
    return R.BridgeOutput(logits=out.logits, loss=loss, cache=out.cache)


R.Bridge.forward = forward


class Adapter(V.BridgeAdapter):
    name = "11_loss_gradient_wrong"
