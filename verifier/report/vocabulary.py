"""The page of the vocabulary: each canonical name, its axes, and what it is."""

from __future__ import annotations

from verifier.canonical import AXES, COMPONENTS, FACTS, KINDS, WEIGHTS
from verifier.report import templating


def markdown() -> str:
    """Render the vocabulary as a page of documentation."""
    known = {"points": KINDS, "axes": AXES, "weights": WEIGHTS, "components": COMPONENTS, "facts": FACTS}
    page = templating.render("vocabulary.md.j2", **known)
    return page.rstrip("\n")
