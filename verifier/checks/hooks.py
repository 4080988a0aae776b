"""Hook points: that they are there, fire, and show Hugging Face's activations."""

from __future__ import annotations
