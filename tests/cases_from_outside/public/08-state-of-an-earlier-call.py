"""nnsight #607: a call on one batch changes what the next call gives. Here: the mask of the last padded call is used
again where the next call, on as many rows and tokens, gives none.

Run: verifier run falcon --adapter 08-state-of-an-earlier-call:Adapter --workers 1
Right: forward.twice says that a forward leaves something behind.
"""

from base import Base
from verifier_bridge.bridge import Bridge


class B(Bridge):
    _last = None

    def forward(self, input_ids=None, *, inputs_embeds=None, attention_mask=None, cache=None, **kw):
        given = input_ids if input_ids is not None else inputs_embeds
        if attention_mask is not None and cache is None:
            object.__setattr__(self, "_last", attention_mask)
        elif (
            attention_mask is None and cache is None and self._last is not None and self._last.shape == given.shape[:2]
        ):
            attention_mask = self._last
        return super().forward(input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, cache=cache, **kw)


class Adapter(Base):
    name = "earlier-call"
    bridge_class = B
