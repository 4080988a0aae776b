"""under gradient checkpointing the recompute drops other numbers than the forward did"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

from torch.utils.checkpoint import checkpoint


def patched(run, hidden, use_reentrant=False):
    return checkpoint(run, hidden, use_reentrant=use_reentrant, preserve_rng_state=False)


P.checkpoint = patched


class Adapter(V.BridgeAdapter):
    name = "69_checkpoint_draws_anew"
