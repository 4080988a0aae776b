"""Components: that each bridged part alone computes what Hugging Face's module in its place does."""

from __future__ import annotations
