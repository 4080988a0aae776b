"""Llama without a predicate, `asked_llama:AskedLlama`: Hugging Face is asked which of its configs it refuses."""

from __future__ import annotations

from llama_family import LlamaFamily


class AskedLlama(LlamaFamily):
    """The reference side of Llama, all but what Hugging Face refuses."""

    @property
    def refusal(self) -> None:
        """Nothing: the family has no such method."""
        raise AttributeError("refusal")
