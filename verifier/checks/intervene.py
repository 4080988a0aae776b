"""Interventions: that an edit at a hook point does to the logits what the same edit does in Hugging Face's model."""

from __future__ import annotations
