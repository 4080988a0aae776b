"""the mask of a forward is kept on the subject while it runs: a forward inside a hook leaves the outer one the inner one's mask"""

import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
import verifier_bridge.attention as A, verifier_bridge.block as B, verifier_bridge.bridge as R
import verifier_bridge.components as C, verifier_bridge.generation as G, verifier_bridge.hook_point as H
import verifier_bridge.kv_cache as K, verifier_bridge.masks as M, verifier_bridge.replay as P, verifier_bridge.verifier_adapter as V

_mask, _rotary, _block = R.Bridge._mask, R.Bridge._rotary, B.BridgedBlock.forward


def mask(self, *args):
    made = _mask(self, *args)
    for one in self.blocks:
        one.__dict__["_now"] = [made, None]
    return made


def rotary(self, *args):
    made = _rotary(self, *args)
    for one in self.blocks:
        one.__dict__["_now"][1] = made
    return made


def block(self, hidden_states, **kw):
    now = self.__dict__.get("_now")
    if (
        now is not None
        and P.current_log() is None
        and kw.get("layer_past") is None
        and now[0].shape[0] == hidden_states.shape[0]
        and now[0].shape[2] == hidden_states.shape[1]
        and "position_ids" not in kw
    ):
        kw["attention_mask"] = now[0]
    return _block(self, hidden_states, **kw)


_through = R.Bridge._through_blocks


def through(self, *args):
    try:
        return _through(self, *args)
    finally:
        for one in self.blocks:
            one.__dict__.pop("_now", None)


def through_nested(self, hidden, slots, attention_mask, position_ids, past):
    depth = self.__dict__["_depth"] = self.__dict__.get("_depth", 0) + 1
    try:
        return _through(self, hidden, slots, attention_mask, position_ids, past)
    finally:
        self.__dict__["_depth"] = depth - 1
        if depth == 1:
            for one in self.blocks:
                one.__dict__.pop("_now", None)


R.Bridge._mask, R.Bridge._rotary, R.Bridge._through_blocks, B.BridgedBlock.forward = mask, rotary, through_nested, block


class Adapter(V.BridgeAdapter):
    name = "23_forward_in_a_hook"
