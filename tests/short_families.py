"""Families as short as they get, one for each trait in which HF's models differ; no flags, odd dims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from verifier.family import Config
from verifier.reference.declared import DeclaredFamily

USUAL = {
    "embed": "model.embed_tokens",
    "rotary_emb": "model.rotary_emb",
    "blocks": "model.layers",
    "ln_final": "model.norm",
    "unembed": "lm_head",
}
ATTENTION = {
    "ln1": "input_layernorm",
    "attn": "self_attn",
    **{f"attn.{letter}": f"self_attn.{letter}_proj" for letter in "qkvo"},
}
GATED = {"mlp": "mlp", "mlp.gate": "mlp.gate_proj", "mlp.in": "mlp.up_proj", "mlp.out": "mlp.down_proj"}
BLOCK = {**ATTENTION, "ln2": "post_attention_layernorm", **GATED}
DIMS = {
    "hidden_size": 72,
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "intermediate_size": 100,
    "vocab_size": 113,
    "max_position_embeddings": 96,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


GPT2_FIELDS = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}


class Gpt2(DeclaredFamily):
    """Conv1D, learned positions, a scale for each layer."""

    name, architecture, POSITIONS, FIELDS = "gpt2", "GPT2LMHeadModel", "standard", GPT2_FIELDS
    COMPONENTS: ClassVar[Mapping[str, str]] = {
        "embed": "transformer.wte",
        "pos_embed": "transformer.wpe",
        "blocks": "transformer.h",
        "ln_final": "transformer.ln_f",
        "unembed": "lm_head",
    }
    BLOCK: ClassVar[Mapping[str, str]] = {
        "ln1": "ln_1",
        "attn": "attn",
        "attn.qkv": "attn.c_attn",
        "attn.o": "attn.c_proj",
        "ln2": "ln_2",
        "mlp": "mlp",
        "mlp.in": "mlp.c_fc",
        "mlp.out": "mlp.c_proj",
    }
    DIMS: ClassVar[Config] = {
        **{name: value for name, value in DIMS.items() if name not in ("intermediate_size", "pad_token_id")},
        "n_inner": 80,
        "scale_attn_by_inverse_layer_idx": True,
    }


class GptJ(DeclaredFamily):
    """Old code that rotates: two products and a softmax, in a parallel block with one norm."""

    name, architecture, FIELDS = "gptj", "GPTJForCausalLM", GPT2_FIELDS
    reference_attention, attentions = "eager", ("eager",)
    COMPONENTS: ClassVar[Mapping[str, str]] = {
        "embed": "transformer.wte",
        "blocks": "transformer.h",
        "ln_final": "transformer.ln_f",
        "unembed": "lm_head",
    }
    BLOCK: ClassVar[Mapping[str, str]] = {
        "ln1": "ln_1",
        "attn": "attn",
        **{f"attn.{letter}": f"attn.{letter}_proj" for letter in "qkv"},
        "attn.o": "attn.out_proj",
        "mlp": "mlp",
        "mlp.in": "mlp.fc_in",
        "mlp.out": "mlp.fc_out",
    }
    DIMS: ClassVar[Config] = {
        **{name: value for name, value in Gpt2.DIMS.items() if name != "scale_attn_by_inverse_layer_idx"},
        "rotary_dim": 4,
    }

    def is_sequential(self, config: Config) -> bool:
        """Whether the MLP reads what the attention wrote."""
        return False


class NeoX(DeclaredFamily):
    """A fused projection by heads, partial rotary positions, a sequential or a parallel block with two norms."""

    name, architecture = "neox", "GPTNeoXForCausalLM"
    COMPONENTS: ClassVar[Mapping[str, str]] = {
        "embed": "gpt_neox.embed_in",
        "rotary_emb": "gpt_neox.rotary_emb",
        "blocks": "gpt_neox.layers",
        "ln_final": "gpt_neox.final_layer_norm",
        "unembed": "lm_head",
    }
    BLOCK: ClassVar[Mapping[str, str]] = {
        "ln1": "input_layernorm",
        "attn": "attention",
        "attn.qkv": "attention.query_key_value",
        "attn.o": "attention.dense",
        "ln2": "post_attention_layernorm",
        "mlp": "mlp",
        "mlp.in": "mlp.dense_h_to_4h",
        "mlp.out": "mlp.dense_4h_to_h",
    }
    DIMS: ClassVar[Config] = {**DIMS, "rotary_pct": 0.34, "use_parallel_residual": True}

    def is_sequential(self, config: Config) -> bool:
        """Whether the MLP reads what the attention wrote."""
        return not config["use_parallel_residual"]


class Gemma2(DeclaredFamily):
    """`1 + weight`, norms after attention and MLP, softcaps, alternating windows."""

    name, architecture, reference_attention, attentions = "gemma2", "Gemma2ForCausalLM", "exact", ("exact", "eager")
    COMPONENTS: ClassVar[Mapping[str, str]] = USUAL
    BLOCK: ClassVar[Mapping[str, str]] = {
        **ATTENTION,
        "ln1_post": "post_attention_layernorm",
        "ln2": "pre_feedforward_layernorm",
        **GATED,
        "ln2_post": "post_feedforward_layernorm",
    }
    DIMS: ClassVar[Config] = {
        **DIMS,
        "head_dim": 10,
        "num_key_value_heads": 4,
        "sliding_window": 3,
        "query_pre_attn_scalar": 7,
        "attn_logit_softcapping": 0.5,
    }


class Qwen3(DeclaredFamily):
    """Norms on queries and keys."""

    name, architecture = "qwen3", "Qwen3ForCausalLM"
    COMPONENTS: ClassVar[Mapping[str, str]] = USUAL
    BLOCK: ClassVar[Mapping[str, str]] = {**BLOCK, "attn.q_norm": "self_attn.q_norm", "attn.k_norm": "self_attn.k_norm"}
    DIMS: ClassVar[Config] = {**DIMS, "head_dim": 10, "num_key_value_heads": 4}


class Opt(DeclaredFamily):
    """A block that flattens its MLP, which is no module of its own, and scaled queries."""

    name, architecture, POSITIONS = "opt", "OPTForCausalLM", "standard"
    COMPONENTS: ClassVar[Mapping[str, str]] = {
        "embed": "model.decoder.embed_tokens",
        "pos_embed": "model.decoder.embed_positions",
        "blocks": "model.decoder.layers",
        "ln_final": "model.decoder.final_layer_norm",
        "unembed": "lm_head",
    }
    BLOCK: ClassVar[Mapping[str, str]] = {
        **{name: path.replace("o_proj", "out_proj") for name, path in ATTENTION.items()},
        "ln1": "self_attn_layer_norm",
        "ln2": "final_layer_norm",
        "mlp.in": "fc1",
        "mlp.out": "fc2",
    }
    DIMS: ClassVar[Config] = {
        **{name: value for name, value in DIMS.items() if name != "intermediate_size"},
        "ffn_dim": 100,
        "word_embed_proj_dim": 72,
    }


class Bloom(DeclaredFamily):
    """Old code: a softmax of its own; attention and MLP that add the stream themselves; a norm on the embeddings."""

    name, architecture, POSITIONS, FIELDS = "bloom", "BloomForCausalLM", "alibi", GPT2_FIELDS
    reference_attention, attentions = "eager", ("eager",)
    COMPONENTS: ClassVar[Mapping[str, str]] = {
        "embed": "transformer.word_embeddings",
        "embed_ln": "transformer.word_embeddings_layernorm",
        "blocks": "transformer.h",
        "ln_final": "transformer.ln_f",
        "unembed": "lm_head",
    }
    BLOCK: ClassVar[Mapping[str, str]] = {
        "ln1": "input_layernorm",
        "attn": "self_attention",
        "attn.qkv": "self_attention.query_key_value",
        "attn.o": "self_attention.dense",
        "ln2": "post_attention_layernorm",
        "mlp": "mlp",
        "mlp.in": "mlp.dense_h_to_4h",
        "mlp.out": "mlp.dense_4h_to_h",
    }
    DIMS: ClassVar[Config] = {
        name: DIMS[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    }

    def writers(self, config: Config) -> Mapping[str, str]:
        """What is added is what their projections give."""
        return {"attn": "attn.o", "mlp": "mlp.out"}


class NanoChat(DeclaredFamily):
    """A norm without weight that runs twice in a forward, and an MLP without a gate."""

    name, architecture = "nanochat", "NanoChatForCausalLM"
    COMPONENTS: ClassVar[Mapping[str, str]] = {**USUAL, "embed_ln": "model.norm@0", "ln_final": "model.norm@1"}
    BLOCK: ClassVar[Mapping[str, str]] = {
        **ATTENTION,
        "attn.q_norm": "self_attn.q_norm",
        "attn.k_norm": "self_attn.k_norm",
        "ln2": "post_attention_layernorm",
        "mlp": "mlp",
        "mlp.in": "mlp.fc1",
        "mlp.out": "mlp.fc2",
    }
    DIMS: ClassVar[Config] = {**DIMS, "num_key_value_heads": 4}

    def norms_rotated(self, config: Config) -> bool:
        """They stand after rotary."""
        return True


class Olmo2(DeclaredFamily):
    """Norms after attention and MLP alone, and norms on all heads of queries and keys at once."""

    name, architecture = "olmo2", "Olmo2ForCausalLM"
    COMPONENTS: ClassVar[Mapping[str, str]] = USUAL
    BLOCK: ClassVar[Mapping[str, str]] = {
        **{name: path for name, path in ATTENTION.items() if name != "ln1"},
        "attn.q_norm": "self_attn.q_norm",
        "attn.k_norm": "self_attn.k_norm",
        "ln1_post": "post_attention_layernorm",
        **GATED,
        "ln2_post": "post_feedforward_layernorm",
    }
    DIMS: ClassVar[Config] = {**DIMS, "num_key_value_heads": 4}


class Granite(DeclaredFamily):
    """Multipliers of the embedding and of what is added to the stream."""

    name, architecture = "granite", "GraniteForCausalLM"
    COMPONENTS: ClassVar[Mapping[str, str]] = USUAL
    BLOCK: ClassVar[Mapping[str, str]] = BLOCK
    DIMS: ClassVar[Config] = {
        **DIMS,
        "num_key_value_heads": 4,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.4,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.5,
    }

    def multipliers(self, config: Config) -> Mapping[str, float]:
        """Both that the config names."""
        residual = config["residual_multiplier"]
        outputs = dict.fromkeys(("blocks.{i}.hook_attn_out", "blocks.{i}.hook_mlp_out"), residual)
        return {"hook_embed": config["embedding_multiplier"], **outputs}


class GptOss(DeclaredFamily):
    """Sinks, windows in every other layer, and experts, of which nothing is declared."""

    name, architecture, reference_attention, attentions = "gpt-oss", "GptOssForCausalLM", "exact", ("exact", "eager")
    COMPONENTS: ClassVar[Mapping[str, str]] = USUAL
    BLOCK: ClassVar[Mapping[str, str]] = {**ATTENTION, "ln2": "post_attention_layernorm", "mlp": "mlp"}
    DIMS: ClassVar[Config] = {
        **DIMS,
        "head_dim": 10,
        "num_key_value_heads": 4,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "sliding_window": 3,
    }


class SharedBlocks(DeclaredFamily):
    """One block that runs as every layer of Llama's."""

    name, architecture = "shared-blocks", "LlamaForCausalLM"
    COMPONENTS: ClassVar[Mapping[str, str]] = USUAL
    BLOCK: ClassVar[Mapping[str, str]] = BLOCK
    DIMS: ClassVar[Config] = {**DIMS, "num_hidden_layers": 3, "num_key_value_heads": 4}

    def build(self, config, **options):  # type: ignore[no-untyped-def]
        """Let every layer be the first."""
        model = super().build(config, **options)
        layers = model.model.layers
        for place in range(1, len(layers)):
            layers[place] = layers[0]
        return model


FAMILIES = {
    one.name: one()
    for one in (Gpt2, GptJ, NeoX, Gemma2, Qwen3, Opt, Bloom, NanoChat, Olmo2, Granite, GptOss, SharedBlocks)
}
