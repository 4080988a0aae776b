"""OPT: Hugging Face's `OPTForCausalLM`, whose norms stand before attention and MLP."""

from verifier.reference.declared import DeclaredFamily
from verifier.reference.point_sources import LAYER_NORM


class OptFamily(DeclaredFamily):
    """The reference side of OPT.

    Norms after the stream is added to (`do_layer_norm_before=False`, of opt-350m alone) and embeddings of another
    width than the stream (`word_embed_proj_dim`) have no canonical points.
    """

    name = "opt"
    architecture = "OPTForCausalLM"
    COMPONENTS = {
        "embed": "model.decoder.embed_tokens",
        "pos_embed": "model.decoder.embed_positions",
        "blocks": "model.decoder.layers",
        "ln_final": "model.decoder.final_layer_norm",
        "unembed": "lm_head",
    }
    BLOCK = {
        "ln1": "self_attn_layer_norm",
        "attn": "self_attn",
        "attn.q": "self_attn.q_proj",
        "attn.k": "self_attn.k_proj",
        "attn.v": "self_attn.v_proj",
        "attn.o": "self_attn.out_proj",
        "ln2": "final_layer_norm",
        "mlp.in": "fc1",
        "mlp.out": "fc2",
    }
    NORM_LINES = LAYER_NORM
    POSITIONS = "standard"
    FLAGS = {
        "enable_bias": (True, False),
        "layer_norm_elementwise_affine": (True, False),
        "tie_word_embeddings": (True, False),
    }
    DIMS = {
        "hidden_size": 96,
        "num_attention_heads": 12,
        "num_hidden_layers": 2,
        "ffn_dim": 100,
        "vocab_size": 113,
        "max_position_embeddings": 80,
    }
    CORNERS = {
        "three-layers": {"num_hidden_layers": 3, "layer_norm_elementwise_affine": False},
        "no-layers": {"num_hidden_layers": 0},
        "one-head": {"hidden_size": 8, "num_attention_heads": 1},
        "d_head-1": {"hidden_size": 12},
        "narrow-mlp": {"ffn_dim": 10},
        "gelu": {"activation_function": "gelu", "enable_bias": False},
        "no-padding-token": {"pad_token_id": None},
        # What HF refuses.
        "heads-not-divided": {"num_attention_heads": 7},
        "heads-too-many": {"num_attention_heads": 97},
    }
    # The checkpoints' config.json, of fewer layers and tokens: https://huggingface.co/facebook/opt-125m, …/opt-6.7b
    PRESETS = {
        "opt-125m": {
            "hidden_size": 768,
            "num_attention_heads": 12,
            "num_hidden_layers": 2,
            "ffn_dim": 3072,
            "vocab_size": 1021,
            "max_position_embeddings": 2048,
            "dropout": 0.1,
        },
        "opt-6.7b": {
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "num_hidden_layers": 1,
            "ffn_dim": 16384,
            "vocab_size": 1021,
            "max_position_embeddings": 2048,
            "dropout": 0.1,
        },
    }
    # Not `layerdrop`: it leaves out whole layers, whose keys are then missing in HF's own cache.
    DROPOUTS = {"attention_dropout": 0.3, "dropout": 0.2}
    SHAPES = {
        "even": (None, {"hidden_size": 128, "num_attention_heads": 8, "ffn_dim": 144, "vocab_size": 307}),
        "many": (None, {"hidden_size": 160, "num_attention_heads": 20, "ffn_dim": 112}),
        "wide": (None, {"hidden_size": 160, "num_attention_heads": 4, "ffn_dim": 176}),
    }
    FUZZED = {
        "num_hidden_layers": (2, 1, 3),
        "hidden_size": (96, 48, 144),
        "num_attention_heads": (12, 6, 1),
        "ffn_dim": (100, 7),
        "activation_function": ("relu", "gelu", "silu"),
    }
