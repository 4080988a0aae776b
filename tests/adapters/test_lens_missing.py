"""`verifier_lens` where TransformerLens is not installed, and what importing it costs where it is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ADAPTERS = Path(__file__).resolve().parents[2] / "adapters"

HIDDEN = """
import importlib.machinery, sys

class Hiding(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "transformer_lens" else super().find_spec(name, path, target)

sys.meta_path[:] = [Hiding if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""


def run(code: str) -> str:
    """What the code prints in a fresh interpreter."""
    start = f"import sys; sys.path.insert(0, {str(ADAPTERS)!r})\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_missing_transformer_lens_is_one_line_with_the_install_command() -> None:
    printed = run(
        HIDDEN + "from verifier.errors import ImportFailed\n"
        "from verifier_lens import LensAdapter\n"
        "try:\n    LensAdapter()\n"
        "except ImportFailed as error:\n    print(error)\n"
    )
    assert printed == 'TransformerLens is not installed: pip install "adapter-verifier[lens]"\n'


@pytest.mark.skipif(importlib.util.find_spec("transformer_lens") is None, reason="TransformerLens is not installed")
def test_making_the_adapter_imports_neither_torch_nor_transformer_lens() -> None:
    printed = run(
        "from verifier_lens import LensAdapter\n"
        "LensAdapter()\n"
        "print([name for name in ('torch', 'transformers', 'transformer_lens') if name in sys.modules])\n"
    )
    assert printed == "[]\n"
