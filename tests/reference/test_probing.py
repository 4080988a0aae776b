"""What a norm is found to do is what its class does, for every kind of norm that Hugging Face has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.nanochat.modeling_nanochat import NanoChatRMSNorm
from transformers.models.nemotron.modeling_nemotron import NemotronLayerNorm1P
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from verifier.errors import VerifierError
from verifier.reference.probing import norm_of

WIDTH = 72
# By class: centred, `1 + weight`, the dtype that it computes in, weighted before it goes back to the input's.
KINDS: dict[str, tuple[Callable[[float], nn.Module], tuple[bool, bool, torch.dtype | None, bool]]] = {
    "torch's": (lambda eps: nn.LayerNorm(WIDTH, eps=eps), (True, False, None, False)),
    "without bias": (lambda eps: nn.LayerNorm(WIDTH, eps=eps, bias=False), (True, False, None, False)),
    "without weight": (
        lambda eps: nn.LayerNorm(WIDTH, eps=eps, elementwise_affine=False),
        (True, False, None, False),
    ),
    "root mean square": (lambda eps: nn.RMSNorm(WIDTH, eps=eps), (False, False, None, False)),
    "llama": (lambda eps: LlamaRMSNorm(WIDTH, eps=eps), (False, False, torch.float32, False)),
    "t5": (lambda eps: T5LayerNorm(WIDTH, eps=eps), (False, False, torch.float32, False)),
    "gemma2": (lambda eps: Gemma2RMSNorm(WIDTH, eps=eps), (False, True, torch.float32, True)),
    "cohere": (lambda eps: CohereLayerNorm(WIDTH, eps=eps), (True, False, torch.float32, True)),
    "olmo2": (lambda eps: Olmo2RMSNorm(WIDTH, eps=eps), (False, False, torch.float32, True)),
    "gpt-oss": (lambda eps: GptOssRMSNorm(WIDTH, eps=eps), (False, False, torch.float32, True)),
    "nanochat": (lambda eps: NanoChatRMSNorm(eps=eps), (False, False, torch.float32, False)),
    "nemotron": (lambda eps: NemotronLayerNorm1P(WIDTH, eps=eps), (True, True, None, False)),
}


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-5, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_does_is_found(kind: str, eps: float) -> None:
    make, (centred, offset, computed_in, weighted_first) = KINDS[kind]
    norm = norm_of(make(eps), WIDTH)
    assert norm.eps == eps
    assert (norm.centred, norm.offset, norm.computed_in) == (centred, offset, computed_in)
    if computed_in is not None and kind not in ("nanochat",):  # which has nothing to weight
        assert norm.weighted_first is weighted_first


def test_an_epsilon_that_only_its_code_has_is_found() -> None:
    norm = norm_of(OlmoLayerNorm(WIDTH), WIDTH)
    assert norm.centred
    assert norm.eps == 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recomposed_is_what_it_gives(kind: str, dtype: torch.dtype) -> None:
    module = KINDS[kind][0](1e-5)
    draw = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw).to(dtype)
    x = torch.randn(3, 5, WIDTH, generator=draw).to(dtype)
    norm = norm_of(module, WIDTH)
    recomposed = norm.weighted(module, norm.normalized(x, norm.inverse(x))).to(dtype)
    recomposed = recomposed.detach()
    rounding = 4 * torch.finfo(dtype).eps * float(recomposed.abs().max())
    assert float((recomposed - module(x)).abs().max()) <= rounding


def test_asking_runs_no_hook_and_changes_no_weight() -> None:
    module, calls = LlamaRMSNorm(WIDTH, eps=0.037), list[str]()
    module.register_forward_hook(lambda *_: calls.append("called"))
    before = module.weight.clone()
    assert norm_of(module, WIDTH).eps == 0.037
    assert calls == []
    assert torch.equal(module.weight, before)


class Softmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


def test_what_is_no_norm_is_told() -> None:
    with pytest.raises(VerifierError, match="Softmax is no norm over its last axis"):
        norm_of(Softmax(), WIDTH)
