"""Gradients: at hook points and of parameters, read and replaced."""

from __future__ import annotations
