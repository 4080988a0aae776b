"""Adapters in a user's folder that are wrong only where several fields meet, or that die, hang or waver."""

SOURCE = '''
import ctypes, os, pathlib, time
import torch
from verifier import adapter
from verifier.reference import models as reference
from verifier.adapter import Output

class Subject(adapter.Subject):
    def __init__(self, model, forward):
        self.model, self._forward = model, forward
    def forward(self, inputs):
        return self._forward(self.model, inputs)
    def close(self):
        pass

def hf(model, inputs):
    return reference.forward(model, inputs)

def off(output):
    return Output(logits=output.logits * 1.01, loss=output.loss, cache=output.cache)

class Right:
    name, version = "right", "1"
    forward = staticmethod(hf)
    def wrap(self, model):
        return Subject(model, self.forward)

class SlopesOfLongText(Right):
    """ALiBi's slopes are wrong where heads are no power of two, and show far from the first token."""
    @staticmethod
    def forward(model, inputs):
        heads = model.config.num_attention_heads
        far = inputs.input_ids is not None and inputs.input_ids.shape[1] > 20
        return off(hf(model, inputs)) if model.config.alibi and heads & (heads - 1) and far else hf(model, inputs)

class AfterTwo(Right):
    """Is wrong after a call with a mask and a longer one, in that order."""
    def wrap(self, model):
        left = [lambda one: one.attention_mask is not None, lambda one: one.input_ids.shape[1] > 60]
        def forward(model, inputs):
            if not left:
                return off(hf(model, inputs))
            if left[0](inputs):
                left.pop(0)
            return hf(model, inputs)
        return Subject(model, forward)

class OneActivation(Right):
    """One activation is another."""
    @staticmethod
    def forward(model, inputs):
        output = hf(model, inputs)
        wrong = model.config.activation == "silu"
        return Output(logits=output.logits * 2, loss=output.loss, cache=output.cache) if wrong else output

class Everything(Right):
    """Segfaults, hangs, raises, and disagrees, each where two fields meet."""
    def wrap(self, model):
        config = model.config
        if config.alibi and config.bias:
            ctypes.string_at(0)
        if not config.multi_query and config.activation == "relu":
            time.sleep(1000)
        if not config.parallel_attn and config.vocab_size == 23:
            raise LookupError("no such layer")
        wrong = config.ffn_hidden_size == 40 and config.tie_word_embeddings is False
        return Subject(model, (lambda model, inputs: off(hf(model, inputs))) if wrong else hf)

class Grouped(Right):
    """Cannot wrap a model whose heads share keys in groups."""
    def wrap(self, model):
        config = model.config
        if config.new_decoder_architecture and 1 < config.num_kv_heads < config.num_attention_heads:
            raise LookupError("no such group")
        return Subject(model, hf)

class Wavers(Right):
    """Is wrong the first time that it sees a bias, and never again."""
    def wrap(self, model):
        flag = pathlib.Path("wavered")
        wrong = model.config.bias and not flag.exists()
        if wrong:
            flag.touch()
        return Subject(model, (lambda model, inputs: off(hf(model, inputs))) if wrong else hf)

class Mended(Right):
    """Is wrong where there are biases, until it is mended."""
    def wrap(self, model):
        wrong = model.config.bias and not pathlib.Path("mended").exists()
        return Subject(model, (lambda model, inputs: off(hf(model, inputs))) if wrong else hf)
'''
