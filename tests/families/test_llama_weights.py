"""Canonical weights and components of a family with separate projections, a gated MLP and norms that do not centre."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from llama_family import LlamaFamily

from verifier import checks
from verifier.cases.spec import CaseSpec
from verifier.checks.runner import run_case
from verifier.judging.outcome import Outcome, Verdict
from verifier.reference.weights import canonical_weights

LLAMA = LlamaFamily()
BIASED = {**LLAMA.dims(), **{name: values[0] for name, values in LLAMA.flags().items()}, "num_key_value_heads": 4}
BIASED |= {"attention_bias": True, "mlp_bias": True}
UNBIASED = {**BIASED, "attention_bias": False, "mlp_bias": False}


def test_every_value_of_hf_has_a_canonical_name() -> None:
    model = LLAMA.build(BIASED, dtype=torch.float64, device="cpu", attention="sdpa", seed=0)
    weights = canonical_weights(LLAMA, model)
    given = torch.cat([parameter.flatten() for parameter in model.state_dict().values()])
    found = torch.cat([weight.flatten() for weight in weights.values()])
    assert torch.equal(found.sort().values, given.sort().values)
    assert weights["blocks.1.mlp.b_gate"].shape == weights["blocks.1.mlp.b_in"].shape
    assert "blocks.1.ln1.b" not in weights


@pytest.fixture(scope="module")
def lens() -> Any:
    pytest.importorskip("transformer_lens")
    from verifier_lens import LensAdapter

    return LensAdapter()


def found_in(lens: Any, config: Any) -> dict[str, Outcome]:
    spec = CaseSpec(family="llama_family:LlamaFamily", config=config, valid=True, depth="sampled")
    return {one.check: one for one in run_case(spec, LLAMA, lens, checks.select(["weights", "component"]))}


@pytest.mark.slow
@pytest.mark.parametrize("config", [BIASED, UNBIASED], ids=["biased", "unbiased"])
def test_what_transformer_lens_shows_of_weights_and_components_is_hfs(lens: Any, config: Any) -> None:
    found = found_in(lens, config)
    exact = ("names", "shapes", "attention", "modules", "values", "unprocessed")
    assert {found[f"weights.{name}"].verdict for name in exact} == {Verdict.PASS}
    alone = ("names", "embeddings", "positions", "norms", "projections", "mlp", "dtypes")
    assert {found[f"component.{name}"].verdict for name in alone} == {Verdict.PASS}
    # Its softmax is of float32, whatever the model's dtype.
    assert {found[f"component.{name}"].verdict for name in ("attention", "blocks")} == {Verdict.REDUCED}
    assert found["weights.restore"].message == "not applicable: the adapter offers no restore"


@pytest.mark.slow
def test_it_cannot_fold_value_biases_of_grouped_heads_alone(lens: Any) -> None:
    outcome = found_in(lens, BIASED)["weights.processings"]
    assert (outcome.verdict, outcome.exception) == (Verdict.ERROR, "RuntimeError")
    assert (outcome.site or "").endswith("weight_processing.py:fold_value_biases")
    assert found_in(lens, UNBIASED)["weights.processings"].verdict is Verdict.REDUCED


@torch.no_grad()
@pytest.mark.parametrize("more", [{}, {"fold_ln": True}], ids=["alone", "after-norms"])
def test_the_same_with_no_harness(lens: Any, more: Any) -> None:
    """Where the norms are folded first, the biases are in another shape, and it works."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    model, twin = (LLAMA.build(BIASED, dtype=torch.float64, device="cpu", attention="sdpa", seed=0) for _ in range(2))
    bridge = build_bridge_from_module(twin, "LlamaForCausalLM", hf_config=twin.config)
    off = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False}
    if not more:
        with pytest.raises(RuntimeError, match=r"shape '\[12, \d+\]' is invalid for input of size \d+"):
            bridge.enable_compatibility_mode(disable_warnings=True, fold_value_biases=True, **off)
        return
    bridge.enable_compatibility_mode(disable_warnings=True, fold_value_biases=True, **{**off, **more})
    ids = torch.arange(18).view(2, 9)
    assert float((bridge(ids) - model(ids).logits).abs().max()) < 1e-4
