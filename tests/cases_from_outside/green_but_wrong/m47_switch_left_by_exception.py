"""an exception inside leaves a switch on"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

from contextlib import contextmanager


@contextmanager
def switched(self, names):
    before = {point: point.on for point in map(self.hook_point, names)}
    for point in before:
        point.on = True
    yield
    for point, on in before.items():
        point.on = on


R.Bridge.switched = switched


class Adapter(V.BridgeAdapter):
    name = "47_switch_left_by_exception"
