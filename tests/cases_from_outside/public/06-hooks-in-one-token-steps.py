"""neuronpedia #163 / TransformerLens #776 kind: what a hook is shown while text is decoded token by token is not what
it is shown in one forward, or in a chunk: with a cache and ONE new token hook_pattern is of the new key alone (renormalised), hook_z is
scaled, and nothing else changes: logits, edits and chunks are right.

Run: verifier run falcon --adapter 06-hooks-in-one-token-steps:Adapter --workers 1
Right: cache.hooks fails at attn.hook_z, hook_pattern.
"""

from base import Base
from verifier_bridge.bridge import Bridge
from verifier_bridge.hook_point import HookPoint


class Odd(HookPoint):
    """Readers see another tensor in a step of one token; what goes on is right."""

    def forward(self, value):
        if self.hooked and self.step[0] and not self._backward_edits:
            shown = value * 2
            for handle in tuple(self._forward_edits):
                made = handle.edit(shown)
                if made is not None and made is not shown:
                    value = made / 2
                elif made is shown:
                    value = made / 2
            return value
        return super().forward(value)


class B(Bridge):
    def __init__(self, model):
        super().__init__(model)
        step = [False]
        object.__setattr__(self, "_step", step)
        for name, point in self.hook_points.items():
            if name.endswith(("hook_z", "hook_attn_scores")):
                point.__class__ = Odd
                object.__setattr__(point, "step", step)

    def forward(self, input_ids=None, *, inputs_embeds=None, cache=None, **kw):
        new = (input_ids if input_ids is not None else inputs_embeds).shape[1]
        self._step[0] = cache is not None and new == 1
        try:
            return super().forward(input_ids, inputs_embeds=inputs_embeds, cache=cache, **kw)
        finally:
            self._step[0] = False


class Adapter(Base):
    name = "one-token-steps"
    bridge_class = B
