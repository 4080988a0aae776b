"""Llama without a predicate, `asked_llama:AskedLlama`: Hugging Face is asked which of its configs it refuses.

`asked_llama:ForwardAdapter` wraps any model of Hugging Face's that runs.
"""

from __future__ import annotations

from typing import Any

from verifier.adapter import AdapterRefusal, Inputs, Output, Subject
from verifier.families.llama import LlamaFamily


class AskedLlama(LlamaFamily):
    """The family of the product, under a name of the tests' own."""


class ForwardSubject(Subject):
    """Hugging Face's model, which can be called and nothing else."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, inputs: Inputs) -> Output:
        from verifier.reference.models import forward

        return forward(self.model, inputs)

    def close(self) -> None:
        self.model = None


class ForwardAdapter:
    """Wraps what runs, and refuses the rest."""

    name, version = "forward", "1.0"

    def wrap(self, model: Any) -> ForwardSubject:
        import torch

        try:
            with torch.no_grad():
                model(input_ids=torch.zeros(1, 3, dtype=torch.long))
        except Exception as error:
            raise AdapterRefusal(f"it does not run: {error}") from error
        return ForwardSubject(model)
