"""Building Hugging Face's model as it was asked for, and making sure that it is."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from verifier.adapter import Inputs, Output
from verifier.errors import Unrunnable, VerifierError, one_line
from verifier.family import Config
from verifier.reference.random_weights import randomise


def build(
    model_class: type[PreTrainedModel],
    config_class: type[Any],
    config: Config,
    *,
    dtype: torch.dtype,
    device: str,
    attention: str,
    seed: int,
    checkpoint: str | None = None,
) -> PreTrainedModel:
    """HF's model in evaluation mode, built in `dtype` and not cast to it, with random weights or a checkpoint's.

    Built and cast differ: a cast rounds RoPE's inverse frequencies, which HF keeps in float32.

    Raises:
        Unrunnable: HF accepts the config, and cannot load the checkpoint.
        VerifierError: HF gave a model of another dtype or attention implementation than was asked for.
        Exception: whatever HF raises for a config that it refuses.
    """
    # HF writes into the config that it is given, and into the dicts in it, so each model gets one of its own.
    given = config_class(**copy.deepcopy(dict(config)))
    if checkpoint is not None:
        model = _loaded(model_class, given, checkpoint, dtype=dtype, attention=attention).to(device)
    else:
        # Its initial weights are never seen, so they are not drawn. That leaves out tying, too.
        with no_init_weights(), contextlib.nullcontext() if device == "cpu" else torch.device(device):
            model = model_class._from_config(given, dtype=dtype, attn_implementation=attention)
    model.tie_weights()
    # Matrices only: an activation with parameters (xIELU) keeps them in a dtype of its own.
    in_effect = {parameter.dtype for parameter in model.parameters() if parameter.ndim > 1}
    if in_effect != {dtype}:
        raise VerifierError(f"asked HF for {dtype}, but the matrices are {sorted(map(str, in_effect))}")
    if model.config._attn_implementation != attention:
        raise VerifierError(f"asked HF for {attention} attention and got {model.config._attn_implementation}")
    if is_tied(model) != bool(model.config.tie_word_embeddings):
        raise VerifierError(f"asked HF for tie_word_embeddings={not is_tied(model)} and got the opposite")
    if checkpoint is None:
        randomise(model, seed)
    built: PreTrainedModel = model.eval()
    return built


def _loaded(
    model_class: type[PreTrainedModel], given: Any, checkpoint: str, *, dtype: torch.dtype, attention: str
) -> Any:
    """HF's model with the weights in the folder, all of them.

    Raises:
        Unrunnable: they cannot be loaded, or some are not there.
        Exception: whatever HF raises for a config that it refuses.
    """
    config = copy.deepcopy(given)
    load: Any = model_class.from_pretrained  # its types do not know of the loading info
    try:
        model, seen = load(
            checkpoint,
            config=given,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        with torch.device("meta"):  # what is wrong with the config is said here, as where there is no checkpoint
            model_class._from_config(config, dtype=dtype, attn_implementation=attention)
        raise Unrunnable(f"cannot load the checkpoint {checkpoint!r}: {one_line(error)}") from error
    # HF fills in what is not there with what it draws anew each time.
    missing = sorted(seen["missing_keys"])
    if missing:
        raise Unrunnable(f"the checkpoint {checkpoint!r} lacks {len(missing)} weights, {missing[0]} among them")
    return model


def is_tied(model: Any) -> bool:
    """Whether embedding and unembedding are one parameter."""
    outputs, inputs = model.get_output_embeddings(), model.get_input_embeddings()
    return outputs is not None and outputs.weight is inputs.weight


def forward(model: nn.Module, inputs: Inputs, **more: Any) -> Output:
    """One forward of HF's model on the inputs; `more` goes to HF as it is."""
    given = {
        "input_ids": inputs.input_ids,
        "inputs_embeds": inputs.inputs_embeds,
        "attention_mask": inputs.attention_mask,
        "position_ids": inputs.position_ids,
        "labels": inputs.labels,
        "past_key_values": inputs.cache,
    }
    result = model(
        **{name: value for name, value in given.items() if value is not None}, use_cache=inputs.use_cache, **more
    )
    return Output(
        logits=result.logits,
        loss=result.loss,
        cache=result.past_key_values if inputs.use_cache else None,
        attentions=result.attentions,
    )


def differentiate(logits: Tensor, along: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the product of the logits and `along` with respect to these; 0 where there is none."""
    found = torch.autograd.grad(logits, of, along.to(logits.dtype), allow_unused=True)
    return [torch.zeros_like(one) if grad is None else grad for one, grad in zip(of, found, strict=True)]


def greedy(
    model: Any, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """HF's greedy continuation with its cache, which no token ends early.

    Returns:
        The prompt with what follows it, `[batch, pos + max_new_tokens]`, and the logits by which each new token was
        chosen, `[batch, max_new_tokens, d_vocab]`.
    """
    kept = model.generation_config
    # A plain one: what a checkpoint wishes (a token that ends it, a penalty) is not the model's. Without a padding
    # token HF takes no token of the prompt for padding.
    model.generation_config = GenerationConfig()
    try:
        generated = model.generate(
            input_ids,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            return_dict_in_generate=True,
            output_logits=True,
            **({} if attention_mask is None else {"attention_mask": attention_mask}),
        )
    finally:
        model.generation_config = kept
    return generated.sequences, torch.stack(generated.logits, dim=1)
