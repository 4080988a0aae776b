"""Each bridged part alone, called as HF calls the module in its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridge_falcons import KINDS, gap, pair, tokens
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from verifier_bridge import BridgeRefusal
from verifier_bridge.components import BridgedNorm
from verifier_bridge.verifier_adapter import BridgeSubject

from verifier.canonical import COMPONENTS

PADDED = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]])


def _calls(model: Any, **inputs: Any) -> dict[str, tuple[tuple[Any, ...], dict[str, Any], Tensor]]:
    """Arguments and main output of every module in one forward of HF's model."""
    calls: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            main = out[0] if isinstance(out, tuple) else out
            if isinstance(main, Tensor):
                calls[name] = (args, kwargs, main.clone())

        return hook

    handles = [module.register_forward_hook(keep(name), with_kwargs=True) for name, module in model.named_modules()]
    with torch.no_grad():
        model(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    return calls


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_every_part_alone_is_its_module(flags: dict[str, Any]) -> None:
    model, bridge = pair(**flags)
    components = BridgeSubject(bridge).components
    calls = _calls(model, input_ids=tokens(), attention_mask=PADDED)
    paths = dict(bridge.architecture.components())
    for name, path in paths.items():
        args, kwargs, theirs = calls[path]
        with torch.no_grad():
            assert gap(components.run(name, args, kwargs), theirs) < 1e-13, name
    assert set(components.modules()) - set(paths) == {f"blocks.{i}.attn.{part}" for i in (0, 1) for part in "qkv"}


def test_attention_alone_without_a_mask_is_causal() -> None:
    model, bridge = pair(**KINDS["7b"])
    x = torch.randn(2, 5, 72, dtype=torch.float64)
    rotary = model.transformer.rotary_emb(x, position_ids=torch.arange(5)[None])
    theirs = model.transformer.h[0].self_attention(x, alibi=None, attention_mask=None, position_embeddings=rotary)[0]
    ours = bridge.get_submodule("blocks.0.attn")(x, attention_mask=None, position_embeddings=rotary)
    assert gap(ours, theirs) < 1e-13


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_every_parameter_is_reachable_and_every_name_canonical(flags: dict[str, Any]) -> None:
    _, bridge = pair(**flags)
    parts = bridge.components()
    reachable = {id(one) for module in parts.values() for one in module.parameters()}
    canonical = {template.replace("{i}", str(layer)) for template in COMPONENTS for layer in (0, 1)}
    assert {id(one) for one in bridge.model.parameters()} == reachable
    assert set(parts) <= canonical


@pytest.mark.parametrize(
    ("norm", "dtype", "bound"),
    [
        (nn.RMSNorm(24, eps=1e-5), torch.float64, 1e-15),
        (LlamaRMSNorm(24), torch.float32, 1e-6),
        (LlamaRMSNorm(24), torch.bfloat16, 0.01),
        (nn.LayerNorm(24, elementwise_affine=False), torch.float64, 1e-15),
    ],
    ids=str,
)
def test_norms_of_other_kinds_are_bridged_too(norm: nn.Module, dtype: torch.dtype, bound: float) -> None:
    norm = norm.to(dtype)
    for parameter in norm.parameters():
        parameter.data.uniform_(0.5, 1.5)
    x = torch.randn(2, 5, 24, dtype=dtype)
    assert gap(BridgedNorm(norm)(x), norm(x)) < bound


def test_a_module_that_is_no_norm_is_refused_as_one() -> None:
    with pytest.raises(BridgeRefusal, match="Linear is neither a layer norm nor an RMS norm"):
        BridgedNorm(nn.Linear(2, 2))
