"""a hook of gradients sees the gradient by the value before the edit at the same point"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V


def run(self, value):
    changed = False
    if self._backward_edits and torch.is_grad_enabled():
        value = H._tapped(value, tuple(self._backward_edits), self.name)
    if self._forward_edits:
        value, changed = H._edited(value, tuple(self._forward_edits), self.name)
    return value, changed


H.HookPoint._run = run


class Adapter(V.BridgeAdapter):
    name = "c09_backward_hook_after_edit"
