"""A right adapter that the harness calls wrong: Hugging Face's own forward, after Hugging Face's own public call.

`set_attn_implementation("eager")` is public, and Falcon answers it with a warning and stays as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import FalconForCausalLM

from verifier import adapter
from verifier.adapter import AdapterRefusal, Inputs, Output

FIELDS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "labels")


class Subject(adapter.Subject):
    """Hugging Face's model and its forward."""

    declared_mutations = frozenset({"attention", "config"})

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, inputs: Inputs) -> Output:
        given = {name: value for name in FIELDS if (value := getattr(inputs, name)) is not None}
        result = self.model(**given)
        return Output(logits=result.logits, loss=result.loss)

    def close(self) -> None:
        self.model = None


class Adapter:
    """Switches the attention implementation by the public method, once the model has been seen to run."""

    name = "public-attention-switch"
    version = "1"

    def wrap(self, model: Any) -> Subject:
        """Wrap a Falcon that Hugging Face can run.

        Raises:
            AdapterRefusal: it is no Falcon, or Hugging Face's forward raises.
        """
        if not isinstance(model, FalconForCausalLM):
            raise AdapterRefusal(f"{type(model).__name__} is not the FalconForCausalLM of transformers")
        try:
            with torch.no_grad():
                model(torch.zeros(1, 2, dtype=torch.long))
        except Exception as error:
            raise AdapterRefusal(str(error)) from error
        model.set_attn_implementation("eager")
        return Subject(model)
