"""transformers #25681, NVIDIA-NeMo/Automodel #2549: RoPE's inverse frequencies are rounded to the model's half dtype.

Run: verifier run falcon --adapter 04-inv-freq-half:Adapter --workers 1
Right: forward.bfloat16 and forward.float16 fail; nothing in float64.
"""

import copy
import torch
from base import Base
from verifier_bridge.bridge import Bridge
from verifier_bridge.components import BridgedRotaryEmbedding


class Rotary(BridgedRotaryEmbedding):
    def forward(self, x, position_ids=None, **kw):
        original = self.original
        kept = original.inv_freq
        if x.dtype in (torch.bfloat16, torch.float16):
            original._buffers["inv_freq"] = kept.to(x.dtype).to(kept.dtype)
        try:
            return original(x, position_ids=position_ids, **kw)
        finally:
            original._buffers["inv_freq"] = kept


class B(Bridge):
    def __init__(self, model):
        super().__init__(model)
        if self.rotary_emb is not None:
            self.rotary_emb.__class__ = Rotary


class Adapter(Base):
    name = "inv-freq-half"
    bridge_class = B


class Counting(BridgedRotaryEmbedding):
    """UNI-D2 pull 6, transformers #29496: positions are counted in the model's dtype; bfloat16 ends at 256."""

    def forward(self, x, position_ids=None, **kw):
        if x.dtype in (torch.bfloat16, torch.float16):
            position_ids = position_ids.to(x.dtype).long()
        return self.original(x, position_ids=position_ids, **kw)


class C(Bridge):
    def __init__(self, model):
        super().__init__(model)
        if self.rotary_emb is not None:
            self.rotary_emb.__class__ = Counting


class Counted(Base):
    name = "positions-in-half"
    bridge_class = C
