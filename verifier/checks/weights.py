"""Canonical weights: whether what an adapter shows as the model's weights is the model."""

from __future__ import annotations
