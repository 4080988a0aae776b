"""Decoding with a key/value cache: that it gives what one forward over the whole text gives."""

from __future__ import annotations
