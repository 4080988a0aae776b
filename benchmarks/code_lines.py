"""Count lines of code by room: no docstrings, comments or blank lines.

Usage: python benchmarks/code_lines.py [FOLDER…]      (by default `verifier` and `adapters`)
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Count the lines of Python that hold a token which is neither a comment nor part of a docstring."""
    documentation = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    held = {line for token in tokens if token.type not in _LAYOUT for line in range(token.start[0], token.end[0] + 1)}
    return len(held - documentation)


def main(folders: list[str]) -> None:
    """Print the number of lines of each room, and their sum."""
    counts: Counter[str] = Counter()
    for folder in folders or ["verifier", "adapters"]:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            room = "/".join(parts[:2]) if len(parts) > 2 else f"{parts[0]}/"
            counts[room] += code_lines(path.read_text(encoding="utf-8"))
    for room, count in sorted(counts.items()):
        print(f"{count:7,}  {room}")
    print(f"{sum(counts.values()):7,}  in all")


if __name__ == "__main__":
    main(sys.argv[1:])
