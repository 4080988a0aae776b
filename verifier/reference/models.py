"""Build Hugging Face's model as asked for, make sure that it is so, and run it."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils import logging

from verifier.adapter import Inputs, Output
from verifier.errors import Unrunnable, VerifierError, one_line
from verifier.family import Config, Family
from verifier.reference.exact_attention import offer
from verifier.reference.random_weights import randomise
from verifier.system.temporary import temporary_folder

MOST_LAYERS = 10_000  # published models have some hundred
LARGE = 2**12  # a model whose config has no larger number has room everywhere


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
    """Build HF's model in evaluation mode, with random weights or those of a checkpoint.

    The model is built in `dtype` and not cast to it: a cast rounds RoPE's inverse frequencies, which HF keeps in
    float32.

    Where HF has several ways to compute experts, the model has the one that its modeling code spells out, a loop over
    experts ("eager"), unless the config names another. HF's default is torch's grouped product of matrices, which has
    no float64 and takes no narrow matrix in a half dtype, so that most tiny models would not run. The choice hangs on
    no dtype: a model may be cast after it was built, and models in two dtypes are to differ by rounding alone.

    Args:
        model_class: HF's class of the model.
        config_class: HF's class of its config.
        config: the arguments of the config class; it is copied.
        dtype: of the matrices.
        device: what holds the model, such as `cuda`.
        attention: the attention implementation, such as `sdpa` or `eager`.
        seed: of the random weights; unused with a checkpoint.
        checkpoint: a local folder with weights; None for random ones.

    Raises:
        Unrunnable: HF accepts the config and cannot load the checkpoint, or the model has no room on this machine.
        VerifierError: HF's model has another dtype, attention implementation or tying than was asked for.
        Exception: whatever HF raises for a config that it refuses.
    """
    offer()
    # HF writes into a config and into the dicts in it, so each model gets a copy.
    given = config_class(**copy.deepcopy(dict(config)))
    if given._experts_implementation is None:  # a model without experts ends up with "eager" by itself
        given._experts_implementation = "eager"
    _require_room(model_class, given, config, dtype=dtype)
    if checkpoint is not None:
        model = _loaded(model_class, given, checkpoint, dtype=dtype, attention=attention).to(device)
    else:
        # HF's initial weights would be replaced, so they are not drawn. That skips tying, too.
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


def _require_room(model_class: type[PreTrainedModel], given: Any, config: Config, *, dtype: torch.dtype) -> None:
    """Make sure that a model whose config has large numbers can be built on this machine at all.

    Raises:
        Unrunnable: it has more layers than any model, or more weights than the machine has memory for.
    """
    layers = getattr(given, "num_hidden_layers", 0)
    if layers > MOST_LAYERS:
        raise Unrunnable(f"num_hidden_layers={layers:,} is more than can be built: at most {MOST_LAYERS:,}")
    if all(value <= LARGE for value in config.values() if isinstance(value, int)):
        return
    try:
        with torch.device("meta"), no_init_weights():
            weights = sum(one.numel() for one in model_class._from_config(copy.deepcopy(given)).parameters())
    except RuntimeError:
        return  # HF refuses it, or torch cannot count so far: building it says which
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if weights * dtype.itemsize > there:
        raise Unrunnable(
            f"a model of {weights:,} weights in {str(dtype).removeprefix('torch.')} has no room in the "
            f"{there / 2**30:,.0f} GiB of this machine"
        )


def _loaded(
    model_class: type[PreTrainedModel], given: Any, checkpoint: str, *, dtype: torch.dtype, attention: str
) -> Any:
    """Load HF's model with the weights of a checkpoint folder.

    Raises:
        Unrunnable: the weights cannot be loaded, or some are missing.
        Exception: whatever HF raises for a config that it refuses.
    """
    config = copy.deepcopy(given)
    load: Any = model_class.from_pretrained  # its type stubs lack `output_loading_info`
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
        with torch.device("meta"):  # a wrong config raises here, as it does without a checkpoint
            model_class._from_config(config, dtype=dtype, attn_implementation=attention)
        raise Unrunnable(f"cannot load the checkpoint {checkpoint!r}: {one_line(error)}") from error
    # HF fills missing weights with new random ones each time.
    missing = sorted(seen["missing_keys"])
    if missing:
        raise Unrunnable(f"the checkpoint {checkpoint!r} lacks {len(missing)} weights, {missing[0]} among them")
    return model


def save_and_load(model: PreTrainedModel, family: Family, config: Config, **options: Any) -> PreTrainedModel:
    """Save a model with `save_pretrained` and load it with `from_pretrained`.

    Args:
        model: that is saved.
        family: loads it.
        config: of the model.
        options: those of `Family.build`, without a seed.
    """
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with temporary_folder() as folder:
            model.save_pretrained(folder)
            return family.build(config, seed=0, checkpoint=str(folder), **options)
    finally:
        if shown:
            logging.enable_progress_bar()


def is_tied(model: Any) -> bool:
    """Whether the embedding and the unembedding are one parameter."""
    outputs, inputs = model.get_output_embeddings(), model.get_input_embeddings()
    return outputs is not None and outputs.weight is inputs.weight


def dtype_of(model: nn.Module) -> torch.dtype:
    """Find the dtype of a model's matrices."""
    return next((one.dtype for one in model.parameters() if one.ndim > 1), torch.get_default_dtype())


