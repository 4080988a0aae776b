"""The adapter `transformer-lens`: it wraps a model of any architecture that the installed TransformerLens has."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING

from verifier.adapter import AdapterRefusal, Usage
from verifier.errors import ImportFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from verifier_lens.subject import LensSubject

MODULE = "transformer_lens"
INSTALL = 'pip install "adapter-verifier[lens]"'


def installed_version() -> str:
    """Read the installed TransformerLens' version without importing it.

    Raises:
        ImportFailed: it is not installed.
    """
    missing = f"TransformerLens is not installed: {INSTALL}"
    if importlib.util.find_spec(MODULE) is None:
        raise ImportFailed(missing)
    try:
        return importlib.metadata.version(MODULE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportFailed(f"{missing} (a module {MODULE!r} is found, but it belongs to no installation)") from error


class LensAdapter:
    """TransformerLens' TransformerBridge, for any architecture in TransformerLens' registry.

    Raises:
        ImportFailed: TransformerLens is not installed.
    """

    name = "transformer-lens"

    def __init__(self) -> None:
        self.version = installed_version()

    def wrap(self, model: nn.Module) -> LensSubject:
        """Build a TransformerBridge around the model, in place.

        Raises:
            AdapterRefusal: TransformerLens has no adapter for the model's architecture.
        """
        from verifier_lens import subject

        architecture = type(model).__name__
        if architecture not in subject.architectures():
            raise AdapterRefusal(f"TransformerLens {self.version} has no adapter for the architecture {architecture!r}")
        return subject.wrap(model)

    def usage(self, given: Sequence[str]) -> Usage:
        """Give the code of a forward: ids or embeddings come first, everything else by its name."""
        main, *others = given
        return Usage(
            imports=("from transformer_lens.model_bridge.sources import build_bridge_from_module",),
            wrap=(
                "name = type(model).__name__",
                "subject = build_bridge_from_module(model, name, hf_config=model.config)",
            ),
            logits=f"subject({', '.join([main, *(f'{other}={other}' for other in others)])})",
        )

    def reading(self, given: Sequence[str], point: str) -> tuple[str, ...]:
        """Give the code that reads an activation; `hook_result` needs `set_use_attn_result`.

        Args:
            given: the names of the inputs that the code passes, ids or embeddings first.
            point: the name of the hook point that is read.

        Returns:
            The lines of code, which end with the activation in `found`.
        """
        main, *others = given
        inputs = ", ".join([main, *(f"{other}={other}" for other in others)])
        return (
            *(("subject.set_use_attn_result(True)",) if point.endswith(".hook_result") else ()),
            f'_, activations = subject.run_with_cache({inputs}, names_filter="{point}")',
            f'found = activations["{point}"]',
        )
