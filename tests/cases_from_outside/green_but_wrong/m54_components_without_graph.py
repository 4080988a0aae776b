"""components that are run alone are run without gradients"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_run = V.BridgeComponents.run


def run(self, name, args, kwargs):
    with torch.no_grad():
        return _run(self, name, args, kwargs)


V.BridgeComponents.run = run


class Adapter(V.BridgeAdapter):
    name = "54_components_without_graph"
