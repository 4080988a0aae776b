"""A small interpretability adapter: a Hugging Face model, every activation of which can be read and replaced.

```python
bridge = Bridge(model)
output, activations = bridge.run_with_cache(tokens, names=["blocks.0.attn.hook_pattern"])
with bridge.hooked({"blocks.1.hook_attn_out": torch.zeros_like}):
    ablated = bridge(tokens).logits
```
"""

from verifier_bridge.architecture import Architecture, BlockSpec
from verifier_bridge.bridge import Bridge, BridgeOutput
from verifier_bridge.errors import BridgeError, BridgeRefusal, HookError, InputError
from verifier_bridge.hook_point import Edit, Handle, HookPoint
from verifier_bridge.kv_cache import KeyValueCache
from verifier_bridge.qkv import QKV, QKVLayout
from verifier_bridge.registry import register

__all__ = [
    "QKV",
    "Architecture",
    "BlockSpec",
    "Bridge",
    "BridgeError",
    "BridgeOutput",
    "BridgeRefusal",
    "Edit",
    "Handle",
    "HookError",
    "HookPoint",
    "InputError",
    "KeyValueCache",
    "QKVLayout",
    "register",
]
