"""Say in one line what a family's declaration says wrongly. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from verifier.canonical import COMPONENTS, KINDS
from verifier.errors import UsageError
from verifier.output.text import nearest

BLOCKS = "blocks"
"""The name under which a family declares the path of its list of blocks."""

POSITIONS = ("rotary", "alibi", "standard", "none")
"""What may tell a model positions."""

_INSIDE = f"{BLOCKS}.{{i}}."
_IN_BLOCK = [name.removeprefix(_INSIDE) for name in COMPONENTS if name.startswith(_INSIDE)]
_AROUND = [BLOCKS, *(name for name in COMPONENTS if not name.startswith(BLOCKS))]
_POINTS = [kind.template for kind in KINDS]
# What a component needs beside it: one name of each group.
_NEEDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "attn": (("attn.o",), ("attn.qkv", "attn.q"), ("attn.qkv", "attn.k"), ("attn.qkv", "attn.v")),
    "mlp.in": (("mlp.out",),),
    "mlp.gate": (("mlp.in",),),
}


def _require_known(of: str, what: str, known: Collection[str], said: Iterable[str]) -> None:
    for name in said:
        if name not in known:
            raise UsageError(f"{of}: {name!r} is no {what}{nearest(name, [*known])}")


def require_components(of: str, components: Mapping[str, str]) -> None:
    """Make sure of what stands outside the blocks.

    Args:
        of: whose declaration it is.
        components: the paths by component, and that of the list of blocks.

    Raises:
        UsageError: a component is no canonical one, one that every model has is missing, or a run is no number.
    """
    _require_known(of, "canonical component", _AROUND, components)
    if BLOCKS not in components:
        raise UsageError(f"{of}: COMPONENTS has no {BLOCKS!r}, the path of HF's list of blocks")
    if "embed" not in components:
        raise UsageError(f"{of}: COMPONENTS has no 'embed', the path of HF's token embeddings")
    _require_runs(of, components)


def require_block(of: str, block: Mapping[str, str]) -> None:
    """Make sure of what stands in a block.

    Args:
        of: whose declaration it is.
        block: the paths by component.

    Raises:
        UsageError: a component is no canonical one or needs another one beside it, or a run is no number.
    """
    _require_known(of, "canonical component", _IN_BLOCK, block)
    for name, groups in _NEEDS.items():
        for group in groups if name in block else ():
            if not any(one in block for one in group):
                raise UsageError(f"{of}: a block with {name!r} needs {' or '.join(map(repr, group))} beside it")
    _require_runs(of, block)


def _require_runs(of: str, paths: Mapping[str, str]) -> None:
    for name, path in paths.items():
        _, at, run = path.partition("@")
        if at and not run.isdigit():
            raise UsageError(f"{of}: {name!r} is at {path!r}, and behind the @ stands no number of a run, from 0")


def require_words(
    of: str, *, positions: str, writers: Mapping[str, str] | None = None, multipliers: Collection[str] = ()
) -> None:
    """Make sure of the words that a family's methods give.

    Args:
        of: whose declaration it is.
        positions: what tells positions.
        writers: the components by what adds their output.
        multipliers: the templates of points.

    Raises:
        UsageError: one is none that is known.
    """
    _require_known(of, "kind of positions", POSITIONS, [positions])
    _require_known(of, "writer", ("attn", "mlp"), writers or ())
    _require_known(of, "component of a block", _IN_BLOCK, (writers or {}).values())
    _require_known(of, "template of a point", _POINTS, multipliers)
