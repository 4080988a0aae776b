"""What the documents say in code is so: every python block in them runs, each alone; but for the guides."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
GUIDES = {DOCS / name for name in ("adapters.md", "families.md")}  # `test_guide.py` follows them from block to block

needs_lens = pytest.mark.skipif(
    importlib.util.find_spec("transformer_lens") is None, reason="transformer_lens is not installed"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A python block, the headings that it stands under, and the number of lines before its first one."""

    path: Path
    headings: tuple[str, ...]
    lines_before: int
    source: str


def blocks(path: Path) -> Iterator[Block]:
    """The python blocks of a document, also those inside a longer fence, such as a report that holds code."""
    headings, opened, held = tuple[str, ...](), None, list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if opened is not None:
            if line == "```":
                yield Block(path=path, headings=headings, lines_before=opened, source="\n".join(held))
                opened, held = None, []
            else:
                held.append(line)
        elif line == "```python":
            opened = number
        elif heading := re.match(r"(#+) (.*)", line):
            headings = (*headings[: len(heading[1]) - 1], heading[2])
    assert opened is None, f"{path.name}: the python block that begins in line {opened} does not end"


def parameters() -> Iterator[Any]:
    for path in sorted(set(DOCS.glob("*.md")) - GUIDES):
        for block in blocks(path):
            marks = [needs_lens] if "transformer_lens" in block.source else []
            yield pytest.param(block, id=": ".join([path.name, *block.headings[1:]]), marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("block", list(parameters()))
def test_runs(block: Block) -> None:
    # As many empty lines before it as there are lines before it in the document: tracebacks show the right ones.
    code = compile("\n" * block.lines_before + block.source, str(block.path), "exec")
    with torch.random.fork_rng():
        exec(code, {"__name__": "__main__"})


def test_blocks_are_found() -> None:
    assert {block.path.name for path in DOCS.glob("*.md") for block in blocks(path)}