def forward(model: nn.Module, inputs: Inputs, **more: Any) -> Output:
    """Run HF's model on the inputs; `more` is passed to HF unchanged.

    Args:
        model: HF's model.
        inputs: what it is given; None is left out.
        more: further keyword arguments, such as `output_attentions`.
    """
    given = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    given["past_key_values"] = given.pop("cache")  # HF's name of it; all other names are HF's
    result = model(**{name: value for name, value in given.items() if value is not None}, **more)
    # A model with an encoder has attentions of both halves; its logits are the decoder's.
    attentions = result.decoder_attentions if hasattr(result, "decoder_attentions") else result.attentions
    return Output(
        logits=result.logits,
        loss=result.loss,
        cache=result.past_key_values if inputs.use_cache else None,
        attentions=attentions,
    )


def any_tokens(model: Any, *, length: int = 2) -> Inputs:
    """Make inputs that every model takes: one row of token 0, which every vocabulary has.

    Args:
        model: HF's; one with an encoder is given tokens for its decoder too.
        length: how many tokens.
    """
    ids = torch.zeros(1, length, dtype=torch.long, device=model.device)
    return Inputs(input_ids=ids, decoder_input_ids=ids if model.config.is_encoder_decoder else None)


def differentiate(logits: Tensor, along: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    """Differentiate the sum of `logits * along` with respect to tensors in its graph.

    Args:
        logits: `[batch, pos, d_vocab]`.
        along: `[batch, pos, d_vocab]`.
        of: the tensors.

    Returns:
        A gradient for each tensor, of its shape; 0 where the logits do not depend on it.
    """
    found = torch.autograd.grad(logits, of, along.to(logits.dtype), allow_unused=True)
    return [torch.zeros_like(one) if grad is None else grad for one, grad in zip(of, found, strict=True)]


def greedy(
    model: Any, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Generate greedily with HF's model and its cache; no token ends the text early.

    Args:
        model: HF's model; its generation config is put back afterwards.
        input_ids: `[batch, pos]`, the prompt.
        max_new_tokens: the number of tokens to add to each row.
        attention_mask: `[batch, pos]`, 1 for a token and 0 for padding; HF is given none where it is None.

    Returns:
        The prompt and the new tokens, `[batch, pos + max_new_tokens]`, and the logits from which each new token was
        chosen, `[batch, max_new_tokens, d_vocab]`.
    """
    kept = model.generation_config
    # A plain generation config: a checkpoint's own (end token, penalties) is no part of the model. Without a padding
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
