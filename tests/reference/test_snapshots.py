"""Whatever is changed around a model, or in it, is seen and named; where nothing changed, nothing is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from falcons import KINDS, build, tokens
from torch import nn
from transformers import activations, modeling_utils
from transformers.models.falcon import modeling_falcon

from verifier.adapter import CHANGES
from verifier.families.falcon import FalconFamily
from verifier.reference.snapshots import ModelState, Surroundings

CONFIG = KINDS["two-norms-grouped-rope"]


@pytest.fixture
def model(falcon: FalconFamily) -> Any:
    return build(falcon, CONFIG)


# --- around the model ------------------------------------------------------------------------------------------------


def test_nothing_changed_around_it_is_nothing_seen(model: Any, falcon: FalconFamily) -> None:
    before = Surroundings(model)
    with torch.no_grad():
        model(tokens(), use_cache=False)
    build(falcon, KINDS["sequential-own-keys-alibi"])
    assert before.differences() == []


Patch = Callable[[pytest.MonkeyPatch], None]
AROUND: dict[str, tuple[Patch, str]] = {
    "a method of a class": (
        lambda patch: patch.setattr(modeling_falcon.FalconAttention, "forward", lambda *_: None),
        "class transformers.models.falcon.modeling_falcon.FalconAttention: forward",
    ),
    "a new attribute of a class": (
        lambda patch: patch.setattr(modeling_falcon.FalconMLP, "wrapped", True, raising=False),
        "class transformers.models.falcon.modeling_falcon.FalconMLP: wrapped",
    ),
    "a method of torch's": (
        lambda patch: patch.setattr(nn.LayerNorm, "forward", lambda *_: None),
        "class torch.nn.modules.normalization.LayerNorm: forward",
    ),
    "a base class": (
        lambda patch: patch.setattr(nn.Module, "__call__", lambda *_: None),
        "class torch.nn.modules.module.Module: __call__",
    ),
    "a function of a module": (
        lambda patch: patch.setattr(modeling_falcon, "apply_rotary_pos_emb", lambda *_: None),
        "module transformers.models.falcon.modeling_falcon: apply_rotary_pos_emb",
    ),
    "an entry of a module's registry": (
        lambda patch: patch.setitem(modeling_falcon.FALCON_ATTENTION_CLASSES, "sdpa", nn.Linear),
        "module transformers.models.falcon.modeling_falcon: FALCON_ATTENTION_CLASSES",
    ),
    "a new entry of a module's registry": (
        lambda patch: patch.setitem(modeling_falcon.FALCON_ATTENTION_CLASSES, "mine", nn.Linear),
        "module transformers.models.falcon.modeling_falcon: FALCON_ATTENTION_CLASSES",
    ),
    "an entry of a registry that is no plain dict": (
        lambda patch: patch.setitem(activations.ACT2FN, "mine", nn.Identity),
        "module transformers.activations: ACT2FN",
    ),
    "torch's attention": (
        lambda patch: patch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *_: None),
        "torch: scaled_dot_product_attention",
    ),
}


@pytest.mark.parametrize("what", AROUND)
def test_a_change_around_it_is_seen_and_named(model: Any, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    change, name = AROUND[what]
    before = Surroundings(model)
    with monkeypatch.context() as patch:
        change(patch)
        assert before.differences() == [name]
    assert before.differences() == []


def test_an_attention_function_registered_for_every_model_is_seen(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Surroundings(model)
    mapping = modeling_utils.ALL_ATTENTION_FUNCTIONS._global_mapping
    with monkeypatch.context() as patch:
        patch.setitem(mapping, "mine", lambda *_: None)
        assert before.differences() != []


@pytest.mark.parametrize(
    ("change", "undo", "name"),
    [
        (
            lambda: torch.set_default_dtype(torch.float64),
            lambda: torch.set_default_dtype(torch.float32),
            "torch: default dtype",
        ),
        (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True), "torch: gradients enabled"),
        (
            lambda: torch.autograd.set_detect_anomaly(True),
            lambda: torch.autograd.set_detect_anomaly(False),
            "torch: anomaly detection",
        ),
        (
            lambda: torch.use_deterministic_algorithms(True),
            lambda: torch.use_deterministic_algorithms(False),
            "torch: deterministic algorithms",
        ),
    ],
    ids=["dtype", "gradients", "anomaly", "deterministic"],
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_a_setting_of_torchs_is_seen_and_named(
    model: Any, change: Callable[[], None], undo: Callable[[], None], name: str
) -> None:
    before = Surroundings(model)
    change()
    try:
        assert before.differences() == [name]
    finally:
        undo()


def test_several_changes_are_all_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Surroundings(model)
    with monkeypatch.context() as patch:
        for what in ("a method of a class", "a function of a module"):
            AROUND[what][0](patch)
        assert before.differences() == sorted(
            AROUND[what][1] for what in ("a method of a class", "a function of a module")
        )


# --- in the model ----------------------------------------------------------------------------------------------------


def test_nothing_changed_in_it_is_nothing_seen(model: Any) -> None:
    before = ModelState(model)
    model(tokens(), use_cache=False).logits.sum().backward()
    assert before.changes() == {}


def _replace_mlp(model: Any) -> None:
    model.transformer.h[1].mlp = copy.copy(model.transformer.h[1].mlp)  # with the same parts in it


def _add_module(model: Any) -> None:
    model.transformer.h[0].hook_point = nn.Identity()


def _patch_forward(model: Any) -> None:
    model.transformer.h[0].mlp.forward = lambda x: x


def _change_class(model: Any) -> None:
    model.transformer.h[0].mlp.__class__ = nn.Identity


def _set(parameter: Callable[[Any], torch.Tensor], value: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        with torch.no_grad():
            parameter(model).view(-1)[0] = value

    return change


def _replace_parameter(model: Any) -> None:
    model.transformer.ln_f.weight = nn.Parameter(model.transformer.ln_f.weight.detach().clone())


def _freeze(model: Any) -> None:
    model.transformer.ln_f.bias.requires_grad_(False)


def _cast(model: Any) -> None:
    model.transformer.ln_f.float()


def _replace_buffer(model: Any) -> None:
    model.transformer.rotary_emb.inv_freq = nn.Buffer(model.transformer.rotary_emb.inv_freq.clone(), persistent=False)


IN_IT: dict[str, tuple[Callable[[Any], object], str, str]] = {
    "a replaced module": (_replace_mlp, "modules", "transformer.h.1.mlp"),
    "a new module": (_add_module, "modules", "transformer.h.0.hook_point"),
    "a patched forward": (_patch_forward, "forwards", "FalconMLP"),
    "another class": (_change_class, "forwards", "FalconMLP"),
    "a forward hook": (
        lambda model: model.transformer.h[0].mlp.register_forward_hook(lambda *_: None),
        "hooks",
        "FalconMLP",
    ),
    "a pre-hook": (lambda model: model.register_forward_pre_hook(lambda *_: None), "hooks", "FalconForCausalLM"),
    "a backward hook": (lambda model: model.register_full_backward_hook(lambda *_: None), "hooks", "FalconForCausalLM"),
    "a parameter's value": (
        _set(lambda model: model.transformer.ln_f.weight, 5.0),
        "parameters",
        "transformer.ln_f.weight",
    ),
    "a replaced parameter": (_replace_parameter, "parameters", "transformer.ln_f.weight"),
    "a frozen parameter": (_freeze, "parameters", "transformer.ln_f.bias"),
    "a parameter's dtype": (_cast, "parameters", "transformer.ln_f.weight"),
    "a buffer's value": (
        _set(lambda model: model.transformer.rotary_emb.inv_freq, 5.0),
        "buffers",
        "transformer.rotary_emb.inv_freq",
    ),
    "a replaced buffer": (_replace_buffer, "buffers", "transformer.rotary_emb.inv_freq"),
    "the config": (lambda model: setattr(model.config, "use_cache", False), "config", "use_cache"),
    "the attention": (
        lambda model: setattr(model.config, "_attn_implementation", "eager"),
        "attention",
        "sdpa became eager",
    ),
    "the mode": (lambda model: model.train(), "mode", "FalconForCausalLM"),
    "the mode of a part": (lambda model: model.transformer.ln_f.train(), "mode", "LayerNorm"),
}


@pytest.mark.parametrize("what", IN_IT)
def test_a_change_in_it_is_seen_and_named(model: Any, what: str) -> None:
    change, kind, place = IN_IT[what]
    before = ModelState(model)
    change(model)
    assert before.changes() == {kind: place}


def test_every_kind_of_change_that_can_be_declared_can_be_seen() -> None:
    assert {kind for _, kind, _ in IN_IT.values()} == CHANGES.keys()


def test_of_many_replaced_modules_the_first_is_named(model: Any) -> None:
    before = ModelState(model)
    for name in [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    assert before.changes()["modules"] == "transformer.h.0.ln_attn"


def test_of_many_changed_config_values_the_first_is_named(model: Any) -> None:
    before = ModelState(model)
    model.config.vocab_size, model.config.use_cache, model.config.activation = 5, False, "relu"
    model.config.layer_norm_epsilon, model.config.eos_token_id, model.config.alibi = 0.5, 3, True
    assert before.changes()["config"] == "activation"


def test_a_model_without_a_config_can_be_watched() -> None:
    model = nn.Linear(2, 2)
    before = ModelState(model)
    with torch.no_grad():
        model.bias.zero_()
    assert before.changes() == {"parameters": "bias"}


def test_watching_looks_at_the_modules_that_hf_defines_the_model_in(model: Any) -> None:
    watched = Surroundings(model)._watched
    modules = {name for name, one in watched.items() if isinstance(one, ModuleType)}
    assert {"module transformers.models.falcon.modeling_falcon", "module transformers.modeling_utils"} <= modules
