"""transformers #46624, #27226/#25104: dynamic RoPE. Static: its scaling beyond max_position_embeddings is never applied.
Sticky: after a text beyond the maximum the frequencies never go back (what #46624 mends).

Run: verifier run falcon --adapter 22-dynamic-rope:Static --workers 1 --only forward --only cache --only state
Right: forward.lengths fails on the corner rope-dynamic (Static); forward.twice or so after a long text (Sticky).
"""

import torch
from base import Base
from verifier_bridge.bridge import Bridge
from verifier_bridge.components import BridgedRotaryEmbedding


class Never(BridgedRotaryEmbedding):
    def forward(self, x, position_ids=None, **kw):
        o = self.original
        if "dynamic" not in str(o.rope_type):
            return o(x, position_ids=position_ids, **kw)
        freqs = position_ids[..., None].float() * o.original_inv_freq.float()
        emb = torch.cat((freqs, freqs), -1)
        return (emb.cos() * o.attention_scaling).to(x.dtype), (emb.sin() * o.attention_scaling).to(x.dtype)


class N(Bridge):
    def __init__(self, model):
        super().__init__(model)
        if self.rotary_emb is not None:
            self.rotary_emb.__class__ = Never


class Static(Base):
    name = "dynamic-never"
    bridge_class = N


class Stuck(BridgedRotaryEmbedding):
    def forward(self, x, position_ids=None, **kw):
        o = self.original
        if "dynamic" in str(o.rope_type):
            kept = getattr(self, "_kept", 0)
            now = int(position_ids.max()) + 1
            longest = max(kept, now)
            object.__setattr__(self, "_kept", longest)
            if longest > o.config.max_position_embeddings and now < o.config.max_position_embeddings:
                from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

                inv, scale = ROPE_INIT_FUNCTIONS["dynamic"](o.config, x.device, seq_len=torch.tensor(longest))
                freqs = position_ids[..., None].float() * inv.float()
                emb = torch.cat((freqs, freqs), -1)
                return (emb.cos() * scale).to(x.dtype), (emb.sin() * scale).to(x.dtype)
        return o(x, position_ids=position_ids, **kw)


class K(Bridge):
    def __init__(self, model):
        super().__init__(model)
        if self.rotary_emb is not None:
            self.rotary_emb.__class__ = Stuck


class Sticky(Base):
    name = "dynamic-sticky"
    bridge_class = K
