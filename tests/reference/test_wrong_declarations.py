"""What a declaration says wrongly is told in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from verifier.errors import UsageError, VerifierError
from verifier.families.llama import LlamaFamily
from verifier.family import Config

TINY = {"hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 1, "intermediate_size": 40, "vocab_size": 50}


def build(family: Any) -> Any:
    return family.build(TINY, dtype=torch.float64, device="cpu", attention="sdpa", seed=0)


class _WrongPath(LlamaFamily):
    BLOCK: ClassVar[Mapping[str, str]] = {**LlamaFamily.BLOCK, "mlp.in": "mlp.up_prj"}


class _WrongBlocks(LlamaFamily):
    COMPONENTS: ClassVar[Mapping[str, str]] = {**LlamaFamily.COMPONENTS, "blocks": "model.layer"}


class _NoSuchComponent(LlamaFamily):
    BLOCK: ClassVar[Mapping[str, str]] = {**LlamaFamily.BLOCK, "mlp.inn": "mlp.up_proj"}


class _NoSuchComponentOutside(LlamaFamily):
    COMPONENTS: ClassVar[Mapping[str, str]] = {**LlamaFamily.COMPONENTS, "ln_finale": "model.norm"}


class _NoSuchComponentInOneBlock(LlamaFamily):
    def block(self, config: Config, layer: int) -> Mapping[str, str]:
        return {**self.BLOCK, "atn.q": "self_attn.q_proj"}


class _NoBlocks(LlamaFamily):
    COMPONENTS: ClassVar[Mapping[str, str]] = {"embed": "model.embed_tokens"}


class _NoSuchArchitecture(LlamaFamily):
    architecture = "LlamaForCausalML"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            _WrongPath,
            r"llama declares blocks\.0\.mlp\.in at 'mlp\.up_prj', where HF's model has no module "
            r"\(did you mean 'up_proj'\?\); LlamaMLP at 'mlp' has gate_proj, up_proj, down_proj, act_fn",
        ),
        (
            _WrongBlocks,
            r"declares blocks at 'model\.layer', .*'layers'\?\); LlamaModel at 'model' has embed_tokens, layers",
        ),
    ],
)
def test_a_path_at_which_there_is_nothing_is_told_with_what_is_there(wrong: type[LlamaFamily], message: str) -> None:
    family = wrong()
    with pytest.raises(VerifierError, match=message):
        family.components(build(family))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_NoSuchComponent, r"_NoSuchComponent: 'mlp\.inn' is no canonical component \(did you mean 'mlp\.in'\?\)"),
        (_NoSuchComponentOutside, r"'ln_finale' is no canonical component \(did you mean 'ln_final'\?\)"),
        (_NoBlocks, "COMPONENTS has no 'blocks'"),
    ],
)
def test_a_component_that_is_not_canonical_is_refused_at_once(wrong: type[LlamaFamily], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wrong()


def test_a_component_that_is_not_canonical_is_told_where_it_depends_on_the_config() -> None:
    family = _NoSuchComponentInOneBlock()
    with pytest.raises(UsageError, match=r"'atn\.q' is no canonical component \(did you mean 'attn\.q'\?\)"):
        family.components(build(family))


def test_an_architecture_that_transformers_lacks_is_no_refusal_of_hugging_face() -> None:
    with pytest.raises(VerifierError, match=r"has no 'LlamaForCausalML' \(did you mean 'LlamaForCausalLM'\?\)"):
        build(_NoSuchArchitecture())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"POSITIONS": "learned"}, "'learned' is no kind of positions"),
        ({"COMPONENTS": {"blocks": "model.layers"}}, "COMPONENTS has no 'embed'"),
        ({"COMPONENTS": {**LlamaFamily.COMPONENTS, "ln_final": "model.norm@x"}}, "no number of a run, from 0"),
        (
            {"BLOCK": {name: path for name, path in LlamaFamily.BLOCK.items() if name != "attn.o"}},
            "a block with 'attn' needs 'attn.o' beside it",
        ),
        (
            {"BLOCK": {name: path for name, path in LlamaFamily.BLOCK.items() if name != "attn.v"}},
            "a block with 'attn' needs 'attn.qkv' or 'attn.v' beside it",
        ),
        (
            {"BLOCK": {name: path for name, path in LlamaFamily.BLOCK.items() if name != "mlp.out"}},
            "a block with 'mlp.in' needs 'mlp.out' beside it",
        ),
    ],
)
def test_what_is_missing_or_no_word_is_told_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        type("Wrong", (LlamaFamily,), changes)()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"writers": lambda self, config: {"atn": "attn.o"}}, "'atn' is no writer (did you mean 'attn'?)"),
        ({"writers": lambda self, config: {"attn": "attn.out"}}, "'attn.out' is no component of a block"),
        ({"multipliers": lambda self, config: {"nonsense": 2.0}}, "'nonsense' is no template of a point"),
        (
            {"multipliers": lambda self, config: {"blocks.0.hook_attn_out": 2.0}},
            "is no template of a point (did you mean 'blocks.{i}.hook_attn_out'?)",
        ),
        (
            {"COMPONENTS": {**LlamaFamily.COMPONENTS, "blocks": "model.norm"}},
            "llama declares blocks at 'model.norm', which is no list of modules",
        ),
        (
            {"BLOCK": {**LlamaFamily.BLOCK, "attn.q": "input_layernorm"}},
            "a projection of queries, keys or values is declared at a LlamaRMSNorm",
        ),
    ],
)
def test_what_a_model_shows_to_be_wrong_is_one_line(changes: dict[str, Any], message: str) -> None:
    family = type("Wrong", (LlamaFamily,), changes)()
    with pytest.raises((UsageError, VerifierError), match=re.escape(message)), family.taps(build(family)):
        pass


def test_a_count_that_the_config_lacks_is_told_with_the_name_that_it_has() -> None:
    family = LlamaFamily()
    with pytest.raises(VerifierError, match="FIELDS how HF's config calls 'num_hidden_layers'"):
        family.points({"hidden_size": 12})
