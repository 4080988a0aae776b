"""`verifier list`: print the names of families, adapters, checks, circumstances and so on, and what each means."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from verifier import adapter, canonical, family
from verifier.cases import matrix
from verifier.cases.spec import Depth, named_depth
from verifier.commands.circumstance_listing import write_circumstances
from verifier.engine import catalogue
from verifier.errors import ExitStatus, UsageError
from verifier.output import text
from verifier.requests import configuration

_OF_A_FAMILY = ("hooks", "presets")


def listing(kind: str, family_reference: str | None, *, as_markdown: bool = False) -> ExitStatus:
    """Print a line for each name of a kind, with its meaning indented under it.

    Args:
        kind: `families`, `adapters`, `checks`, `circumstances`, `hooks` or `presets`.
        family_reference: the family whose hook points or presets are listed; None to name no family.
        as_markdown: whether the page of the vocabulary is printed, of which the hook points are a part.

    Returns:
        `CONFORMS`.

    Raises:
        UsageError: the family is unknown, or the kind is not one of a family; or there is no such page.
    """
    if as_markdown:
        if (kind, family_reference) != ("hooks", None):
            raise UsageError("there is a page of all hook points alone: `list hooks --markdown`")
        from verifier.report import vocabulary

        print(vocabulary.markdown())
        return ExitStatus.CONFORMS
    if family_reference is not None and kind not in _OF_A_FAMILY:
        raise UsageError(f"`list {kind}` takes no family; {' and '.join(_OF_A_FAMILY)} do")
    if kind == "circumstances":
        for line in write_circumstances(_width()):
            print(line)
        return ExitStatus.CONFORMS
    makers: Mapping[str, Callable[[], Iterator[Named]]] = {
        "families": _families,
        "adapters": _adapters,
        "checks": _checks,
        "hooks": lambda: _hooks(family_reference),
        "presets": lambda: _presets(family_reference),
    }
    _print(makers[kind]())
    return ExitStatus.CONFORMS


# Which cases a check looks at, in words.
_LOOKS_AT = {
    Depth.ALL: "every valid case",
    "invalid": "every case that HF refuses",
    "always": "every case",
    Depth.PAIRWISE: "the valid cases that are spread over the flags",
    Depth.SAMPLED: "a few valid cases of each kind of block",
}

Named = tuple[str, str]  # a name and its meaning


def _families() -> Iterator[Named]:
    for name in family.registered():
        described = family.load(name)
        flags = "; ".join(f"{flag}: {_in_words(values)}" for flag, values in described.flags().items())
        yield name, f"{described.architecture}. {flags}"


def _adapters() -> Iterator[Named]:
    configured = configuration.read(Path.cwd()).adapters
    for point in sorted(importlib.metadata.entry_points(group=adapter.GROUP), key=lambda one: one.name):
        origin = f", from {point.dist.name} {point.dist.version}" if point.dist else ""
        default = " (the default here)" if point.name in configured else ""
        yield point.name, f"{point.value}{origin}{default}"
    for reference in configured:
        if ":" in reference:
            yield reference, "configured here (the default here)"


def _checks() -> Iterator[Named]:
    for check in catalogue.registered():
        yield check.id, f"{check.doc} Looks at {_LOOKS_AT[named_depth(check.applies) or check.applies]}."


def _hooks(reference: str | None) -> Iterator[Named]:
    templates = None if reference is None else _templates(family.load(reference), reference)
    for kind in canonical.KINDS:
        if templates is None or kind.template in templates:
            yield f"{kind.template} [{', '.join(kind.axes)}]", kind.meaning


def _templates(described: family.Family, reference: str) -> set[str]:
    """List the template of every kind of hook point that some flag combination has."""
    specs = matrix.cases(described, reference, seed=0, dtypes=(), device="cpu")
    return {point.kind.template for spec in specs if spec.valid for point in described.points(spec.config)}


def _presets(reference: str | None) -> Iterator[Named]:
    for name in (reference,) if reference is not None else family.registered():
        for preset, config in family.load(name).presets().items():
            yield preset, f"{name}: {text.config(config)}"


def _in_words(values: Iterable[Any]) -> str:
    return " or ".join(text.value(one) for one in values)


def _width() -> int:
    """Find how many columns a line may take; 0 for any number: a log keeps a meaning on one line, to be searched."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def _print(lines: Iterable[Named]) -> None:
    width = _width()
    for name, meaning in lines:
        print(name)
        print(
            textwrap.fill(meaning, width, initial_indent="    ", subsequent_indent="    ")
            if width
            else f"    {meaning}"
        )
